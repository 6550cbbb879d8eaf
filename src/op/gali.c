/* gali.c - attention over texts longer than a model was trained on: positions in between are interpolated in the logits.
 *
 * Li et al., A Training-Free Length Extrapolation Approach for LLMs: Greedy Attention Logit Interpolation (GALI), 2025 (arXiv
 * 2502.02659), in the form of its code (copy at blap/GALI: models/DPI). What is in the trained length has its own positions. Each
 * chunk after it puts all keys so far back into 0 .. trained - 1: the earliest share their positions by steps of 1/g, as
 * many as are needed, the last keep whole ones. A query rounds its position up; its logit with a key between two whole positions
 * lies between those with the key at both: s = s(ceil, ceil) + (s(ceil, floor) - s(ceil, ceil)) frac,  frac = ceil(p_key) - p_key
 * and has noise added, normal, of standard deviation noise * (i - j) / keys, where frac is not 0. Both are functions of the key's
 * place alone, since a query's position is whole. Deviation: the noise is a function of (seed, head, query, key) and not of a
 * generator's state. */
#include "base/threads.h"
#include "fovea/experimental.h"
#include "kernel/tile.h"
#include "op/op.h"

#include <math.h>
#include <string.h>

enum { ROWS = 64 };

typedef struct job {
    const fv_gali *g;
    const float *q, *k, *v;
    float *out, *lse;
    float *angles;    /* (trained, d_k) */
    double *position; /* (n) of the chunk at hand */
    int64_t first, end;
    float scale; /* to the base 2 */
    fvi_tile_ops ops;
    fvi_rowop_ops rowop;
    float *scratch;
    int64_t scratch_floats; /* of a worker */
} job;

typedef struct bench {
    float *q, *high, *low;        /* rotated rows: (64, d_k), (64, d_k), (64, d_k) */
    float *qt, *kt, *vt, *s, *s2; /* packed; (64, 64) each */
    float *out, *m, *sum, *alpha;
} bench;

static int64_t lay_out(const fv_gali *g, float *at, bench *b) {
    const int64_t d_pad = fvi_tile_pad(g->d_v);
    float *start = at,
          **part[] = {&b->q, &b->high, &b->low, &b->qt, &b->kt, &b->vt, &b->s, &b->s2, &b->out, &b->m, &b->sum, &b->alpha};
    const int64_t floats[] = {ROWS * g->d_k,
                              ROWS * g->d_k,
                              ROWS * g->d_k,
                              ROWS * g->d_k,
                              fvi_tile_k_bytes(g->d_k) / 4,
                              fvi_tile_v_bytes(g->d_v) / 4,
                              ROWS * FVI_LEAF,
                              ROWS * FVI_LEAF,
                              ROWS * d_pad,
                              ROWS,
                              ROWS,
                              ROWS};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        *part[i] = at;
        at += fvi_round_up(floats[i], 16);
    }
    return at - start;
}

fv_status fv_gali_positions(fv_context *ctx, int64_t trained, int64_t local, int64_t n, double *position) {
    if (trained < 1 || local < 0 || local >= trained || n < 0) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "GALI: %lld keys, %lld positions trained, %lld of them local: local has to be less",
                        (long long)n, (long long)trained, (long long)local);
    }
    int64_t steps = n <= trained ? 1 : fvi_ceil_div(n - local, trained - local), shared = 0;
    while (n > trained && trained - shared + shared * steps < n) {
        shared++;
    }
    int64_t early = n - fvi_min(n, trained - shared);
    for (int64_t j = 0; j < n; j++) {
        position[j] = j < early ? (double)(j / steps) + (double)(j % steps) / (double)steps : (double)(shared + j - early);
    }
    return FV_OK;
}

/* ---- noise ---- */

static uint64_t mix(uint64_t x) {
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static double normal(uint64_t seed, int64_t head, int64_t i, int64_t j) {
    uint64_t a = mix(mix(mix(seed ^ (uint64_t)head << 40) + (uint64_t)i) + (uint64_t)j), b = mix(a);
    double u = ((double)(a >> 11) + 1) / 9007199254740993.0, t = (double)(b >> 11) / 9007199254740992.0;
    return sqrt(-2 * log(u)) * cos(2 * M_PI * t);
}

/* ---- one block of queries ---- */

static void rotate(const job *w, float *row, double position) {
    const int64_t d = w->g->d_k;
    fvi_rope(&w->rowop, 1, 1, d, d, w->g->interleaved, w->angles + (int64_t)position * d, row);
}

static void score(const job *w, int64_t head, int64_t row0, int64_t rows, int64_t leaf, int n, const bench *b) {
    const fv_gali *g = w->g;
    const int64_t kv = head / (g->h_q / g->h_kv), d = g->d_k;
    bool between = false;
    for (int j = 0; j < n; j++) {
        double p = w->position[leaf + j];
        memcpy(b->high + j * d, w->k + (kv * g->n + leaf + j) * d, (size_t)d * sizeof(float));
        memcpy(b->low + j * d, b->high + j * d, (size_t)d * sizeof(float));
        rotate(w, b->high + j * d, ceil(p));
        rotate(w, b->low + j * d, floor(p));
        between = between || ceil(p) != p;
    }
    w->ops.pack_k[FV_F32](b->high, d * 4, n, (int)d, b->kt);
    w->ops.qk(b->qt, (int)rows, (int)d, b->kt, w->scale, b->s);
    if (between) {
        w->ops.pack_k[FV_F32](b->low, d * 4, n, (int)d, b->kt);
        w->ops.qk(b->qt, (int)rows, (int)d, b->kt, w->scale, b->s2);
    }
    for (int64_t r = 0; r < rows; r++) {
        float *s = b->s + r * FVI_LEAF, *low = b->s2 + r * FVI_LEAF;
        for (int j = 0; j < FVI_LEAF; j++) {
            int64_t i = row0 + r, key = leaf + j;
            if (j >= n || key > i) {
                s[j] = -INFINITY;
                continue;
            }
            double part = ceil(w->position[key]) - w->position[key];
            if (part > 0) {
                double noise = g->noise > 0 ? g->noise * (double)(i - key) / (double)w->end * normal(g->seed, head, i, key) : 0;
                s[j] += (low[j] - s[j]) * (float)part + (float)(noise * M_LOG2E);
            }
        }
    }
}

static void attend(const job *w, int64_t head, int64_t row0, int64_t rows, const bench *b) {
    const fv_gali *g = w->g;
    const int64_t d = g->d_k, d_pad = fvi_tile_pad(g->d_v), kv = head / (g->h_q / g->h_kv);
    memcpy(b->q, w->q + (head * g->n + row0) * d, (size_t)(rows * d) * sizeof(float));
    for (int64_t r = 0; r < rows; r++) {
        rotate(w, b->q + r * d, ceil(w->position[row0 + r]));
        b->m[r] = -INFINITY;
        b->sum[r] = 0;
    }
    memset(b->out, 0, (size_t)(rows * d_pad) * sizeof(float));
    w->ops.pack_q(b->q, (int)rows, (int)d, b->qt);
    for (int64_t leaf = 0; leaf < row0 + rows; leaf += FVI_LEAF) {
        int n = (int)fvi_min(FVI_LEAF, w->end - leaf);
        score(w, head, row0, rows, leaf, n, b);
        w->ops.soften(b->s, (int)rows, b->m, b->sum, b->alpha);
        w->ops.pack_v[FV_F32](w->v + (kv * g->n + leaf) * g->d_v, g->d_v * 4, n, (int)g->d_v, b->vt);
        w->ops.pv(b->s, (int)rows, b->alpha, b->vt, (int)d_pad, b->out);
    }
    for (int64_t r = 0; r < rows; r++) {
        float *out = w->out + (head * g->n + row0 + r) * g->d_v;
        for (int64_t c = 0; c < g->d_v; c++) {
            out[c] = b->out[r * d_pad + c] / b->sum[r];
        }
        if (w->lse != NULL) {
            w->lse[head * g->n + row0 + r] = b->m[r] * (float)M_LN2 + logf(b->sum[r]);
        }
    }
}

static void one_block(void *arg, int64_t item, int worker) {
    const job *w = arg;
    int64_t blocks = fvi_ceil_div(w->end - w->first, ROWS), row0 = w->first + item % blocks * ROWS;
    bench b;
    lay_out(w->g, w->scratch + worker * w->scratch_floats, &b);
    attend(w, item / blocks, row0, fvi_min(ROWS, w->end - row0), &b);
}

static fv_status check(fv_context *ctx, const fv_gali *g) {
    if (g->h_q < 1 || g->h_kv < 1 || g->h_q % g->h_kv != 0 || g->n < 0 || g->n > 1 << 24) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "GALI: %lld query heads over %lld KV heads, %lld rows: heads have to divide, rows be up to "
                        "2^24",
                        (long long)g->h_q, (long long)g->h_kv, (long long)g->n);
    }
    if (g->d_k < 2 || g->d_k > 256 || g->d_k % 2 != 0 || g->d_v < 1 || g->d_v > 256) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "GALI: d_k = %lld has to be even, 2 to 256, d_v = %lld from 1 to 256",
                        (long long)g->d_k, (long long)g->d_v);
    }
    if (g->trained < 1 || g->trained > 1 << 20 || g->local < 0 || g->local >= g->trained || g->chunk < 1) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "GALI: %lld positions trained, %lld local, chunks of %lld: local has to be less than "
                        "trained, trained up to 2^20, a chunk 1 at least",
                        (long long)g->trained, (long long)g->local, (long long)g->chunk);
    }
    if (!(g->rope_base > 0) || !(g->noise >= 0) || !(g->scale >= 0)) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "GALI: rope_base = %g has to be positive, noise = %g and scale = %g not negative",
                        g->rope_base, g->noise, (double)g->scale);
    }
    return FV_OK;
}

fv_status fv_gali_attention(fv_context *ctx, const fv_gali *g, const float *q, const float *k, const float *v, float *out,
                            float *lse) {
    fv_status status = check(ctx, g);
    if (status != FV_OK || g->n == 0) {
        return status;
    }
    bench none;
    job w = {.g = g, .q = q, .k = k, .v = v, .out = out, .lse = lse};
    w.scale = (float)((g->scale > 0 ? (double)g->scale : 1 / sqrt((double)g->d_k)) * M_LOG2E);
    w.scratch_floats = lay_out(g, (float *)(uintptr_t)64, &none);
    size_t scratch = (size_t)(fv_threads(ctx) * w.scratch_floats), angles = (size_t)(g->trained * g->d_k);
    w.angles = fvi_alloc(ctx, angles, sizeof(float));
    w.position = fvi_alloc(ctx, (size_t)g->n, sizeof(double));
    w.scratch = fvi_alloc(ctx, scratch, sizeof(float));
    status = w.angles == NULL || w.position == NULL || w.scratch == NULL
                 ? fvi_fail(ctx, FV_ERR_MEMORY, "GALI: no memory for %lld positions", (long long)g->n)
                 : FV_OK;
    if (status == FV_OK) {
        fvi_tile_init(&ctx->cpu, &w.ops);
        fvi_rowop_init(&ctx->cpu, &w.rowop);
        fvi_rope_table(0, g->trained, g->d_k, g->rope_base, 1, w.angles);
    }
    for (; status == FV_OK && w.first < g->n; w.first = w.end) {
        w.end = fvi_min(g->n, w.first == 0 ? g->trained : w.first + g->chunk);
        status = fv_gali_positions(ctx, g->trained, g->local, w.end, w.position);
        fvi_parallel(ctx, g->h_q * fvi_ceil_div(w.end - w.first, ROWS), one_block, &w);
    }
    fvi_release(ctx, w.scratch, scratch, sizeof(float));
    fvi_release(ctx, w.position, (size_t)g->n, sizeof(double));
    fvi_release(ctx, w.angles, angles, sizeof(float));
    return status;
}
