/* lsg_pool.c - see lsg_pool.h.
 *
 * Condevaux, Harispe: LSG Attention, PAKDD 2023, in the form of its code (modeling_lsg_bert.py, get_sparse_tokens_with_*):
 *   pooling      means over `factor` keys, and over their values
 *   bos-pooling  instead of means, mixes by the softmax of the scores that the first query after the globals has within the group
 *   lsh          in chunks of min(block, sparse) = t keys, `rounds` rounds of t buckets and one of t / factor: of a bucket, the
 * sum of its keys is hashed on; at last the means of all keys that came together. A hash is the largest of t / 2 (or t / factor /
 * 2) random products and their negatives. A bucket without keys is not there. With factor = sparse the code takes bos-pooling,
 * and so does this.
 *
 * A pooled token counts as one key, as in the paper; `mass` = 1, which is ours, gives it the weight of the keys it stands for.
 * Deviations: projections are functions of seed, head and round, where the code draws them anew in each call; the last group or
 * chunk has the keys that are there (the code divides by a sum of masks and 1e-6); the softmax of bos-pooling takes the problem's
 * scale. */
#include "select/lsg_pool.h"

#include "kernel/simhash.h"

#include <math.h>
#include <string.h>

enum { MOST_HASHED = 4096 };

/* Some rows of K and of V, sums of `count` keys each. */
typedef struct sums {
    float *k, *v;
    int32_t *count;
} sums;

static int64_t globals_of(const double *value) { return (int64_t)value[4]; }
static int64_t factor_of(const double *value) { return (int64_t)value[2]; }

static int64_t reduction_of(const double *value) {
    const int64_t reduction = (int64_t)value[3];
    return reduction == FVI_LSG_LSH && factor_of(value) == (int64_t)value[1] ? FVI_LSG_BOS_POOLING : reduction;
}

bool fvi_lsg_pools(const double *value) {
    return (int64_t)value[1] > 0 && factor_of(value) > 1 && reduction_of(value) >= FVI_LSG_POOLING;
}

/* Entries of n keys. Chunks are multiples of the factor. */
static int64_t entries_of(const double *value, int64_t n) {
    const int64_t keys = fvi_max(0, n - globals_of(value)), factor = factor_of(value);
    return reduction_of(value) == FVI_LSG_LSH ? fvi_ceil_div(keys, fvi_lsg_chunk(value)) * (fvi_lsg_chunk(value) / factor)
                                              : fvi_ceil_div(keys, factor);
}

/* ---- memory ---- */

/* Of n entries. */
typedef struct room {
    float *k, *v, *log_weight;
    int32_t *position;
} room;

static size_t aligned(int64_t numbers) { return (size_t)fvi_round_up(numbers * (int64_t)sizeof(float), 64); }

static size_t room_bytes(int64_t n, int64_t d_k, int64_t d_v) { return aligned(n * d_k) + aligned(n * d_v) + 2 * aligned(n); }

static room room_at(int64_t n, int64_t d_k, int64_t d_v, void *memory) {
    uint8_t *k = memory, *v = k + aligned(n * d_k), *position = v + aligned(n * d_v);
    return (room){(float *)k, (float *)v, (float *)(position + aligned(n)), (int32_t *)position};
}

size_t fvi_lsg_pool_bytes(const double *value, const fvi_extent *extent) {
    return fvi_lsg_pools(value) ? room_bytes(entries_of(value, extent->n_kv), extent->d_k, extent->d_v) : 0;
}

/* Numbers of one round's projections. */
static int64_t projections_of(const double *value, int64_t d_k) { return fvi_lsg_chunk(value) / 2 * d_k; }

/* Lists that a chunk's keys wander between, products of one of them, and the rounds' projections. */
typedef struct bench {
    sums list[2];
    float *product;
    float *projection;
} bench;

static size_t list_bytes(int64_t t, int64_t d_k, int64_t d_v) { return aligned(t * d_k) + aligned(t * d_v) + aligned(t); }

static size_t bench_bytes(const double *value, int64_t d_k, int64_t d_v) {
    const int64_t t = fvi_lsg_chunk(value), rounds = (int64_t)value[5] + 1;
    return 2 * list_bytes(t, d_k, d_v) + aligned(t) + aligned(rounds * projections_of(value, d_k));
}

static bench bench_at(const double *value, int64_t d_k, int64_t d_v, void *memory) {
    const int64_t t = fvi_lsg_chunk(value);
    uint8_t *at = memory;
    bench b;
    for (int i = 0; i < 2; i++, at += list_bytes(t, d_k, d_v)) {
        uint8_t *v = at + aligned(t * d_k);
        b.list[i] = (sums){(float *)at, (float *)v, (int32_t *)(v + aligned(t * d_v))};
    }
    b.product = (float *)at;
    b.projection = (float *)(at + aligned(t));
    return b;
}

size_t fvi_lsg_pool_scratch(const double *value, const fvi_extent *extent) {
    if (!fvi_lsg_pools(value)) {
        return 0;
    }
    return reduction_of(value) == FVI_LSG_LSH ? bench_bytes(value, extent->d_k, extent->d_v)
                                              : (size_t)(FVI_BLOCK * (extent->d_k + extent->d_v) + extent->d_k) * sizeof(float);
}

const char *fvi_lsg_pool_refuse(const double *value) {
    if (!fvi_lsg_pools(value) || reduction_of(value) != FVI_LSG_LSH) {
        return NULL;
    }
    if (fvi_lsg_chunk(value) > MOST_HASHED) {
        return "lsg: with lsh, block or sparse must be 4096 at most";
    }
    return fvi_lsg_chunk(value) / factor_of(value) < 2 ? "lsg: with lsh, factor must be half of block and of sparse at most"
                                                       : NULL;
}

/* ---- groups of neighbours ---- */

/* A mix that grows: weights are exp(score - top). */
typedef struct mix {
    float top, sum;
    float *k, *v;
} mix;

static void scale_by(float by, int64_t d, float *x) {
    for (int64_t c = 0; c < d; c++) {
        x[c] *= by;
    }
}

static void add_times(float w, const float *x, int64_t d, float *out) {
    for (int64_t c = 0; c < d; c++) {
        out[c] += w * x[c];
    }
}

static float dot(const float *a, const float *b, int64_t d) {
    float sum = 0;
    for (int64_t c = 0; c < d; c++) {
        sum += a[c] * b[c];
    }
    return sum;
}

static void mix_in(const fvi_sight *sight, float score, const float *k, const float *v, mix *m) {
    const float top = fmaxf(m->top, score), by = m->sum > 0 ? expf(m->top - top) : 0, w = expf(score - top);
    if (by != 1) {
        scale_by(by, sight->d_k, m->k);
        scale_by(by, sight->d_v, m->v);
    }
    m->sum = m->sum * by + w;
    m->top = top;
    add_times(w, k, sight->d_k, m->k);
    add_times(w, v, sight->d_v, m->v);
}

/* Mixes keys from..to - 1 by the scores of q, or evenly. */
static void pool_group(const fvi_select *s, const float *q, int64_t from, int64_t to, float *rows, mix *m) {
    const fvi_sight *sight = s->sight;
    float *k = rows, *v = rows + FVI_BLOCK * sight->d_k;
    for (int64_t at = from, n; at < to; at += n) {
        n = fvi_min(FVI_BLOCK, to - at);
        sight->rows(sight, FVI_SIDE_K, at, n, k);
        sight->rows(sight, FVI_SIDE_V, at, n, v);
        for (int64_t j = 0; j < n; j++) {
            const float *key = k + j * sight->d_k;
            mix_in(sight, q == NULL ? 0 : sight->scale * dot(q, key, sight->d_k), key, v + j * sight->d_v, m);
        }
    }
    scale_by(1 / m->sum, sight->d_k, m->k);
    scale_by(1 / m->sum, sight->d_v, m->v);
}

/* The first query after the globals, of those that are there. */
static const float *first_query(const fvi_select *s, float *q) {
    const fvi_sight *sight = s->sight;
    const int64_t row = fvi_max(globals_of(s->value) - sight->offset, 0);
    if (reduction_of(s->value) == FVI_LSG_POOLING || sight->n_q == 0) {
        return NULL;
    }
    sight->rows(sight, FVI_SIDE_Q, fvi_min(row, sight->n_q - 1), 1, q);
    return q;
}

static void pool_groups(const fvi_select *s, int64_t n, const room *to) {
    const fvi_sight *sight = s->sight;
    float *rows = s->scratch, *q_room = rows + FVI_BLOCK * (sight->d_k + sight->d_v);
    const float *q = first_query(s, q_room);
    memset(to->k, 0, (size_t)(n * sight->d_k) * sizeof *to->k);
    memset(to->v, 0, (size_t)(n * sight->d_v) * sizeof *to->v);
    for (int64_t e = 0; e < n; e++) {
        const int64_t from = globals_of(s->value) + e * factor_of(s->value);
        const int64_t end = fvi_min(from + factor_of(s->value), sight->n_kv);
        pool_group(s, q, from, end, rows, &(mix){-INFINITY, 0, to->k + e * sight->d_k, to->v + e * sight->d_v});
        to->position[e] = (int32_t)(end - 1);
        to->log_weight[e] = s->value[7] != 0 ? log2f((float)(end - from)) : 0;
    }
}

/* ---- keys that hash alike ---- */

static void project(const fvi_select *s, int64_t round, int64_t n, float *out) {
    const uint64_t of_head = fvi_simhash_mix(fvi_simhash_mix((uint64_t)s->value[6]) + (uint64_t)s->sight->head);
    fvi_simhash_project(fvi_simhash_mix(of_head + (uint64_t)round), n, out);
}

/* The bucket of a key, of 2 x hashes: where the largest of its products and their negatives stands. */
static int64_t bucket(const float *k, int64_t d, const float *projection, int64_t hashes, float *product) {
    memset(product, 0, (size_t)hashes * sizeof *product);
    for (int64_t c = 0; c < d; c++) {
        add_times(k[c], projection + c * hashes, hashes, product);
    }
    int64_t most = 0, least = 0;
    for (int64_t r = 1; r < hashes; r++) {
        most = product[r] > product[most] ? r : most;
        least = product[r] < product[least] ? r : least;
    }
    return product[most] >= -product[least] ? most : hashes + least;
}

static void empty(const fvi_sight *sight, const sums *list, int64_t n) {
    memset(list->k, 0, (size_t)(n * sight->d_k) * sizeof *list->k);
    memset(list->v, 0, (size_t)(n * sight->d_v) * sizeof *list->v);
    memset(list->count, 0, (size_t)n * sizeof *list->count);
}

static void hash_on(const fvi_sight *sight, const sums *from, int64_t n, const float *projection, int64_t buckets, float *product,
                    const sums *to) {
    empty(sight, to, buckets);
    for (int64_t j = 0; j < n; j++) {
        if (from->count[j] > 0) {
            const float *k = from->k + j * sight->d_k;
            const int64_t b = bucket(k, sight->d_k, projection, buckets / 2, product);
            add_times(1, k, sight->d_k, to->k + b * sight->d_k);
            add_times(1, from->v + j * sight->d_v, sight->d_v, to->v + b * sight->d_v);
            to->count[b] += from->count[j];
        }
    }
}

static const sums *hash_chunk(const fvi_select *s, const bench *b, int64_t first, int64_t there) {
    const fvi_sight *sight = s->sight;
    const int64_t t = fvi_lsg_chunk(s->value), rounds = (int64_t)s->value[5], numbers = projections_of(s->value, sight->d_k);
    const sums *from = &b->list[0], *to = &b->list[1];
    sight->rows(sight, FVI_SIDE_K, first, there, from->k);
    sight->rows(sight, FVI_SIDE_V, first, there, from->v);
    for (int64_t j = 0; j < t; j++) {
        from->count[j] = j < there;
    }
    for (int64_t round = 0; round <= rounds; round++) {
        const int64_t buckets = round < rounds ? t : t / factor_of(s->value);
        hash_on(sight, from, t, b->projection + round * numbers, buckets, b->product, to);
        const sums *swap = from;
        from = to;
        to = swap;
    }
    return from;
}

static void pool_hashed(const fvi_select *s, int64_t n, const room *to) {
    const fvi_sight *sight = s->sight;
    const int64_t t = fvi_lsg_chunk(s->value), left = t / factor_of(s->value), rounds = (int64_t)s->value[5];
    const bench b = bench_at(s->value, sight->d_k, sight->d_v, s->scratch);
    for (int64_t round = 0; round <= rounds; round++) {
        const int64_t hashes = (round < rounds ? t : left) / 2;
        project(s, round, hashes * sight->d_k, b.projection + round * projections_of(s->value, sight->d_k));
    }
    for (int64_t e = 0; e < n; e += left) {
        const int64_t first = globals_of(s->value) + e / left * t, there = fvi_min(t, sight->n_kv - first);
        const sums *list = hash_chunk(s, &b, first, there);
        for (int64_t i = 0; i < left; i++) {
            const float count = (float)list->count[i], by = count > 0 ? 1 / count : 0;
            scale_by(by, sight->d_k, list->k + i * sight->d_k);
            scale_by(by, sight->d_v, list->v + i * sight->d_v);
            to->position[e + i] = (int32_t)(first + there - 1);
            to->log_weight[e + i] = count == 0 ? -INFINITY : s->value[7] != 0 ? log2f(count) : 0;
        }
        memcpy(to->k + e * sight->d_k, list->k, (size_t)(left * sight->d_k) * sizeof *to->k);
        memcpy(to->v + e * sight->d_v, list->v, (size_t)(left * sight->d_v) * sizeof *to->v);
    }
}

void fvi_lsg_pool(const fvi_select *s, void *memory, fvi_entries *out) {
    const int64_t n = entries_of(s->value, s->sight->n_kv);
    const room to = room_at(n, s->sight->d_k, s->sight->d_v, memory);
    const bool hashed = reduction_of(s->value) == FVI_LSG_LSH;
    (hashed ? pool_hashed : pool_groups)(s, n, &to);
    *out = (fvi_entries){
        .n = n, .k = to.k, .v = to.v, .position = to.position, .log_weight = hashed || s->value[7] != 0 ? to.log_weight : NULL};
}
