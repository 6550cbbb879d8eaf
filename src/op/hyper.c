/* hyper.c - attention in near-linear time: queries and keys that hash alike meet in blocks, a uniform sample stands for the rest.
 *
 * Han et al., HyperAttention: Long-context Attention in Near-Linear Time, ICLR 2024 (arXiv 2310.05869), Algorithms 1 to 4, in the
 * form of its code (insuhan/hyper-attn): rows are hashed by the signs of `projections` random products, read as a Gray code, and
 * sorted; block t of the sorted queries sees block t of the sorted keys; all queries see `samples` keys drawn with replacement,
 * each with the weight keys / samples, but for those of their own block. Causal: halves, each by itself, and the later half over
 * the earlier without a mask; up to `least` rows are exact. The paper samples by row norms of V, its code uniformly, and so does
 * this. All passes fold into one running softmax per row (the code merges two results by their sums: the same in exact
 * arithmetic).
 *
 * Deviations: the code fills a last block that is not full with zero keys and weighs them, and evens odd lengths by a zero row;
 * here there are none. Projections and samples are functions of the seed and their place. A sample of a query's own block
 * is left out, as where the code runs bf16 or f16 by its Triton kernel (elsewhere it makes the mask and does not use it, or makes
 * none: such keys count twice). */
#include "base/threads.h"
#include "fovea/experimental.h"
#include "kernel/simhash.h"
#include "kernel/tile.h"

#include <math.h>
#include <string.h>

enum { ROWS = 64, LEAVES = 8, GROUP = LEAVES * FVI_LEAF };

typedef struct job {
    const fv_hyper *h;
    const float *q, *k, *v, *projection;
    float *out, *lse;
    float scale; /* to the base 2 */
    fvi_tile_ops ops;
    uint8_t *scratch;
    size_t bytes; /* of a worker */
} job;

/* A worker's: everything of the head that it is at. */
typedef struct bench {
    int64_t head, kv;
    int32_t *same;              /* 0, 1, 2 ... */
    int32_t *q_order, *k_order; /* rows of a pass by their hashes; (n_q), (n_kv) */
    int32_t *block, *sample;    /* (samples): blocks of sorted keys that they are in, and the keys */
    uint16_t *q_hash, *k_hash;
    float *m, *sum, *out;            /* the rows' states: (n_q), (n_q), (n_q, d_pad) */
    float *q, *k, *v;                /* rows side by side: (64, d_k), (64, d_k), (64, d_v) */
    float *qt, *kt, *vt, *s, *alpha; /* packed, LEAVES of K and of V; (64, 64); (64) */
    float *tile_m, *tile_sum, *tile_out;
} bench;

/* Keys that rows meet. */
typedef struct pass {
    const int32_t *row, *key;
    int64_t rows, keys;
    bool causal;          /* a row sees no key past its own */
    const int32_t *block; /* of samples: their blocks, which rows of the same block do not see; NULL otherwise */
    int64_t row_block;    /* rows of a block */
    float log_weight;     /* of samples, to the base 2 */
} pass;

static size_t lay_out(const fv_hyper *h, uint8_t *at, bench *b) {
    const int64_t d_pad = fvi_tile_pad(h->d_v), most = fvi_max(h->n_q, h->n_kv);
    const struct {
        void **to;
        int64_t bytes;
    } part[] = {{(void **)&b->same, 4 * most},
                {(void **)&b->q_order, 4 * h->n_q},
                {(void **)&b->k_order, 4 * h->n_kv},
                {(void **)&b->block, 4 * h->samples},
                {(void **)&b->sample, 4 * h->samples},
                {(void **)&b->q_hash, 2 * h->n_q},
                {(void **)&b->k_hash, 2 * h->n_kv},
                {(void **)&b->m, 4 * h->n_q},
                {(void **)&b->sum, 4 * h->n_q},
                {(void **)&b->out, 4 * h->n_q * d_pad},
                {(void **)&b->q, 4 * ROWS * h->d_k},
                {(void **)&b->k, 4 * ROWS * h->d_k},
                {(void **)&b->v, 4 * ROWS * h->d_v},
                {(void **)&b->qt, 4 * ROWS * h->d_k},
                {(void **)&b->kt, LEAVES * fvi_tile_k_bytes(h->d_k)},
                {(void **)&b->vt, LEAVES * fvi_tile_v_bytes(h->d_v)},
                {(void **)&b->s, 4 * ROWS * FVI_LEAF},
                {(void **)&b->alpha, 4 * ROWS},
                {(void **)&b->tile_m, 4 * ROWS},
                {(void **)&b->tile_sum, 4 * ROWS},
                {(void **)&b->tile_out, 4 * ROWS * d_pad}};
    size_t used = 0;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        if (at != NULL) {
            *part[i].to = at + used;
        }
        used += (size_t)fvi_round_up(part[i].bytes, 64);
    }
    return used;
}

static int64_t draw(const fv_hyper *h, int64_t head, int64_t first, int64_t keys, int64_t sample) {
    return h->draw != NULL ? h->draw(h->user, head, first, keys, sample) : fvi_simhash_draw(h->seed, head, first, keys, sample);
}

/* ---- folding ---- */

static void pack_group(const job *w, bench *b, const int32_t *key, int64_t n) {
    const fv_hyper *h = w->h;
    const int64_t kt = fvi_tile_k_bytes(h->d_k) / 4, vt = fvi_tile_v_bytes(h->d_v) / 4;
    for (int64_t leaf = 0; leaf * FVI_LEAF < n; leaf++) {
        int64_t there = fvi_min(FVI_LEAF, n - leaf * FVI_LEAF);
        for (int64_t j = 0; j < there; j++) {
            int64_t row = b->kv * h->n_kv + key[leaf * FVI_LEAF + j];
            memcpy(b->k + j * h->d_k, w->k + row * h->d_k, (size_t)h->d_k * sizeof(float));
            memcpy(b->v + j * h->d_v, w->v + row * h->d_v, (size_t)h->d_v * sizeof(float));
        }
        w->ops.pack_k[FV_F32](b->k, h->d_k * 4, (int)there, (int)h->d_k, b->kt + leaf * kt);
        w->ops.pack_v[FV_F32](b->v, h->d_v * 4, (int)there, (int)h->d_v, b->vt + leaf * vt);
    }
}

/* The rows from place `at` on, n of them, meet keys from..from + there - 1 of the pass, which lie in leaf `leaf` of the group. */
static void meet(const job *w, bench *b, const pass *p, int64_t at, int64_t n, int64_t from, int64_t there, int64_t leaf) {
    const fv_hyper *h = w->h;
    const int64_t kt = fvi_tile_k_bytes(h->d_k) / 4, vt = fvi_tile_v_bytes(h->d_v) / 4;
    w->ops.qk(b->qt, (int)n, (int)h->d_k, b->kt + leaf * kt, w->scale, b->s);
    bool late = p->causal && p->key[from + there - 1] > p->row[at];
    for (int64_t r = 0; r < n; r++) {
        float *s = b->s + r * FVI_LEAF;
        for (int64_t j = 0; late && j < there; j++) {
            s[j] = p->key[from + j] > p->row[at + r] ? -INFINITY : s[j];
        }
        int32_t own = p->block == NULL ? 0 : (int32_t)((at + r) / p->row_block);
        for (int64_t j = 0; p->block != NULL && j < there; j++) {
            s[j] = p->block[from + j] == own ? -INFINITY : s[j] + p->log_weight;
        }
        for (int64_t j = there; j < FVI_LEAF; j++) {
            s[j] = -INFINITY;
        }
    }
    w->ops.soften(b->s, (int)n, b->tile_m, b->tile_sum, b->alpha);
    w->ops.pv(b->s, (int)n, b->alpha, b->vt + leaf * vt, (int)fvi_tile_pad(h->d_v), b->tile_out);
}

/* Rows' states come to the tile, or go back. */
static void move_states(const job *w, bench *b, const int32_t *row, int64_t n, bool back) {
    const int64_t d_pad = fvi_tile_pad(w->h->d_v);
    for (int64_t r = 0; r < n; r++) {
        float *out = b->out + row[r] * d_pad, *tile = b->tile_out + r * d_pad;
        memcpy(back ? out : tile, back ? tile : out, (size_t)d_pad * sizeof(float));
        if (back) {
            b->m[row[r]] = b->tile_m[r];
            b->sum[row[r]] = b->tile_sum[r];
        } else {
            b->tile_m[r] = b->m[row[r]];
            b->tile_sum[r] = b->sum[row[r]];
        }
    }
}

static void fold(const job *w, bench *b, const pass *p) {
    const fv_hyper *h = w->h;
    for (int64_t from = 0; from < p->keys; from += GROUP) {
        int64_t keys = fvi_min(GROUP, p->keys - from);
        pack_group(w, b, p->key + from, keys);
        for (int64_t at = 0; at < p->rows; at += ROWS) {
            int64_t n = fvi_min(ROWS, p->rows - at);
            if (p->causal && p->key[from] > p->row[at + n - 1]) {
                continue;
            }
            for (int64_t r = 0; r < n; r++) {
                memcpy(b->q + r * h->d_k, w->q + (b->head * h->n_q + p->row[at + r]) * h->d_k, (size_t)h->d_k * sizeof(float));
            }
            w->ops.pack_q(b->q, (int)n, (int)h->d_k, b->qt);
            move_states(w, b, p->row + at, n, false);
            for (int64_t leaf = 0; leaf * FVI_LEAF < keys; leaf++) {
                int64_t first = from + leaf * FVI_LEAF;
                if (!p->causal || p->key[first] <= p->row[at + n - 1]) {
                    meet(w, b, p, at, n, first, fvi_min(FVI_LEAF, keys - leaf * FVI_LEAF), leaf);
                }
            }
            move_states(w, b, p->row + at, n, true);
        }
    }
}

/* ---- blocks and samples ---- */

static void hash_rows(const fv_hyper *h, const float *projection, const float *x, int64_t n, uint16_t *hash) {
    fvi_simhash_rows(projection, h->projections, h->d_k, x, n, hash);
}

/* Queries q0.. of which none is masked from keys k0... */
static void approximate(const job *w, bench *b, int64_t q0, int64_t rows, int64_t k0, int64_t keys) {
    const fv_hyper *h = w->h;
    const int64_t blocks = fvi_ceil_div(keys, h->block);
    const int64_t row_block = fvi_ceil_div(fvi_round_up(rows, h->block), blocks);
    fvi_simhash_sort(b->q_hash, h->projections, q0, rows, b->q_order);
    fvi_simhash_sort(b->k_hash, h->projections, k0, keys, b->k_order);
    for (int64_t t = 0; t < blocks && t * row_block < rows; t++) {
        fold(w, b,
             &(pass){.row = b->q_order + t * row_block,
                     .rows = fvi_min(row_block, rows - t * row_block),
                     .key = b->k_order + t * h->block,
                     .keys = fvi_min(h->block, keys - t * h->block)});
    }
    if (h->samples == 0 || rows <= row_block || keys <= h->block) {
        return;
    }
    for (int64_t s = 0; s < h->samples; s++) {
        int64_t place = draw(h, b->head, k0, keys, s);
        place = fvi_max(0, fvi_min(place, keys - 1));
        b->block[s] = (int32_t)(place / h->block);
        b->sample[s] = b->k_order[place];
    }
    fold(w, b,
         &(pass){.row = b->q_order,
                 .rows = rows,
                 .key = b->sample,
                 .keys = h->samples,
                 .log_weight = log2f((float)keys / (float)h->samples),
                 .block = b->block,
                 .row_block = row_block});
}

static void attend(const job *w, bench *b, int64_t q0, int64_t rows, int64_t k0, int64_t keys, bool causal, int64_t length) {
    if (causal && length > w->h->least) {
        int64_t half = (length + 1) / 2;
        attend(w, b, q0, half, k0, half, true, half);
        attend(w, b, q0 + half, length - half, k0 + half, length - half, true, length - half);
        attend(w, b, q0 + half, length - half, k0, half, false, half);
    } else if (!causal && length >= w->h->least) {
        approximate(w, b, q0, rows, k0, keys);
    } else {
        fold(w, b, &(pass){.row = b->same + q0, .rows = rows, .key = b->same + k0, .keys = keys, .causal = causal});
    }
}

static void one_head(void *arg, int64_t head, int worker) {
    const job *w = arg;
    const fv_hyper *h = w->h;
    const int64_t d_pad = fvi_tile_pad(h->d_v);
    bench b = {0};
    lay_out(h, w->scratch + (size_t)worker * w->bytes, &b);
    b.head = head;
    b.kv = head / (h->h_q / h->h_kv);
    for (int64_t i = 0; i < fvi_max(h->n_q, h->n_kv); i++) {
        b.same[i] = (int32_t)i;
    }
    for (int64_t i = 0; i < h->n_q; i++) {
        b.m[i] = -INFINITY;
        b.sum[i] = 0;
    }
    memset(b.out, 0, (size_t)(h->n_q * d_pad) * sizeof(float));
    hash_rows(h, w->projection, w->q + head * h->n_q * h->d_k, h->n_q, b.q_hash);
    hash_rows(h, w->projection, w->k + b.kv * h->n_kv * h->d_k, h->n_kv, b.k_hash);
    attend(w, &b, 0, h->n_q, 0, h->n_kv, h->causal, h->n_q);
    for (int64_t i = 0; i < h->n_q; i++) {
        for (int64_t c = 0; c < h->d_v; c++) {
            w->out[(head * h->n_q + i) * h->d_v + c] = b.sum[i] > 0 ? b.out[i * d_pad + c] / b.sum[i] : 0;
        }
        if (w->lse != NULL) {
            w->lse[head * h->n_q + i] = b.m[i] * (float)M_LN2 + logf(b.sum[i]);
        }
    }
}

/* ---- the calls ---- */

static fv_status check(fv_context *ctx, const fv_hyper *h) {
    if (h->h_q < 1 || h->h_kv < 1 || h->h_q % h->h_kv != 0 || h->n_q < 0 || h->n_kv < 1 || h->n_q > 1 << 24 ||
        h->n_kv > 1 << 24) {
        return fvi_fail(
            ctx, FV_ERR_ARGUMENT,
            "HyperAttention: %lld query heads over %lld KV heads, %lld queries, %lld keys: heads have to divide, rows be "
            "up to 2^24",
            (long long)h->h_q, (long long)h->h_kv, (long long)h->n_q, (long long)h->n_kv);
    }
    if (h->causal && h->n_q != h->n_kv) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "HyperAttention: causal, and %lld queries over %lld keys: they have to be as many",
                        (long long)h->n_q, (long long)h->n_kv);
    }
    if (h->d_k < 1 || h->d_k > 256 || h->d_v < 1 || h->d_v > 256 || h->projections < 1 || h->projections > FVI_SIMHASH_MOST) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "HyperAttention: widths %lld and %lld go from 1 to 256, projections, %lld, from 1 to %d",
                        (long long)h->d_k, (long long)h->d_v, (long long)h->projections, FVI_SIMHASH_MOST);
    }
    if (h->block < 1 || h->block > 1 << 24 || h->samples < 0 || h->samples > 1 << 24 || h->least < 1 || !(h->scale >= 0)) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "HyperAttention: block %lld and least %lld are 1 at least, samples %lld and scale %g not negative",
                        (long long)h->block, (long long)h->least, (long long)h->samples, (double)h->scale);
    }
    return FV_OK;
}

static double scale_of(const fv_hyper *h) { return h->scale > 0 ? (double)h->scale : 1 / sqrt((double)h->d_k); }

/* The given projections, or those of the seed in `room`. */
static const float *projection_of(const fv_hyper *h, float *room) {
    if (h->projection != NULL) {
        return h->projection;
    }
    fvi_simhash_project(h->seed, h->d_k * h->projections, room);
    return room;
}

fv_status fv_hyper_attention(fv_context *ctx, const fv_hyper *h, const float *q, const float *k, const float *v, float *out,
                             float *lse) {
    fv_status status = check(ctx, h);
    if (status != FV_OK || h->n_q == 0) {
        return status;
    }
    bench none = {0};
    job w = {.h = h, .q = q, .k = k, .v = v, .out = out, .lse = lse, .bytes = lay_out(h, NULL, &none)};
    w.scale = (float)(scale_of(h) * M_LOG2E);
    float room[256 * FVI_SIMHASH_MOST];
    w.projection = projection_of(h, room);
    w.scratch = fvi_alloc(ctx, (size_t)fv_threads(ctx), w.bytes);
    if (w.scratch == NULL) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "HyperAttention: no memory for %lld rows", (long long)h->n_q);
    }
    fvi_tile_init(&ctx->cpu, &w.ops);
    fvi_parallel(ctx, h->h_q, one_head, &w);
    fvi_release(ctx, w.scratch, (size_t)fv_threads(ctx), w.bytes);
    return FV_OK;
}

/* One query's scores, its largest, and the logarithm of what it gives to keys outside its block. */
static double outside(const fv_hyper *h, const float *q, const float *k, const int32_t *k_place, int64_t block, double *score) {
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < h->n_kv; j++) {
        score[j] = 0;
        for (int64_t c = 0; c < h->d_k; c++) {
            score[j] += (double)q[c] * (double)k[j * h->d_k + c];
        }
        score[j] *= scale_of(h);
        top = score[j] > top ? score[j] : top;
    }
    for (int64_t j = 0; j < h->n_kv; j++) {
        sum += k_place[j] / h->block == block ? 0 : exp(score[j] - top);
    }
    double all = 0;
    for (int64_t j = 0; j < h->n_kv; j++) {
        score[j] = exp(score[j] - top);
        all += score[j];
    }
    for (int64_t j = 0; j < h->n_kv; j++) {
        score[j] /= all;
    }
    return top + log(sum);
}

static void measure(const fv_hyper *h, const float *projection, const float *q, const float *k, bench *b, double *column,
                    double *score, fv_hyper_report *out) {
    const int64_t row_block = fvi_ceil_div(fvi_round_up(h->n_q, h->block), fvi_ceil_div(h->n_kv, h->block));
    hash_rows(h, projection, q, h->n_q, b->q_hash);
    hash_rows(h, projection, k, h->n_kv, b->k_hash);
    fvi_simhash_sort(b->q_hash, h->projections, 0, h->n_q, b->q_order);
    fvi_simhash_sort(b->k_hash, h->projections, 0, h->n_kv, b->k_order);
    for (int64_t r = 0; r < h->n_kv; r++) {
        b->same[b->k_order[r]] = (int32_t)r;
        column[r] = 0;
    }
    double least = INFINITY, most = -INFINITY, kept = 0;
    for (int64_t r = 0; r < h->n_q; r++) {
        double rest = outside(h, q + b->q_order[r] * h->d_k, k, b->same, r / row_block, score);
        least = rest < least ? rest : least;
        most = rest > most ? rest : most;
        for (int64_t j = 0; j < h->n_kv; j++) {
            column[j] += score[j] * score[j];
            kept += b->same[j] / h->block == r / row_block ? score[j] / (double)h->n_q : 0;
        }
    }
    *out = (fv_hyper_report){.kappa = exp(most - least), .block_mass = kept};
    for (int64_t j = 0; j < h->n_kv; j++) {
        out->alpha = fmax(out->alpha, (double)h->n_kv * column[j]);
    }
}

fv_status fv_hyper_measure(fv_context *ctx, const fv_hyper *h, int64_t head, const float *q, const float *k,
                           fv_hyper_report *out) {
    fv_status status = check(ctx, h);
    if (status != FV_OK || h->n_q == 0 || head < 0 || head >= h->h_q) {
        return status != FV_OK ? status
                               : fvi_fail(ctx, FV_ERR_RANGE, "HyperAttention: head %lld of %lld, %lld queries", (long long)head,
                                          (long long)h->h_q, (long long)h->n_q);
    }
    bench b = {0};
    size_t bytes = lay_out(h, NULL, &b);
    uint8_t *scratch = fvi_alloc(ctx, 1, bytes);
    double *numbers = fvi_alloc(ctx, (size_t)(2 * h->n_kv), sizeof *numbers);
    if (scratch == NULL || numbers == NULL) {
        status = fvi_fail(ctx, FV_ERR_MEMORY, "HyperAttention: no memory for %lld rows", (long long)h->n_q);
    } else {
        float room[256 * FVI_SIMHASH_MOST];
        lay_out(h, scratch, &b);
        measure(h, projection_of(h, room), q + head * h->n_q * h->d_k, k + head / (h->h_q / h->h_kv) * h->n_kv * h->d_k, &b,
                numbers, numbers + h->n_kv, out);
    }
    fvi_release(ctx, numbers, (size_t)(2 * h->n_kv), sizeof *numbers);
    fvi_release(ctx, scratch, 1, bytes);
    return status;
}
