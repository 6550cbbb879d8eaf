/* test_hyper.c - HyperAttention against weights of pairs made in double, against the official code's outputs, and against exact
 * attention. */
#include "heads_test.h"
#include "hyper_test.h"
#include "structured_test.h"

static int64_t draw(void *user, int64_t head, int64_t first, int64_t keys, int64_t sample) {
    (void)user;
    return (first * 7 + 13 * head + 31 * sample + sample * sample) % keys;
}

static fv_hyper hyper_of(const heads *x, bool causal, int64_t block, int64_t samples, int64_t least, const float *projection) {
    return (fv_hyper){.h_q = x->h_q,
                      .h_kv = x->h_kv,
                      .n_q = x->n,
                      .n_kv = x->n,
                      .d_k = x->d,
                      .d_v = x->d,
                      .causal = causal,
                      .block = block,
                      .samples = samples,
                      .least = least,
                      .projections = 5,
                      .projection = projection,
                      .draw = draw};
}

typedef struct setting {
    int64_t block, samples, least;
} setting;

static void formula_holds_if(fv_context *ctx, const heads *x, bool causal, const setting *set) {
    const int64_t block = set->block, samples = set->samples, least = set->least;
    float *projection = numbers(&(uint64_t){99}, x->d * 5, 1);
    fv_hyper h = hyper_of(x, causal, block, samples, least, projection);
    fv_status status = fv_hyper_attention(ctx, &h, x->q, x->k, x->v, x->out, x->lse);
    CHECK(status == FV_OK, "%s", fv_message(ctx));
    double worst = 0, *out = malloc((size_t)x->d * sizeof *out);
    for (int64_t head = 0; head < x->h_q; head++) {
        double *weight = calloc((size_t)(x->n * x->n), sizeof *weight);
        const float *q = x->q + head * x->n * x->d, *k = x->k + head / (x->h_q / x->h_kv) * x->n * x->d;
        const float *v = x->v + head / (x->h_q / x->h_kv) * x->n * x->d;
        count(&h, q, k, head, 0, 0, x->n, 0, x->n, causal, x->n, weight);
        for (int64_t i = 0; i < x->n; i += 3) {
            double lse = weighted_row(&h, q + i * x->d, k, v, weight + i * x->n, out);
            worst = fmax(worst, fabs(lse - (double)x->lse[head * x->n + i]));
            for (int64_t c = 0; c < x->d; c++) {
                worst = fmax(worst, fabs(out[c] - (double)x->out[(head * x->n + i) * x->d + c]));
            }
        }
        free(weight);
    }
    CHECK(worst < 3e-5, "n %lld, causal %d, block %lld, %lld samples, least %lld: off by %g", (long long)x->n, causal,
          (long long)block, (long long)samples, (long long)least, worst);
    free(out);
    free(projection);
}

static void formula_holds(fv_context *ctx, const void *set, heads *x) {
    formula_holds_if(ctx, x, true, set);
    formula_holds_if(ctx, x, false, set);
}

/* The golden file has the first columns of each row. */
static void golden_holds(fv_context *ctx, const char *name, const heads *x, bool causal) {
    npy_array a = npy_golden(name);
    float *projection = numbers(&(uint64_t){77}, x->d * 4, 1);
    fv_hyper h = hyper_of(x, causal, 16, 16, 32, projection);
    h.projections = 4;
    CHECK(fv_hyper_attention(ctx, &h, x->q, x->k, x->v, x->out, NULL) == FV_OK, "%s", fv_message(ctx));
    bool fits = a.data != NULL && a.rank == 3 && a.shape[0] == x->h_q && a.shape[1] == x->n && a.shape[2] <= x->d;
    CHECK(fits, "%s.npy has another shape", name);
    double worst = 0;
    for (int64_t i = 0; fits && i < x->h_q * x->n * a.shape[2]; i++) {
        float want;
        memcpy(&want, a.data + 4 * i, 4);
        worst = fmax(worst, fabs((double)want - (double)x->out[i / a.shape[2] * x->d + i % a.shape[2]]));
    }
    CHECK(worst < 1e-4, "%s: off by %g", name, worst); /* the code's logarithms and merges are f32's too */
    free(projection);
    free(a.data);
}

static void goldens_hold(fv_context *ctx) {
    heads x = heads_make(31, 2, 2, 256, 16), r = heads_real(2, 1, 256);
    for (int64_t i = 0; i < 2 * 256 * 16; i++) {
        x.q[i] *= 0.5f;
    }
    golden_holds(ctx, "select/hyper-attention/causal", &x, true);
    golden_holds(ctx, "select/hyper-attention/both", &x, false);
    golden_holds(ctx, "select/hyper-attention/real-causal", &r, true);
    golden_holds(ctx, "select/hyper-attention/real-both", &r, false);
    heads_free(&x);
    heads_free(&r);
}

/* Mean distance from exact attention, with numbers of the seed. */
static double error_of(fv_context *ctx, const heads *x, const float *exact, bool causal, int64_t block, int64_t samples) {
    fv_hyper h = hyper_of(x, causal, block, samples, 32, NULL);
    h.draw = NULL;
    h.seed = 4;
    double error = 0;
    CHECK(fv_hyper_attention(ctx, &h, x->q, x->k, x->v, x->out, NULL) == FV_OK, "%s", fv_message(ctx));
    for (int64_t i = 0; i < x->h_q * x->n * x->d; i++) {
        error += fabs((double)x->out[i] - (double)exact[i]) / (double)(x->h_q * x->n * x->d);
    }
    return error;
}

static void errors_hold(fv_context *ctx) {
    heads x = heads_make(12, 4, 2, 1024, 32);
    for (int64_t i = 0; i < 4 * 1024 * 32; i++) {
        x.q[i] *= 0.15f;
    }
    float *exact = malloc(4 * 1024 * 32 * sizeof *exact);
    heads_run(ctx, "", &x);
    memcpy(exact, x.out, 4 * 1024 * 32 * sizeof *exact);
    double few = error_of(ctx, &x, exact, true, 64, 32), more = error_of(ctx, &x, exact, true, 64, 128);
    double wide = error_of(ctx, &x, exact, true, 256, 512);
    CHECK(more < few && wide < more, "mean error %g of 32 samples, %g of 128, %g of 512 and blocks of 256", few, more, wide);
    printf("mean error: %.5f, %.5f, %.5f\n", few, more, wide);
    fv_hyper h = hyper_of(&x, true, 64, 32, 1024, NULL);
    CHECK(fv_hyper_attention(ctx, &h, x.q, x.k, x.v, x.out, NULL) == FV_OK, "%s", fv_message(ctx));
    double worst = 0;
    for (int64_t i = 0; i < 4 * 1024 * 32; i++) {
        worst = fmax(worst, fabs((double)x.out[i] - (double)exact[i]));
    }
    CHECK(worst < 1e-5, "without halves it is off by %g from exact", worst);
    free(exact);
    heads_free(&x);
}

static void report_holds(fv_context *ctx) {
    heads x = heads_make(14, 2, 1, 200, 32);
    float *projection = numbers(&(uint64_t){99}, 32 * 5, 1);
    fv_hyper h = hyper_of(&x, false, 32, 0, 1, projection);
    fv_hyper_report r = {0};
    CHECK(fv_hyper_measure(ctx, &h, 1, x.q, x.k, &r) == FV_OK, "%s", fv_message(ctx));
    double *block = calloc(200 * 200, sizeof *block), *all = calloc(200 * 200, sizeof *all), column[200] = {0};
    double least = INFINITY, most = 0, mass = 0, alpha = 0;
    count(&h, x.q + 200 * 32, x.k, 1, 0, 0, 200, 0, 200, false, 200, block);
    for (int i = 0; i < 200; i++) {
        double sum = 0, rest = 0;
        for (int j = 0; j < 200; j++) {
            double s = 0;
            for (int c = 0; c < 32; c++) {
                s += (double)x.q[(200 + i) * 32 + c] * (double)x.k[j * 32 + c];
            }
            all[i * 200 + j] = exp(s / sqrt(32));
            sum += all[i * 200 + j];
            rest += block[i * 200 + j] > 0 ? 0 : all[i * 200 + j];
        }
        least = fmin(least, rest);
        most = fmax(most, rest);
        mass += (1 - rest / sum) / 200;
        for (int j = 0; j < 200; j++) {
            column[j] += pow(all[i * 200 + j] / sum, 2);
        }
    }
    for (int j = 0; j < 200; j++) {
        alpha = fmax(alpha, 200 * column[j]);
    }
    CHECK(fabs(r.alpha - alpha) < 1e-6 * alpha && fabs(r.kappa - most / least) < 1e-6 * most / least &&
              fabs(r.block_mass - mass) < 1e-9,
          "alpha %g and %g, kappa %g and %g, mass %g and %g", r.alpha, alpha, r.kappa, most / least, r.block_mass, mass);
    CHECK(r.block_mass > 32.0 / 200, "blocks hold %g of the attention, no more than by chance", r.block_mass);
    printf("alpha %.2f, kappa %.1f, mass in blocks %.3f\n", r.alpha, r.kappa, r.block_mass);
    free(block);
    free(all);
    free(projection);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    static const setting set[] = {{32, 20, 40}, {64, 0, 100}, {100, 600, 128}};
    for (int i = 0; i < 3; i++) {
        on_all_heads(ctx, heads_structured, formula_holds, &set[i]);
    }
    goldens_hold(ctx);
    errors_hold(ctx);
    report_holds(ctx);
    float none[8] = {0};
    fv_hyper bad = {
        .h_q = 1, .h_kv = 1, .n_q = 1, .n_kv = 2, .d_k = 2, .d_v = 2, .causal = true, .block = 1, .least = 1, .projections = 1};
    CHECK(fv_hyper_attention(ctx, &bad, none, none, none, none, NULL) == FV_ERR_ARGUMENT, "causal with more keys is taken");
    bad.causal = false;
    bad.projections = 13;
    CHECK(fv_hyper_attention(ctx, &bad, none, none, none, none, NULL) == FV_ERR_ARGUMENT, "13 projections are taken");
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
