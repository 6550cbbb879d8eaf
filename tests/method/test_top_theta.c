/* test_top_theta.c - Top-Theta: outputs and log-sum-exp against a reference in double written from the paper, and against what
 * the official code gives for the same thresholds (see tests/golden/select/README); its calibration; each row's top-k beside it.
 */
#include "heads_test.h"
#include "profiled_test.h"
#include "select/theta_calibrate.h"

typedef struct setting {
    double theta, scale, missing;
    int k, sdc, vmc;
} setting;

static void recipe_of(const setting *s, char *out, size_t size) {
    snprintf(out, size, "prefill=top-theta:theta=%.17g:k=%d:sdc=%d:scale=%g:vmc=%d:missing=%g:fallback=0", s->theta, s->k, s->sdc,
             s->scale, s->vmc, s->missing);
}

/* Row i of a head: its output and the logarithm of its denominator; false if a score is too near the threshold to tell. */
static bool reference(const heads *x, const setting *s, int64_t head, int64_t i, double *out, double *lse, int64_t *kept) {
    int64_t kv = head / (x->h_q / x->h_kv), n = i + 1, left = 0;
    const float *v = x->v + kv * x->n * x->d;
    double *score = malloc((size_t)n * sizeof *score), top = -INFINITY, sum = 0, lost = 0;
    bool clear = true;
    for (int64_t j = 0; j < n; j++) {
        score[j] = 0;
        for (int64_t c = 0; c < x->d; c++) {
            score[j] += (double)x->q[(head * x->n + i) * x->d + c] * x->k[(kv * x->n + j) * x->d + c] / sqrt((double)x->d);
        }
        clear = clear && (n <= s->k || fabs(score[j] - s->theta) > 1e-5);
        top = fmax(top, score[j]);
    }
    memset(out, 0, (size_t)x->d * sizeof *out);
    for (int64_t j = 0; j < n; j++) {
        double w = exp(score[j] - top);
        if (n > s->k && !(score[j] > s->theta)) {
            lost += w;
            left++;
            continue;
        }
        sum += w;
        for (int64_t c = 0; c < x->d; c++) {
            out[c] += w * v[j * x->d + c];
        }
    }
    double more = s->sdc == 1 ? lost : s->sdc == 2 ? (double)left * exp(s->theta - top) : s->sdc == 3 ? s->missing : 0;
    more = n > s->k ? more * s->scale : 0;
    for (int64_t c = 0; c < x->d; c++) {
        double mean = 0;
        for (int64_t j = 0; j < n; j++) {
            mean += v[j * x->d + c] / (double)n;
        }
        out[c] = sum + more > 0 ? out[c] / (sum + more) : 0;
        if (s->vmc && n > s->k) { /* 1 - sum of weights */
            out[c] += sum + more > 0 ? more / (sum + more) * mean : mean;
        }
    }
    *lse = top + log(sum + more);
    *kept += n - left;
    free(score);
    return clear;
}

static void holds(fv_context *ctx, const void *arg, heads *x) {
    const setting *s = arg;
    char recipe[240];
    recipe_of(s, recipe, sizeof recipe);
    fv_run_stats stats = heads_run(ctx, recipe, x);
    double worst = 0, *out = malloc((size_t)x->d * sizeof *out), lse;
    int64_t kept = 0, unclear = 0;
    for (int64_t r = 0; r < x->h_q * x->n; r++) {
        if (!reference(x, s, r / x->n, r % x->n, out, &lse, &kept)) {
            unclear++;
            continue;
        }
        for (int64_t c = 0; c < x->d; c++) {
            worst = fmax(worst, fabs(out[c] - x->out[r * x->d + c]));
        }
        if (isfinite(lse)) {
            worst = fmax(worst, fabs(lse - x->lse[r]));
        } else {
            CHECK(s->vmc || x->lse[r] == -INFINITY, "%s: row %lld keeps nothing, but has a log-sum-exp", recipe,
                  (long long)(r % x->n));
        }
    }
    CHECK(worst < 3e-5, "%s, n %lld: off by %g", recipe, (long long)x->n, worst);
    CHECK(unclear * 20 < x->h_q * x->n + 20, "%s: %lld rows cannot be told", recipe, (long long)unclear);
    CHECK(unclear > 0 || (int64_t)stats.exact_pairs == kept, "%s, n %lld: weighed %llu pairs, not %lld", recipe, (long long)x->n,
          (unsigned long long)stats.exact_pairs, (long long)kept);
    free(out);
    selection all = {x->h_q, x->n, NULL, 0};
    all = select_all(ctx, recipe, x, true);
    chunks_hold(ctx, recipe, x, &all, 64);
    free(all.at);
}

/* ---- the official code ---------------------------------------------------------------------------------------------- */

static void run_profiled(fv_context *ctx, const setting *s, heads *x, const profiled *numbers) {
    char text[240];
    recipe_of(s, text, sizeof text);
    prepared p = prepare_profiled(ctx, text, numbers, x);
    fv_run run = part_run(x, 0, x->n, x->n);
    CHECK(fv_plan_run(p.plan, &run, p.workspace, p.bytes) == FV_OK, "%s: %s", text, fv_message(ctx));
    prepared_free(&p);
}

typedef struct kept {
    const char *name;
    setting s;
    bool last_only; /* exp-threshold: that code counts keys after the query as missing */
} kept;

static void golden_holds(fv_context *ctx, const kept *g, heads *x, const profiled *numbers) {
    char name[48];
    snprintf(name, sizeof name, "select/top-theta/%s", g->name);
    npy_array want = npy_golden(name);
    bool fits = want.rank == 3 && want.shape[0] == x->h_q && want.shape[1] == x->n && want.shape[2] == x->d;
    CHECK(fits, "%s.npy: another shape", name);
    run_profiled(ctx, &g->s, x, numbers);
    double worst = 0;
    for (int64_t j = 0; j < x->h_q * x->n * x->d && fits; j++) {
        float value;
        memcpy(&value, want.data + j * 4, 4);
        bool told = !g->last_only || j / x->d % x->n == x->n - 1;
        worst = told ? fmax(worst, fabs((double)value - x->out[j])) : worst;
    }
    CHECK(worst < 2e-5, "%s: off by %g", name, worst);
    free(want.data);
}

static void goldens_hold(fv_context *ctx) {
    static const kept random[] = {{"plain", {0, 1, 0, 20, 0, 0}, false},
                                  {"exact_vmc", {0, 1, 0, 20, 1, 1}, false},
                                  {"exact_half", {0, 0.5, 0, 20, 1, 0}, false},
                                  {"threshold", {0, 0.25, 0, 20, 2, 1}, true},
                                  {"offline_vmc", {0, 2, 0, 20, 3, 1}, false}},
                      real[] = {{"real-plain", {0, 1, 0, 20, 0, 0}, false}, {"real-exact_vmc", {0, 1, 0, 20, 1, 1}, false}};
    static const double number[2][9] = {{40, 0.5, 0.3, 60, 1, 0.7, 95, 2, 1.1}, {30, -1, 0.2, 70, 1.5, 0.9, 80, 2.5, 1.7}},
                        of_real[2][9] = {{40, 8, 0.3, 60, 7.5, 0.7, 95, 7.25, 1.1}, {30, 6.5, 0.2, 70, 7, 0.9, 80, 5.75, 1.7}};
    static const int64_t nine[] = {9, 9};
    const profiled numbers = {"top-theta", (const double *const[]){number[0], number[1]}, nine},
                   numbers_of_real = {"top-theta", (const double *const[]){of_real[0], of_real[1]}, nine};
    heads x = heads_make(41, 2, 1, 100, 32), r = heads_real(2, 1, 120);
    for (int i = 0; i < 5; i++) {
        golden_holds(ctx, &random[i], &x, &numbers);
    }
    for (int i = 0; i < 2; i++) {
        golden_holds(ctx, &real[i], &r, &numbers_of_real);
    }
    heads_free(&x);
    heads_free(&r);
}

/* ---- calibration ---------------------------------------------------------------------------------------------------- */

static void calibration_holds(void) {
    uint64_t seed = 4;
    float *s = numbers(&seed, 300, 3), copy[300];
    for (int k = 1; k < 300; k += 37) {
        memcpy(copy, s, sizeof copy);
        fvi_theta_sample sample = fvi_theta_of_row(copy, 300, k);
        int above = 0;
        double missing = 0, top = -INFINITY;
        for (int j = 0; j < 300; j++) {
            above += s[j] > sample.theta;
            top = fmax(top, s[j]);
        }
        for (int j = 0; j < 300; j++) {
            missing += s[j] > sample.theta ? 0 : exp(s[j] - top);
        }
        CHECK(sample.length == 300 && above == k, "a threshold for %d keeps %d", k, above);
        CHECK(fabs(missing - sample.missing) < 1e-6, "missing %g, not %g", sample.missing, missing);
    }
    free(s);
    fvi_theta_sample sample[] = {{90, 3, 1}, {50, 1, 2}, {90, 5, 4}, {50, 4, 3}, {90, 1, 1}};
    double number[15];
    CHECK(fvi_theta_calibrate(sample, 5, 0.5, number) == 6, "two lengths are six numbers");
    CHECK(number[0] == 50 && number[1] == 2.5 + 0.5 * 1.5 && number[2] == 2.5, "of 50: %g %g", number[1], number[2]);
    CHECK(number[3] == 90 && fabs(number[4] - (3 + 0.5 * sqrt(8.0 / 3))) < 1e-12 && number[5] == 2, "of 90: %g %g", number[4],
          number[5]);
}

/* A threshold that no score of late rows passes: V is not read. */
static void values_stay_unread(fv_context *ctx) {
    heads x = heads_make(5, 1, 1, 1024, 32);
    fv_run_stats stats = heads_run(ctx, "prefill=top-theta:theta=1e6:k=64:fallback=0", &x);
    CHECK(stats.v_rows == 64, "rows of V read: %llu, not those of the first block", (unsigned long long)stats.v_rows);
    for (int64_t i = 64 * 32; i < 1024 * 32; i++) {
        CHECK(x.out[i] == 0, "row %lld keeps nothing, but is not zero", (long long)i / 32);
    }
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    static const setting settings[] = {{1, 1, 0, 1, 0, 0},  {2, 1, 0, 40, 1, 0},   {2, 0.5, 0, 40, 1, 1}, {2, 0.25, 0, 100, 2, 1},
                                       {3, 1, 0, 64, 2, 0}, {2, 1, 1.5, 40, 3, 1}, {40, 1, 0, 10, 1, 1},  {40, 1, 0, 10, 0, 1}};
    static const int64_t length[] = {1, 63, 65, 200, 700};
    for (int i = 0; i < 5; i++) {
        for (int k = 0; k < 8; k++) {
            heads x = heads_make((uint64_t)(i + 1), 4, k % 2 ? 4 : 2, length[i], k % 2 ? 64 : 32);
            holds(ctx, &settings[k], &x);
            heads_free(&x);
        }
    }
    static const setting real[] = {{7, 1, 0, 64, 0, 0}, {6, 0.5, 0, 100, 1, 1}, {5, 0.25, 0, 20, 2, 1}, {8, 1, 1.5, 40, 3, 0}};
    for (int k = 0; k < 4; k++) {
        on_real_heads(ctx, holds, &real[k]);
    }
    heads x = heads_make(9, 4, 2, 500, 32);
    dense_holds(ctx, "prefill=top-theta:k=500:fallback=0", &x);
    dense_holds(ctx, "prefill=top-theta:k=1:theta=-1e30:fallback=0", &x);
    double few = missing_mass(ctx, "prefill=top-theta:k=1:theta=6:fallback=0", &x);
    double more = missing_mass(ctx, "prefill=top-theta:k=1:theta=3:fallback=0", &x);
    double most = missing_mass(ctx, "prefill=top-theta:k=1:theta=0:fallback=0", &x);
    CHECK(few > more && more > most && most > 0, "missing mass %g, %g, %g of thresholds 6, 3, 0", few, more, most);
    heads_free(&x);
    goldens_hold(ctx);
    calibration_holds();
    values_stay_unread(ctx);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
