/* test_hyper_index.c - HyperAttention as a recipe: the pairs of its index, and their weights, against those of hyper_test.h with
 * the seed's numbers made here; the official code's outputs; and dense attention where nothing is left out. */
#include "heads_test.h"
#include "hyper_test.h"
#include "structured_test.h"

enum { BITS = 5 };

typedef struct form {
    int64_t block, samples, least, seed, chunk;
} form;

/* ---- the seed's numbers ---- */

static uint64_t scrambled(uint64_t z) {
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int64_t draw(void *user, int64_t head, int64_t first, int64_t keys, int64_t sample) {
    const uint64_t seed = *(const uint64_t *)user, of_head = scrambled(scrambled(seed + 1) + (uint64_t)head);
    const uint64_t x = scrambled(scrambled(of_head + (uint64_t)first) + (uint64_t)sample + ((uint64_t)keys << 32));
    return (int64_t)((x >> 32) * (uint64_t)keys >> 32);
}

static float *normals(uint64_t seed, int64_t n) {
    float *out = malloc((size_t)n * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        const uint64_t a = scrambled(seed ^ scrambled((uint64_t)i)), b = scrambled(a);
        const double u = ((double)(a >> 11) + 1) / (9007199254740992.0 + 1), w = (double)(b >> 11) / 9007199254740992.0;
        out[i] = (float)(sqrt(-2 * log(u)) * cos(2 * acos(-1) * w));
    }
    return out;
}

static void name_of(const form *f, char text[200]) {
    snprintf(text, 200,
             "prefill=hyper-attention:block=%lld:samples=%lld:least=%lld:projections=5:seed=%lld:chunk=%lld:fallback=0",
             (long long)f->block, (long long)f->samples, (long long)f->least, (long long)f->seed, (long long)f->chunk);
}

/* ---- pairs and weights ---- */

/* Rows from .. n - 1 as a prompt over the keys before them. */
static void form_holds(fv_context *ctx, const form *f, heads *x, int64_t from, bool causal) {
    char recipe[200];
    name_of(f, recipe);
    uint64_t seed = (uint64_t)f->seed;
    float *projection = normals(seed, x->d * BITS);
    const fv_hyper h = {.n_q = x->n,
                        .n_kv = x->n,
                        .d_k = x->d,
                        .d_v = x->d,
                        .block = f->block,
                        .samples = f->samples,
                        .least = f->least,
                        .projections = BITS,
                        .projection = projection,
                        .draw = draw,
                        .user = &seed};
    selection s = select_part(ctx, recipe, x, from, x->n - from, x->n, causal);
    prepared p = prepare(ctx, recipe, x, x->n - from, causal);
    fv_run run = part_run(x, from, x->n - from, x->n);
    fv_run_stats stats = {0};
    float *lse = malloc((size_t)(x->h_q * x->n) * sizeof *lse);
    run.stats = &stats;
    run.lse = lse;
    CHECK(fv_plan_run(p.plan, &run, p.workspace, p.bytes) == FV_OK, "%s", fv_message(ctx));
    prepared_free(&p);
    double worst = 0, *out = malloc((size_t)x->d * sizeof *out);
    int64_t differ = 0, pairs = 0;
    for (int64_t head = 0; head < x->h_q; head++) {
        double *weight = calloc((size_t)(x->n * x->n), sizeof *weight);
        const float *q = x->q + head * x->n * x->d, *k = x->k + head / (x->h_q / x->h_kv) * x->n * x->d;
        const float *v = x->v + head / (x->h_q / x->h_kv) * x->n * x->d;
        count(&h, q, k, head, from, 0, x->n, 0, x->n, causal, causal ? x->n : x->n - from, weight);
        for (int64_t at = from * x->n; at < x->n * x->n; at++) {
            differ += (weight[at] > 0) != s.at[head * x->n * x->n + at];
            pairs += weight[at] > 0;
        }
        const int64_t step = x->n > 300 ? 17 : 3;
        for (int64_t i = from; i < x->n; i += step) {
            const double want = weighted_row(&h, q + i * x->d, k, v, weight + i * x->n, out);
            worst = fmax(worst, fabs(want - (double)lse[head * (x->n - from) + i - from]));
            for (int64_t c = 0; c < x->d; c++) {
                worst = fmax(worst, fabs(out[c] - (double)x->out[(head * x->n + i) * x->d + c]));
            }
        }
        free(weight);
    }
    CHECK(differ == 0, "%s, n %lld from %lld, causal %d: %lld pairs differ", recipe, (long long)x->n, (long long)from, causal,
          (long long)differ);
    CHECK(worst < 3e-5, "%s, n %lld from %lld, causal %d: off by %g", recipe, (long long)x->n, (long long)from, causal, worst);
    CHECK((int64_t)stats.exact_pairs == pairs, "%s: weighed %llu pairs of %lld", recipe, (unsigned long long)stats.exact_pairs,
          (long long)pairs);
    free(lse);
    free(out);
    free(projection);
    free(s.at);
}

static void forms_hold(fv_context *ctx, const void *f, heads *x) {
    form_holds(ctx, f, x, 0, true);
    form_holds(ctx, f, x, 0, false);
    if (x->n < 1000) { /* a second prompt; asking an index for each pair of long ones takes a while */
        form_holds(ctx, f, x, x->n / 3, true);
        form_holds(ctx, f, x, x->n / 3, false);
    }
}

static void golden_holds(fv_context *ctx, const char *name, bool causal) {
    npy_array a = npy_golden(name);
    heads x = heads_make(31, 2, 2, 256, 16);
    for (int64_t i = 0; i < 2 * 256 * 16; i++) {
        x.q[i] *= 0.5f;
    }
    heads_run_if(ctx, "prefill=hyper-attention:block=16:samples=16:least=32:projections=4:seed=9:chunk=64:fallback=0", &x,
                 causal);
    double worst = a.data == NULL ? INFINITY : 0;
    for (int64_t i = 0; a.data != NULL && i < 2 * 256 * 16; i++) {
        float want;
        memcpy(&want, a.data + 4 * i, sizeof want);
        worst = fmax(worst, fabs((double)want - (double)x.out[i]));
    }
    CHECK(worst < 1e-4, "golden %s: off by %g", name, worst); /* the code's logarithms and merges are f32's too */
    free(a.data);
    heads_free(&x);
}

/* ---- what else must hold ---- */

/* Chunks of the order are for speed: the same pairs, and nearly the same numbers. Threads change no bit. */
static void executions_agree(fv_context *ctx, fv_context *alone) {
    heads x = heads_structured(8, 4, 2, 1500, 32);
    const size_t bytes = (size_t)(x.h_q * x.n * x.d) * sizeof(float);
    char recipe[200], other[200];
    name_of(&(form){32, 48, 200, 3, 64}, recipe);
    name_of(&(form){32, 48, 200, 3, 4096}, other);
    float *first = malloc(bytes);
    fv_run_stats a = heads_run(ctx, recipe, &x);
    memcpy(first, x.out, bytes);
    heads_run(alone, recipe, &x);
    CHECK(memcmp(first, x.out, bytes) == 0, "other bits on one thread");
    fv_run_stats b = heads_run(ctx, other, &x);
    double worst = 0;
    for (int64_t i = 0; i < x.h_q * x.n * x.d; i++) {
        worst = fmax(worst, fabs((double)first[i] - (double)x.out[i]));
    }
    CHECK(worst < 1e-5, "chunks of 64 and of 4096 rows differ by %g", worst);
    CHECK(a.exact_pairs == b.exact_pairs, "chunks weigh other pairs");
    free(first);
    heads_free(&x);
}

/* bf16 rows and f32 ones of the same values hash alike: close outputs. And more samples are closer to exact attention. */
static void errors_hold(fv_context *ctx) {
    heads x = heads_make(12, 4, 2, 1024, 32);
    const int64_t n = x.h_q * x.n * x.d;
    for (int64_t i = 0; i < n; i++) {
        x.q[i] *= 0.15f;
    }
    heads_run(ctx, "", &x);
    double error[2] = {0};
    float *exact = malloc((size_t)n * sizeof *exact);
    memcpy(exact, x.out, (size_t)n * sizeof *exact);
    for (int k = 0; k < 2; k++) {
        char recipe[200];
        name_of(&(form){64, k == 0 ? 32 : 128, 64, 4, 256}, recipe);
        heads_run(ctx, recipe, &x);
        for (int64_t i = 0; i < n; i++) {
            error[k] += fabs((double)x.out[i] - (double)exact[i]) / (double)n;
        }
    }
    CHECK(error[1] < 0.7 * error[0], "mean error %g of 32 samples, %g of 128", error[0], error[1]);
    printf("mean error: %.5f, %.5f\n", error[0], error[1]);
    free(exact);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx, *alone;
    if (fv_context_create(&(fv_context_options){.threads = 3}, &ctx) != FV_OK ||
        fv_context_create(&(fv_context_options){.threads = 1}, &alone) != FV_OK) {
        return 1;
    }
    static const form forms[] = {{32, 20, 40, 1, 64}, {64, 0, 100, 2, 100}, {100, 600, 128, 3, 4096}};
    for (int k = 0; k < 3; k++) {
        on_all_heads(ctx, heads_structured, forms_hold, &forms[k]);
    }
    golden_holds(ctx, "select/hyper-attention/recipe-causal", true);
    golden_holds(ctx, "select/hyper-attention/recipe-both", false);
    executions_agree(ctx, alone);
    errors_hold(ctx);
    heads x = heads_make(3, 4, 2, 701, 32);
    dense_holds(ctx, "prefill=hyper-attention:fallback=0", &x);
    dense_holds_if(ctx, "prefill=hyper-attention:fallback=0", &x, false);
    heads_free(&x);
    fv_context_destroy(alone);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
