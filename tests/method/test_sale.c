/* test_sale.c - SALE against a reference in double, pair by pair; its thresholds of heads against the halving of the official
 * code over the engine's own outputs. The official code is CUDA alone: there are no vectors of it. */
#include "calibrated_test.h"
#include "heads_test.h"
#include "profiled_test.h"

enum { OFF, ON, EITHER };

/* Integers of a centred row, and its scale. */
static double four_bits(const float *x, const double *mean, int64_t d, int *out) {
    double most = 0;
    for (int64_t c = 0; c < d; c++) {
        most = fmax(most, fabs(x[c] - mean[c]));
    }
    for (int64_t c = 0; c < d; c++) {
        out[c] = most > 0 ? (int)nearbyint(7 * (x[c] - mean[c]) / most) : 0;
    }
    return most / 7;
}

static void mean_of(const float *x, int64_t n, int64_t d, double *mean) {
    memset(mean, 0, (size_t)d * sizeof *mean);
    for (int64_t i = 0; i < n * d; i++) {
        mean[i % d] += x[i] / (double)n;
    }
}

/* Of a head: means of what the run has, and its keys as integers (n, d) with a scale each. */
typedef struct rounded {
    double q_mean[64], k_mean[64], *scale;
    int *key;
} rounded;

static rounded round_head(const heads *x, int64_t head, int64_t first) {
    const float *k = x->k + head / (x->h_q / x->h_kv) * x->n * x->d;
    rounded m = {.scale = malloc((size_t)x->n * sizeof(double)), .key = malloc((size_t)(x->n * x->d) * sizeof(int))};
    mean_of(x->q + (head * x->n + first) * x->d, x->n - first, x->d, m.q_mean);
    mean_of(k, x->n, x->d, m.k_mean);
    for (int64_t j = 0; j < x->n; j++) {
        m.scale[j] = four_bits(k + j * x->d, m.k_mean, x->d, m.key + j * x->d);
    }
    return m;
}

/* What the queries from .. to - 1 take of each block of 32 keys. */
static void reference_tile(const heads *x, double threshold, int64_t head, int64_t from, int64_t to, const rounded *m, char *on) {
    const double *q_mean = m->q_mean, *k_mean = m->k_mean;
    int64_t d = x->d, end = from / 64 * 64 + 64 < x->n ? from / 64 * 64 + 64 : x->n, blocks = (end + 31) / 32;
    const float *k = x->k + head / (x->h_q / x->h_kv) * x->n * d;
    int qi[64];
    int64_t segments = (blocks - 1) / 4 - 1; /* whole ones of 128 keys, between the first block and at least 128 local keys */
    for (int64_t b = 0; b < (x->n + 31) / 32; b++) {
        on[b] = b < blocks && (segments <= 0 || b == 0 || b > 4 * segments) ? ON : OFF;
    }
    for (int64_t i = from; i < to && segments > 0; i++) {
        const float *q = x->q + (head * x->n + i) * d;
        double top = -INFINITY, sum = 0, sq = four_bits(q, q_mean, d, qi);
        for (int pass = 0; pass < 2; pass++) {
            for (int64_t j = 0; j <= i; j++) {
                double s = 0;
                for (int64_t c = 0; c < d && (j < 32 || j >= 32 * (4 * segments + 1)); c++) {
                    s += q[c] * (k[j * d + c] - k_mean[c]) / sqrt((double)d);
                }
                if (j < 32 || j >= 32 * (4 * segments + 1)) {
                    sum += pass ? exp(s - top) : 0;
                    top = pass ? top : fmax(top, s);
                }
            }
        }
        double limit = top + log(sum * threshold);
        for (int64_t j = 32; j < 32 * (4 * segments + 1); j++) {
            const int *ki = m->key + j * d;
            double sk = m->scale[j], estimate = 0;
            for (int64_t c = 0; c < d; c++) {
                estimate += (qi[c] * sq * ki[c] * sk + q_mean[c] * (k[j * d + c] - k_mean[c])) / sqrt((double)d);
            }
            bool near = fabs(estimate - limit) < 1e-5 * fmax(1, fabs(limit));
            on[j / 32] = near && on[j / 32] == OFF ? EITHER : !near && estimate > limit ? ON : on[j / 32];
        }
    }
}

static int told_apart; /* runs that take some blocks, and not all */

static void holds_from(fv_context *ctx, double threshold, heads *x, int64_t first) {
    char recipe[100], *on = malloc((size_t)(x->n + 31) / 32);
    snprintf(recipe, sizeof recipe, "prefill=sale:threshold=%g:dense=0:fallback=0", threshold);
    selection s = select_part(ctx, recipe, x, first, x->n - first, x->n, true);
    int64_t wrong = 0, ties = 0, pairs = 0, chosen = 0;
    for (int64_t head = 0; head < x->h_q; head++) {
        rounded m = round_head(x, head, first);
        for (int64_t from = first, to; from < x->n; from = to) {
            to = from / 64 * 64 + 64 < x->n ? from / 64 * 64 + 64 : x->n;
            reference_tile(x, threshold, head, from, to, &m, on);
            for (int64_t j = 0; j < x->n; j++) {
                ties += on[j / 32] == EITHER;
                for (int64_t i = from; i < to && on[j / 32] != EITHER; i++) {
                    bool want = on[j / 32] == ON && j <= i, got = s.at[(head * x->n + i) * x->n + j];
                    wrong += want != got;
                    chosen += want;
                    pairs += j <= i;
                }
            }
        }
        free(m.scale);
        free(m.key);
    }
    CHECK(wrong == 0 && ties <= 64, "%s, n %lld from %lld: %lld pairs differ, %lld ties", recipe, (long long)x->n,
          (long long)first, (long long)wrong, (long long)ties);
    told_apart += chosen < pairs && chosen > pairs / 5;
    if (first == 0) {
        run_holds(ctx, recipe, x, &s, x->n > 300 ? 37 : 1);
    }
    free(s.at);
    free(on);
}

static void holds(fv_context *ctx, const void *arg, heads *x) {
    const double threshold = *(const double *)arg;
    holds_from(ctx, threshold, x, 0);
    if (x->n > 150) {
        holds_from(ctx, threshold, x, 100); /* the second of two prompts */
    }
}

/* Keys share a mean and some stand out; queries are small, so that a block of 2,048 pairs can be below a threshold. */
static heads structured(uint64_t seed, int64_t h_q, int64_t h_kv, int64_t n, int64_t d) {
    heads x = heads_make(seed, h_q, h_kv, n, d);
    for (int64_t i = 0; i < h_kv * n * d; i++) {
        int64_t j = i / d % n;
        x.k[i] = x.k[i] * (j % 97 == 13 ? 1.0f : 0.2f) + (float)(i % d % 3);
    }
    for (int64_t i = 0; i < h_q * n * d; i++) {
        x.q[i] *= 0.25f;
    }
    return x;
}

/* ---- thresholds of heads -------------------------------------------------------------------------------------------- */

enum { HALVINGS = 8 }; /* 0.008 ... 0.000125, and 0 */

static double halved(int k) { return k < HALVINGS - 1 ? 0.008 / (1 << k) : 0; }

/* Queries agree with the first keys; later keys are the louder, and the nearer to what counts, the later they stand. */
static heads graded(uint64_t seed, int64_t h_q, int64_t h_kv, int64_t n, int64_t d) {
    heads x = heads_make(seed, h_q, h_kv, n, d);
    for (int64_t i = 0; i < h_q * n * d; i++) {
        x.q[i] = x.q[i] * 0.5f + 1.5f;
    }
    for (int64_t i = 0; i < h_kv * n * d; i++) {
        int64_t j = i / d % n;
        x.k[i] = j < 32 ? x.k[i] * 0.1f + 0.7f : x.k[i] * (0.2f + 0.7f * (float)(j / 32 * 7 % 22) / 22);
    }
    return x;
}

/* What each threshold loses of a head, a row. */
static void losses(fv_context *ctx, const heads *x, int64_t head, double loss[HALVINGS]) {
    heads one = one_head(x, head);
    double *dense = dense_outputs(&one);
    for (int k = 0; k < HALVINGS; k++) {
        char recipe[100];
        snprintf(recipe, sizeof recipe, "prefill=sale:threshold=%.17g:dense=0:fallback=0", halved(k));
        lost l = loses(ctx, recipe, &one, dense);
        loss[k] = l.error / (double)l.rows;
    }
    free(dense);
    one_head_free(&one);
}

/* The halving of the official code, over known losses. */
static int halve(const double loss[HALVINGS], double error, int from) {
    while (from < HALVINGS - 1 && loss[from] >= error) {
        from++;
    }
    return from;
}

static void thresholds_hold(fv_context *ctx) {
    heads x[2] = {graded(5, 4, 2, 700, 32), graded(6, 4, 2, 700, 32)};
    double loss[2][4][HALVINGS], asked[16];
    bool found[HALVINGS] = {false};
    int several = 0, asks = 0;
    for (int i = 0; i < 8; i++) {
        losses(ctx, &x[i / 4], i % 4, loss[i / 4][i % 4]);
    }
    for (int k = 0; k + 1 < HALVINGS; k++) { /* between what neighbours lose */
        const double a = loss[0][0][k], b = loss[0][0][k + 1];
        if (a > b + 1e-3) {
            asked[asks++] = (a + b) / 2;
        }
    }
    asked[asks++] = 10; /* never lost */
    asked[asks++] = 0;  /* always */
    for (int i = 0; i < asks; i++) {
        char recipe[100];
        snprintf(recipe, sizeof recipe, "prefill=sale:error=%.17g:dense=0", asked[i]);
        for (int prompts = 1; prompts <= 2; prompts++) {
            fv_profile *p = calibrate(ctx, recipe, x, prompts);
            for (int64_t head = 0; head < 4; head++) {
                int64_t n = 0;
                int want = halve(loss[0][head], asked[i], 0);
                want = prompts == 2 ? halve(loss[1][head], asked[i], want) : want;
                const double *got = fv_profile_get(p, 0, head, &n);
                CHECK(n == 1 && got[0] == halved(want), "%s, head %lld of %d prompts: %g, not %g", recipe, (long long)head,
                      prompts, n == 1 ? got[0] : -1, halved(want));
                found[want] = true;
            }
            fv_profile_destroy(p);
        }
    }
    for (int k = 0; k < HALVINGS; k++) {
        several += found[k];
    }
    CHECK(several >= 4 && found[0] && found[HALVINGS - 1], "only %d thresholds are ever found", several);
    heads_free(&x[0]);
    heads_free(&x[1]);
    CHECK(strstr(calibration_refused(ctx, "prefill=sale", 1024), "--tokens") != NULL, "1,024 tokens lose nothing, and are taken");
}

/* A profile's threshold is that of its head: selections are those of the parameter. */
static void profile_holds(fv_context *ctx) {
    heads x = structured(9, 4, 2, 900, 32);
    static const double threshold[] = {0.004, 0.03, 0, 0.1};
    static const double *const at[] = {&threshold[0], &threshold[1], &threshold[2], &threshold[3]};
    static const int64_t n[] = {1, 1, 1, 1};
    const profiled numbers = {"sale", at, n};
    selection got = select_profiled(ctx, "prefill=sale@file:dense=0:fallback=0", &numbers, &x);
    const int64_t pairs = x.n * x.n;
    for (int64_t head = 0; head < 4; head++) {
        char recipe[100];
        snprintf(recipe, sizeof recipe, "prefill=sale:threshold=%g:dense=0:fallback=0", threshold[head]);
        selection want = select_all(ctx, recipe, &x, true);
        CHECK(memcmp(got.at + head * pairs, want.at + head * pairs, (size_t)pairs) == 0, "%s is not what a profile's head does",
              recipe);
        free(want.at);
    }
    free(got.at);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    static const double threshold[] = {0.004, 0.02, 0.03, 0.1}, large = 20;
    for (int k = 0; k < 4; k++) {
        on_all_heads(ctx, structured, holds, &threshold[k]);
    }
    CHECK(told_apart >= 24, "%d runs told blocks of structured and of a model's heads apart", told_apart);
    on_all_heads(ctx, structured, holds, &large); /* for random heads, whose keys stand out more */
    CHECK(told_apart >= 32, "%d runs told blocks of all kinds of heads apart", told_apart);
    heads x = structured(9, 4, 2, 900, 32);
    dense_holds(ctx, "prefill=sale:threshold=0:fallback=0", &x);
    dense_holds(ctx, "prefill=sale:dense=900:fallback=0", &x);
    double last = -1;
    for (int k = 0; k < 4; k++) {
        char recipe[100];
        snprintf(recipe, sizeof recipe, "prefill=sale:threshold=%g:dense=0:fallback=0", threshold[k]);
        double missing = missing_mass(ctx, recipe, &x);
        CHECK(missing >= last - 1e-7, "%s misses %g, a smaller threshold %g", recipe, missing, last);
        last = missing;
    }
    CHECK(last > 0, "nothing is ever missing");
    printf("%d runs tell blocks apart\n", told_apart);
    heads_free(&x);
    thresholds_hold(ctx);
    profile_holds(ctx);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
