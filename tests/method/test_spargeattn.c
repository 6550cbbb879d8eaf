/* test_spargeattn.c - SpargeAttn: its blocks against a reference in double that takes cosines pair by pair, and against the map
 * of the official code (its function get_block_map_meansim, see tests/golden/select/README); its second stage against a walk over
 * scores, row by row; its tuning against that of the official code (autotune.py) over the engine's own outputs. */
#include "calibrated_test.h"
#include "heads_test.h"
#include "profiled_test.h"

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

/* ---- tuning --------------------------------------------------------------------------------------------------------- */

typedef struct tried {
    double sim, cdf, pv, sparsity;
} tried;

typedef struct tuning {
    fv_context *ctx;
    heads *one;
    const double *dense;
    double l1, pv_l1;
    tried at[64]; /* over all prompts */
    int n;
    bool gave_up;
} tuning;

/* Error of the engine's output as a share of dense attention's; what it leaves out of the blocks that its rows could see. */
static double share_lost(const tuning *t, const tried *s, bool with_pv, double *sparsity) {
    char recipe[200];
    const setting blocks = {s->sim, s->cdf, 0, 0};
    recipe_of(&blocks, with_pv ? s->pv : 50, recipe, sizeof recipe);
    const lost l = loses(t->ctx, recipe, t->one, t->dense);
    if (sparsity != NULL) {
        const int64_t n = t->one->n;
        int64_t seen = 0, kept = 0;
        selection got = select_all(t->ctx, recipe, t->one, true);
        for (int64_t i = n - 1; i >= 0; i -= looked_at_step(n)) {
            for (int64_t j = 0; j <= i; j += 64, seen++) {
                kept += got.at[i * n + j];
            }
        }
        free(got.at);
        *sparsity = 1 - (double)kept / (double)seen;
    }
    return l.error / l.size;
}

static void tune_sim(const tuning *t, tried *s) {
    double low = 0, high = 1;
    for (s->cdf = 0.1; high - low > 0.001; s->cdf = (low + high) / 2) {
        *(share_lost(t, s, false, &s->sparsity) < t->l1 ? &high : &low) = s->cdf;
    }
    s->cdf = s->cdf > 0.999 ? 1 : s->cdf;
    low = 0, high = 50;
    for (s->pv = 20; high - low > 0.1; s->pv = (low + high) / 2) {
        *(share_lost(t, s, true, NULL) < t->pv_l1 ? &high : &low) = s->pv;
    }
}

/* One prompt more of a head; want: its sim, cdf, pv so far. */
static void tune(tuning *t, double want[3]) {
    for (double sim = -1; sim < 1 && !t->gave_up; sim += 1.0 / 16) {
        tried *s = &t->at[t->n++];
        s->sim = sim;
        tune_sim(t, s);
        if (s->sparsity < 0.1) {
            break;
        }
    }
    double best = -1, mean = 0;
    for (int g = 0; g < 16 && !t->gave_up; g++) {
        double sum = 0, sim = -1, cdf = 0, pv = 0;
        int n = 0;
        for (int i = 0; i < t->n; i++) {
            const tried *s = &t->at[i];
            if ((int)floor((s->sim + 1) / 0.125) == g) {
                sum += s->sparsity, n++;
                sim = fmax(sim, s->sim), cdf = fmax(cdf, s->cdf), pv = fmax(pv, s->pv);
            }
        }
        if (n > 0 && sum > best + 1e-12) {
            best = sum, mean = sum / n;
            want[0] = sim, want[1] = cdf, want[2] = pv;
        }
    }
    if (!t->gave_up && mean <= 0.1) {
        t->gave_up = true;
        want[0] = want[1] = 1;
    }
}

/* Of each head: what the profile of two prompts and that of the first alone must have. */
static int tuning_holds(fv_context *ctx, heads x[2], double l1, double pv_l1) {
    char recipe[100];
    int sparse = 0;
    snprintf(recipe, sizeof recipe, "prefill=spargeattn:l1=%g:pv_l1=%g", l1, pv_l1);
    fv_profile *profile[2] = {calibrate(ctx, recipe, x, 1), calibrate(ctx, recipe, x, 2)};
    for (int64_t head = 0; head < x->h_q; head++) {
        tuning t = {.ctx = ctx, .l1 = l1, .pv_l1 = pv_l1};
        double want[3] = {0};
        for (int prompt = 0; prompt < 2; prompt++) {
            heads one = one_head(&x[prompt], head);
            double *dense = dense_outputs(&one);
            t.one = &one, t.dense = dense;
            tune(&t, want);
            int64_t n = 0;
            const double *got = fv_profile_get(profile[prompt], 0, head, &n);
            CHECK(n == 3 && got[0] == want[0] && fabs(got[1] - want[1]) < 1e-9 && fabs(got[2] - want[2]) < 1e-9,
                  "%s, head %lld, %d prompts: %g %g %g, not %g %g %g", recipe, (long long)head, prompt + 1, n == 3 ? got[0] : -9,
                  n == 3 ? got[1] : -9, n == 3 ? got[2] : -9, want[0], want[1], want[2]);
            free(dense);
            one_head_free(&one);
        }
        sparse += !t.gave_up;
    }
    fv_profile_destroy(profile[0]);
    fv_profile_destroy(profile[1]);
    return sparse;
}

static void tunings_hold(fv_context *ctx) {
    heads x[2] = {structured(21, 2, 1, 700, 32), structured(22, 2, 1, 700, 32)};
    CHECK(tuning_holds(ctx, x, 0.2, 0.3) == 2, "a fifth may be lost, and heads stay dense");
    heads_free(&x[0]);
    heads_free(&x[1]);
    for (int i = 0; i < 2; i++) { /* queries that look everywhere alike */
        x[i] = heads_make((uint64_t)(25 + i), 1, 1, 2000, 32);
        for (int64_t j = 0; j < 2000 * 32; j++) {
            x[i].q[j] *= 0.05f;
        }
    }
    CHECK(tuning_holds(ctx, x, 0.02, 0.03) == 0, "a head that looks everywhere is sparse");
    heads_free(&x[0]);
    heads_free(&x[1]);
    CHECK(strstr(calibration_refused(ctx, "prefill=spargeattn:topk=0.5", 512), "topk") != NULL, "topk is taken");
    CHECK(strstr(calibration_refused(ctx, "prefill=spargeattn:l1=0.1", 512), "pv_l1") != NULL, "pv_l1 below l1 is taken");
}

/* A profile's heads do what its numbers as parameters do with the first block on; sim 1 and cdf 1 are dense, bit for bit. */
static void profile_holds(fv_context *ctx) {
    heads x = structured(23, 4, 2, 900, 32);
    static const double number[][3] = {{0.3, 0.7, 4}, {-0.5, 0.9, 50}, {1, 1, 0}, {0.2, 0.5, 0}};
    static const double *const at[] = {number[0], number[1], number[2], number[3]};
    static const int64_t n[] = {3, 3, 3, 3};
    const profiled numbers = {"spargeattn", at, n};
    selection got = {x.h_q, x.n, calloc((size_t)(x.h_q * x.n), (size_t)x.n), 0};
    prepared p = prepare_profiled(ctx, "prefill=spargeattn@file:fallback=0", &numbers, &x);
    fv_run run = part_run(&x, 0, x.n, x.n);
    CHECK(fv_plan_index(p.plan, &run, p.workspace, p.bytes, take_tile, &got) == FV_OK, "%s", fv_message(ctx));
    CHECK(fv_plan_run(p.plan, &run, p.workspace, p.bytes) == FV_OK, "%s", fv_message(ctx));
    prepared_free(&p);
    const int64_t pairs = x.n * x.n, size = x.n * x.d;
    float *out = malloc((size_t)(x.h_q * size) * sizeof *out);
    memcpy(out, x.out, (size_t)(x.h_q * size) * sizeof *out);
    for (int64_t head = 0; head < 4; head++) {
        char recipe[200];
        const setting s = {number[head][0], number[head][1], 0, 1};
        recipe_of(&s, number[head][2], recipe, sizeof recipe);
        selection want = select_all(ctx, recipe, &x, true);
        heads_run(ctx, head == 2 ? "prefill=dense" : recipe, &x);
        CHECK(memcmp(got.at + head * pairs, want.at + head * pairs, (size_t)pairs) == 0, "%s: a profile's head selects otherwise",
              recipe);
        CHECK(memcmp(out + head * size, x.out + head * size, (size_t)size * sizeof *out) == 0,
              "%s: a profile's head gives otherwise", recipe);
        free(want.at);
    }
    free(out);
    free(got.at);
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
    tunings_hold(ctx);
    profile_holds(ctx);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
