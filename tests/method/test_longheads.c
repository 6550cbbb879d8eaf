/* test_longheads.c - each query's chunks against its summaries and ranking in double.
 *
 * The official code is a model's forward pass on a GPU (flash-attn), and ranks in the rotation of a chunk's own positions: there
 * is no golden selection, its formulas are followed here without rotation. */
#include "heads_test.h"
#include "structured_test.h"

/* c of chunk b: what the mean of the chunk's own, unmasked attention finds among its keys. */
static void summary_of(const heads *x, int64_t head, int64_t chunk, int64_t b, double *c) {
    const int64_t d = x->d, kv = head / (x->h_q / x->h_kv);
    const float *q = x->q + (head * x->n + b * chunk) * d, *k = x->k + (kv * x->n + b * chunk) * d,
                *v = x->v + (kv * x->n + b * chunk) * d;
    double *w = malloc((size_t)chunk * sizeof *w), *mean = calloc((size_t)d, sizeof *mean);
    for (int64_t i = 0; i <= chunk; i++) { /* the last pass is the mean's */
        double sum = 0;
        for (int64_t j = 0; j < chunk; j++) {
            double s = 0;
            for (int64_t a = 0; a < d; a++) {
                s += (i < chunk ? (double)q[i * d + a] : mean[a]) * (double)k[j * d + a];
            }
            w[j] = exp(s / sqrt((double)d));
            sum += w[j];
        }
        for (int64_t j = 0; j < chunk; j++) {
            for (int64_t a = 0; a < d; a++) {
                if (i < chunk) {
                    mean[a] += w[j] / sum * (double)v[j * d + a] / (double)chunk;
                } else {
                    c[a] = (j == 0 ? 0 : c[a]) + w[j] / sum * (double)k[j * d + a];
                }
            }
        }
    }
    free(w);
    free(mean);
}

typedef struct setting {
    int64_t chunk, length;
} setting;

static void holds(fv_context *ctx, const void *arg, heads *x) {
    const int64_t chunk = ((const setting *)arg)->chunk, length = ((const setting *)arg)->length;
    char recipe[96];
    snprintf(recipe, sizeof recipe, "prefill=longheads:chunk=%d:length=%d:fallback=0", (int)chunk, (int)length);
    selection s = select_all(ctx, recipe, x, true);
    int64_t chunks = x->n / chunk + 1, count = length / chunk, wrong = 0, unsure = 0, ranked = 0;
    double *c = calloc((size_t)(chunks * x->d), sizeof *c), *score = malloc((size_t)chunks * sizeof *score);
    for (int64_t head = 0; head < x->h_q; head++) {
        for (int64_t b = 0; b < x->n / chunk; b++) {
            summary_of(x, head, chunk, b, c + b * x->d);
        }
        for (int64_t i = 0; i < x->n; i++) {
            int64_t own = i / chunk;
            for (int64_t b = 0; b <= own; b++) {
                score[b] = 0;
                for (int64_t a = 0; a < x->d; a++) {
                    score[b] += (double)x->q[(head * x->n + i) * x->d + a] * c[b * x->d + a];
                }
            }
            for (int64_t b = 0; b <= own; b++) {
                int64_t above = 0;
                bool sure = true, forced = b == 0 || b + 1 >= own || i < length;
                for (int64_t o = 1; !forced && o < own - 1; o++) {
                    above += score[o] > score[b];
                    sure = sure && (o == b || fabs(score[o] - score[b]) > 1e-5 * fmax(1, fabs(score[b])));
                }
                unsure += !sure;
                ranked += !forced;
                bool takes = forced || above < count - 3;
                for (int64_t j = b * chunk; sure && j < (b + 1) * chunk && j <= i; j++) {
                    wrong += s.at[(head * x->n + i) * x->n + j] != takes;
                }
            }
            for (int64_t j = i + 1; j < x->n; j++) {
                wrong += s.at[(head * x->n + i) * x->n + j];
            }
        }
    }
    CHECK(wrong == 0, "%s, n %lld, d %lld: %lld pairs differ", recipe, (long long)x->n, (long long)x->d, (long long)wrong);
    CHECK(unsure * 50 <= ranked, "%s: %lld of %lld chunks are too close to tell", recipe, (long long)unsure, (long long)ranked);
    run_holds(ctx, recipe, x, &s, x->n > 300 ? 37 : 1);
    free(c);
    free(score);
    free(s.at);
}

/* A second prompt over a cache: its rows see the text's first chunk, their own and the one before, and `length` keys at most. */
static void late_rows_hold(fv_context *ctx) {
    heads x = heads_structured(8, 2, 1, 700, 32);
    selection s = select_part(ctx, "prefill=longheads:chunk=64:length=256:fallback=0", &x, 333, 367, 700, true);
    for (int64_t h = 0; h < 2; h++) {
        for (int64_t i = 333; i < 700; i++) {
            int64_t seen = 0, own = i / 64 * 64;
            for (int64_t j = 0; j <= i; j++) {
                seen += s.at[(h * 700 + i) * 700 + j];
            }
            CHECK(seen == 3 * 64 + i % 64 + 1, "row %lld sees %lld keys", (long long)i, (long long)seen);
            CHECK(s.at[(h * 700 + i) * 700] && s.at[(h * 700 + i) * 700 + own] && s.at[(h * 700 + i) * 700 + own - 1],
                  "row %lld misses a chunk that is always seen", (long long)i);
        }
    }
    free(s.at);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    static const setting set[] = {{64, 256}, {128, 500}};
    for (int i = 0; i < 2; i++) {
        on_all_heads(ctx, heads_structured, holds, &set[i]);
    }
    late_rows_hold(ctx);
    heads x = heads_structured(3, 4, 2, 900, 32);
    dense_holds(ctx, "prefill=longheads:chunk=64:length=960:fallback=0", &x);
    double before = 1;
    for (int keys = 192; keys <= 768; keys *= 2) {
        char recipe[80];
        snprintf(recipe, sizeof recipe, "prefill=longheads:chunk=64:length=%d:fallback=0", keys);
        double missing = missing_mass(ctx, recipe, &x);
        CHECK(missing < before, "%d keys miss %g, half of them %g", keys, missing, before);
        printf("missing mass: %d keys %.4f\n", keys, missing);
        before = missing;
    }
    heads_free(&x);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
