/* test_spargeattn.c - SpargeAttn: its blocks against a reference in double that takes cosines pair by pair, and against the map
 * of the official code (its function get_block_map_meansim, see tests/golden/select/README); its second stage against a walk over
 * scores, row by row. */
#include "heads_test.h"
#include "index_test.h"

typedef struct setting {
    double sim, cdf, topk;
    int sink;
} setting;

static void recipe_of(const setting *s, double pv, char *out, size_t size) {
    snprintf(out, size, "prefill=spargeattn:sim=%.17g:cdf=%.17g:topk=%.17g:sink=%d:pv=%g:fallback=0", s->sim, s->cdf, s->topk,
             s->sink, pv);
}

/* Rows of a block come near a vector of its own, but in every fifth block, which is not alike. */
static void gather_blocks(float *x, int64_t h, int64_t n, int64_t d, int64_t block, uint64_t *seed) {
    int64_t blocks = (n + block - 1) / block;
    float *base = numbers(seed, h * blocks * d, 2);
    for (int64_t i = 0; i < h * n; i++) {
        int64_t b = i % n / block;
        for (int64_t c = 0; c < d && b % 5 != 3; c++) {
            x[i * d + c] = x[i * d + c] * 0.25f + base[(i / n * blocks + b) * d + c];
        }
    }
    free(base);
}

static heads structured(uint64_t seed, int64_t h_q, int64_t h_kv, int64_t n, int64_t d) {
    heads x = heads_make(seed, h_q, h_kv, n, d);
    gather_blocks(x.q, h_q, n, d, 128, &seed);
    gather_blocks(x.k, h_kv, n, d, 64, &seed);
    return x;
}

/* ---- the reference ------------------------------------------------------------------------------------------------- */

/* Means of rows from..to-1 less `centre`, and the mean of all their cosines. */
static double pool(const float *x, int64_t from, int64_t to, int64_t d, const double *centre, double *mean) {
    double cosines = 0;
    for (int64_t c = 0; c < d; c++) {
        mean[c] = 0;
        for (int64_t i = from; i < to; i++) {
            mean[c] += (x[i * d + c] - centre[c]) / (double)(to - from);
        }
    }
    for (int64_t i = from; i < to; i++) {
        for (int64_t j = from; j < to; j++) {
            double dot = 0, a = 0, b = 0;
            for (int64_t c = 0; c < d; c++) {
                double u = x[i * d + c] - centre[c], v = x[j * d + c] - centre[c];
                dot += u * v;
                a += u * u;
                b += v * v;
            }
            cosines += dot / sqrt(a * b);
        }
    }
    return cosines / (double)((to - from) * (to - from));
}

enum { OFF, ON, EITHER };

/* Key blocks of a head, all its keys together: means (blocks, d) and how alike they are. */
typedef struct pooled {
    int64_t blocks;
    double *mean, *alike;
} pooled;

static pooled pool_keys(const heads *x, int64_t head) {
    int64_t d = x->d, blocks = (x->n + 63) / 64;
    const float *k = x->k + head / (x->h_q / x->h_kv) * x->n * d;
    double *centre = calloc((size_t)d, sizeof *centre);
    pooled p = {blocks, malloc((size_t)(blocks * d) * sizeof(double)), malloc((size_t)blocks * sizeof(double))};
    for (int64_t i = 0; i < x->n * d; i++) {
        centre[i % d] += k[i] / (double)x->n;
    }
    for (int64_t b = 0; b < blocks; b++) {
        p.alike[b] = pool(k, b * 64, b * 64 + 64 < x->n ? b * 64 + 64 : x->n, d, centre, p.mean + b * d);
    }
    free(centre);
    return p;
}

/* What the queries from..to-1 of block t (of 128 positions) take of each key block: OFF, ON, or EITHER at a tie. */
static void reference_tile(const heads *x, const setting *s, int64_t head, const pooled *keys, int64_t from, int64_t to,
                           int64_t t, bool causal, char *on) {
    int64_t d = x->d, blocks = keys->blocks;
    double *zero = calloc((size_t)d, sizeof *zero), *query = malloc((size_t)d * sizeof *query);
    double *p = malloc((size_t)blocks * sizeof *p), top = -INFINITY, sum = 0;
    double alike = pool(x->q + head * x->n * d, from, to, d, zero, query);
    for (int64_t b = 0; b < blocks; b++) {
        on[b] = fabs(keys->alike[b] - s->sim) < 1e-5 ? EITHER : keys->alike[b] > s->sim ? OFF : ON;
        p[b] = 0;
        for (int64_t c = 0; c < d; c++) {
            p[b] += query[c] * keys->mean[b * d + c] / sqrt((double)d);
        }
        p[b] = on[b] != OFF || (causal && b >= (t + 1) * 2) ? -INFINITY : p[b];
        top = fmax(top, p[b]);
    }
    for (int64_t b = 0; b < blocks && top > -INFINITY; b++) {
        sum += p[b] = exp(p[b] - top);
    }
    double mass = 0;
    int64_t most = s->topk > 0 ? (int64_t)((float)s->topk * (float)blocks) : blocks;
    most = most > 1 ? most : 1;
    for (int64_t taken = 0; taken < most && top > -INFINITY; taken++) {
        int64_t best = -1;
        for (int64_t b = 0; b < blocks; b++) {
            best = on[b] == OFF && (best < 0 || p[b] > p[best]) ? b : best;
        }
        if (best < 0) {
            break;
        }
        mass += p[best] / sum;
        if (s->topk == 0 && taken > 0 && mass > s->cdf + 1e-5) {
            break;
        }
        on[best] = s->topk == 0 && taken > 0 && mass > s->cdf - 1e-5 ? EITHER : ON;
    }
    for (int64_t b = 0; b < blocks; b++) {
        on[b] = fabs(alike - s->sim) < 1e-5 ? EITHER : alike > s->sim ? on[b] : ON;
        on[b] = b == 0 && s->sink ? ON : on[b];
    }
    char first = OFF; /* what the tile's first row sees is not nothing */
    for (int64_t b = 0; b <= 2 * t && b < blocks; b++) {
        first = on[b] == ON || (on[b] == EITHER && first == OFF) ? on[b] : first;
    }
    if (causal && first != ON) {
        on[2 * t] = first == OFF ? ON : EITHER;
    }
    free(zero), free(query), free(p);
}

/* Counts tiles and blocks of the rows from.. on that differ from the reference; `ties` the blocks it leaves open. */
static int64_t differs(const heads *x, const setting *s, const selection *got, int64_t first_row, bool causal, int64_t *ties) {
    int64_t blocks = (x->n + 63) / 64, wrong = 0;
    char *on = malloc((size_t)blocks);
    for (int64_t head = 0; head < x->h_q; head++) {
        pooled keys = pool_keys(x, head);
        for (int64_t t = first_row / 128; t * 128 < x->n; t++) {
            int64_t from = t * 128 > first_row ? t * 128 : first_row, to = (t + 1) * 128 < x->n ? (t + 1) * 128 : x->n;
            reference_tile(x, s, head, &keys, from, to, t, causal, on);
            for (int64_t b = 0; b < blocks; b++) {
                *ties += on[b] == EITHER;
                for (int64_t i = from; i < to && on[b] != EITHER; i++) {
                    for (int64_t j = b * 64; j < b * 64 + 64 && j < x->n; j++) {
                        wrong += got->at[(head * x->n + i) * x->n + j] != (on[b] == ON && (!causal || j <= i));
                    }
                }
            }
        }
        free(keys.mean), free(keys.alike);
    }
    free(on);
    return wrong;
}

static void holds_if(fv_context *ctx, const setting *s, heads *x, bool causal) {
    char recipe[200];
    recipe_of(s, 0, recipe, sizeof recipe);
    int64_t ties = 0;
    selection got = select_all(ctx, recipe, x, causal);
    int64_t wrong = differs(x, s, &got, 0, causal, &ties);
    CHECK(wrong == 0 && ties < 10, "%s, n %lld, causal %d: %lld pairs differ, %lld ties", recipe, (long long)x->n, causal,
          (long long)wrong, (long long)ties);
    if (causal) {
        run_holds(ctx, recipe, x, &got, x->n > 300 ? 37 : 1);
        /* the second of two prompts: its queries alone are pooled, over all keys */
        for (int64_t from = 100; from < x->n; from += 156) {
            selection part = select_part(ctx, recipe, x, from, x->n - from, x->n, true);
            wrong = differs(x, s, &part, from, true, &ties);
            CHECK(wrong == 0, "%s, n %lld: %lld pairs of rows %lld.. differ", recipe, (long long)x->n, (long long)wrong,
                  (long long)from);
            free(part.at);
        }
    }
    free(got.at);
}

static void holds(fv_context *ctx, const void *set, heads *x) {
    holds_if(ctx, set, x, true);
    holds_if(ctx, set, x, false);
}

/* The official map: bytes (heads, blocks of 128 queries, blocks of 64 keys). */
static void golden_holds(fv_context *ctx, const char *name, const setting *s, const heads *x) {
    char recipe[200];
    recipe_of(s, 0, recipe, sizeof recipe);
    selection got = select_all(ctx, recipe, x, true);
    npy_array map = npy_golden(name);
    int64_t tiles = (x->n + 127) / 128, blocks = (x->n + 63) / 64, wrong = 0;
    bool fits = map.rank == 3 && map.shape[0] == x->h_q && map.shape[1] == tiles && map.shape[2] == blocks;
    CHECK(fits, "%s.npy: another shape", name);
    for (int64_t t = 0; t < x->h_q * tiles && fits; t++) { /* where the code leaves first rows without keys, we add a block */
        unsigned char *on = map.data + t * blocks, any = 0;
        for (int64_t b = 0; b <= t % tiles * 2; b++) {
            any |= on[b];
        }
        on[t % tiles * 2] |= !any;
    }
    for (int64_t j = 0; j < x->h_q * x->n * x->n && fits; j++) {
        int64_t head = j / x->n / x->n, row = j / x->n % x->n, key = j % x->n;
        wrong += got.at[j] != (key <= row && map.data[(head * tiles + row / 128) * blocks + key / 64]);
    }
    CHECK(wrong == 0, "%s: %lld pairs differ from the official map", name, (long long)wrong);
    free(map.data);
    free(got.at);
}

static void goldens_hold(fv_context *ctx) {
    heads x = structured(77, 2, 1, 1000, 64), r = heads_real(2, 1, 1500);
    golden_holds(ctx, "select/spargeattn/cdf98", &(setting){0.6, 0.98, 0, 0}, &x);
    golden_holds(ctx, "select/spargeattn/cdf70_sink", &(setting){0.3, 0.7, 0, 1}, &x);
    golden_holds(ctx, "select/spargeattn/topk50", &(setting){-0.1, 0, 0.5, 0}, &x);
    golden_holds(ctx, "select/spargeattn/real-cdf98", &(setting){0.3, 0.98, 0, 0}, &r);
    golden_holds(ctx, "select/spargeattn/real-cdf70_sink", &(setting){0.1, 0.7, 0, 1}, &r);
    golden_holds(ctx, "select/spargeattn/real-topk50", &(setting){-0.1, 0, 0.5, 0}, &r);
    heads_free(&x);
    heads_free(&r);
}

/* ---- the second stage ---------------------------------------------------------------------------------------------- */

typedef struct skipping {
    const selection *s;
    const unsigned char *skips; /* (n, blocks) of the head */
    int64_t head, blocks;
} skipping;

static bool sees_unskipped(const void *arg, int64_t i, int64_t j) {
    const skipping *v = arg;
    return v->s->at[(v->head * v->s->n + i) * v->s->n + j] && !v->skips[i * v->blocks + j / 64];
}

/* Which blocks row i skips, walking over its scores; false if one is within 1e-4 of the threshold. */
static bool walk(const heads *x, const selection *s, int64_t head, int64_t i, double pv, unsigned char *skips) {
    int64_t kv = head / (x->h_q / x->h_kv);
    double running = -INFINITY;
    bool clear = true;
    for (int64_t b = 0; b * 64 < x->n; b++) {
        double top = -INFINITY;
        for (int64_t j = b * 64; j < b * 64 + 64 && j <= i; j++) {
            double dot = 0;
            for (int64_t c = 0; c < x->d && s->at[(head * x->n + i) * x->n + j]; c++) {
                dot += (double)x->q[(head * x->n + i) * x->d + c] * x->k[(kv * x->n + j) * x->d + c] / sqrt((double)x->d);
            }
            top = s->at[(head * x->n + i) * x->n + j] ? fmax(top, dot / log(2)) : top;
        }
        skips[b] = top - running <= -pv;
        clear = clear && !(fabs(top - running + pv) < 1e-4);
        running = fmax(running, top);
    }
    return clear;
}

static void second_stage_holds(fv_context *ctx, heads x, double pv, int64_t step) {
    setting s = {0.3, 0.9, 0, 0};
    char recipe[200];
    const int64_t n = x.n;
    recipe_of(&s, pv, recipe, sizeof recipe);
    selection got = select_all(ctx, recipe, &x, true);
    fv_run_stats stats = heads_run(ctx, recipe, &x);
    int64_t blocks = (n + 63) / 64, kept = 0, unclear = 0, skipped = 0;
    unsigned char *skips = calloc((size_t)(n * blocks), 1);
    double worst = 0, out[64];
    for (int64_t head = 0; head < x.h_q; head++) {
        skipping arg = {&got, skips, head, blocks};
        for (int64_t i = 0; i < n; i++) {
            bool clear = (i % step == 0 || step == 1) && walk(&x, &got, head, i, pv, skips + i * blocks);
            unclear += !clear;
            for (int64_t j = 0; j <= i; j++) {
                bool selected = got.at[(head * n + i) * n + j], seen = sees_unskipped(&arg, i, j);
                kept += seen;
                skipped += selected && !seen;
            }
            double lse = clear ? reference_row(&x, head, i, sees_unskipped, &arg, out) : x.lse[head * n + i];
            worst = fmax(worst, fabs(lse - x.lse[head * n + i]));
            for (int64_t c = 0; c < x.d && clear; c++) {
                worst = fmax(worst, fabs(out[c] - x.out[(head * n + i) * x.d + c]));
            }
        }
    }
    CHECK(worst < 2e-5 && skipped > 0, "%s, n %lld: off by %g, %lld pairs skipped", recipe, (long long)n, worst,
          (long long)skipped);
    CHECK(unclear > 0 || (int64_t)stats.exact_pairs == kept, "%s, n %lld: weighed %llu pairs, the walk %lld", recipe,
          (long long)n, (unsigned long long)stats.exact_pairs, (long long)kept);
    free(skips);
    free(got.at);
    heads_free(&x);
}

/* A first key of a very large score: blocks after it are looked at, and their values never read. */
static void values_stay_unread(fv_context *ctx) {
    heads x = heads_make(5, 1, 1, 1024, 32);
    for (int64_t i = 0; i < 1024; i++) {
        x.q[i * 32] = 100;
        x.k[i * 32] = i == 0 ? 100 : 0;
    }
    fv_run_stats all = heads_run(ctx, "prefill=spargeattn:pv=0:cdf=1:fallback=0", &x);
    fv_run_stats few = heads_run(ctx, "prefill=spargeattn:pv=50:cdf=1:fallback=0", &x);
    CHECK(all.v_rows == all.k_rows && few.k_rows == all.k_rows, "rows of K read: %llu and %llu", (unsigned long long)all.k_rows,
          (unsigned long long)few.k_rows);
    CHECK(few.v_rows >= 64 && few.v_rows <= 8 * 64, "rows of V read: %llu, not the first block's for each of 8 tiles or fewer",
          (unsigned long long)few.v_rows);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    static const setting settings[] = {
        {0.6, 0.98, 0, 0}, {0.3, 0.7, 0, 1}, {-0.1, 0.5, 0.5, 0}, {0.2, 0, 0, 0}, {0.5, 0.98, 0.01, 0}};
    for (int i = 0; i < 5; i++) {
        on_all_heads(ctx, structured, holds, &settings[i]);
    }
    heads x = heads_make(9, 4, 2, 500, 32);
    dense_holds(ctx, "prefill=spargeattn:cdf=1:pv=0:fallback=0", &x);
    dense_holds(ctx, "prefill=spargeattn:topk=1:pv=0:sim=-1:fallback=0", &x);
    heads_free(&x);
    goldens_hold(ctx);
    x = structured(3, 4, 2, 1500, 32);
    double last = 1;
    for (int k = 1; k <= 16; k *= 2) {
        char recipe[120];
        snprintf(recipe, sizeof recipe, "prefill=spargeattn:sim=-0.1:topk=%g:pv=0:fallback=0", k / 24.0 + 1e-4);
        double missing = missing_mass(ctx, recipe, &x);
        CHECK(missing <= last + 1e-6, "%s misses %g, a smaller share %g", recipe, missing, last);
        last = missing;
    }
    heads_free(&x);
    second_stage_holds(ctx, structured(700, 2, 1, 700, 32), 4, 1);
    second_stage_holds(ctx, structured(700, 2, 1, 700, 32), 12, 1);
    second_stage_holds(ctx, heads_real(3, 1, 700), 8, 1);
    second_stage_holds(ctx, structured(4300, 2, 1, 4300, 32), 8, 61); /* a second piece: the maximum so far is that of both */
    values_stay_unread(ctx);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
