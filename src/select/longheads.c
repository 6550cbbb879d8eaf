/* longheads.c - each query sees whole chunks of keys: the first, its own, the one before, and those whose summaries match it
 * best, side by side at positions that the model was trained on.
 *
 * Lu et al., LongHeads: Multi-Head Attention is Secretly a Long Context Processor, 2024 (arXiv 2402.10685), section 3, and its
 * code (LuLuLuyi/LongHeads), with its defaults: chunks of 256 keys, 4096 keys seen, so 16 chunks; queries before position
 * `length` are dense. A complete chunk is summarised in two steps: its queries attend to its keys, all to all; the mean of what
 * they get, m, attends to the keys once more, with the keys for values: c = sum of softmax(m . k / sqrt(d)) k. A query takes the
 * chunks of the largest q . c. m is a mean of values, that meets keys as if it were a query: so it is in paper and code; it needs
 * d_k = d_v.
 *
 * Positions: the chosen chunks stand side by side from 0 on, and the query of a row past `length` in the last one, its own, so
 * that no distance is beyond `length`. Since scores depend on differences alone, keys stay where they are, and the query is
 * turned for each chunk to where its distance is right. Ranking is the code's: by queries without rotation, and summaries of keys
 * rotated by their place in the chunk. Where rows have no rotary positions that are known, all of this falls away, as it does in
 * a model without positions. Heads of a group have summaries of their own; the paper has no groups.
 *
 * Generated tokens choose in the same way. The code keeps their queries until a chunk is full. Here the queries of a chunk that
 * are not at hand (a second prompt over a cache) are replaced by its keys, and generated tokens take summaries of their own, for
 * which no queries are at hand: those depend on the cache alone, and a session that was saved and loaded goes on with the same
 * bits. They are kept from token to token.
 *
 * Cost: 64 queries that choose apart share a tile, which visits what any of them wants: on random queries nearly everything, and
 * then it is slower than dense (3.4 core-seconds against 2.8 at 32,768 keys, 8 heads). */
#include "select/select.h"

#include <math.h>
#include <string.h>

enum { CHUNK, LENGTH };
enum { ROWS = 64, LEAF = FVI_BLOCK * FVI_BLOCK };

/* What generated tokens keep from step to step, summaries (chunks, d_k) behind it. */
typedef struct kept {
    int64_t complete; /* chunks that are summarised */
    int64_t unused[7];
} kept;

/* In seen_state, the rows' chunks (ROWS, words) behind it. */
typedef struct rows_chunks {
    int64_t first, chunk, words;
    uint64_t *bits;
} rows_chunks;

typedef struct bench {
    float *q, *rows, *s; /* (64, d) each; (64, 64) */
    float *top, *sum, *alpha,
        *column; /* (leaves, 64) the leaves' maxima and sums; (64); (chunk) weights of keys, over all queries */
    float *mean; /* (d) */
    void *look;
    uint32_t *room; /* (2 chunks) */
    float *score;   /* (chunks) */
    int32_t *best;  /* (chunks) */
} bench;

static int64_t chunks_of(const double *value, int64_t n_kv) { return fvi_ceil_div(n_kv, (int64_t)value[CHUNK]); }

static size_t head_bytes(const double *value, const fvi_extent *e) {
    return (size_t)(chunks_of(value, e->n_kv) * e->d_k) * sizeof(float);
}

static size_t step_bytes(const double *value, const fvi_extent *e) { return sizeof(kept) + head_bytes(value, e); }

static size_t seen_bytes(const double *value, const fvi_extent *e) {
    return 64 + (size_t)(ROWS * fvi_ceil_div(chunks_of(value, e->n_kv), 64)) * sizeof(uint64_t);
}

static void *take(uint8_t **at, int64_t floats) {
    void *here = *at;
    *at += fvi_round_up(4 * floats, 64);
    return here;
}

static bench lay_out(const double *value, int64_t n_kv, int64_t d_k, int64_t d_v, uint8_t *at, size_t *bytes) {
    uint8_t *start = at;
    int64_t chunks = chunks_of(value, n_kv), chunk = (int64_t)value[CHUNK], leaves = chunk / FVI_BLOCK;
    int64_t d = fvi_max(d_k, d_v);
    bench x = {.q = take(&at, ROWS * d), .rows = take(&at, ROWS * d)};
    x.s = take(&at, LEAF * leaves);
    x.top = take(&at, leaves * ROWS);
    x.sum = take(&at, leaves * ROWS);
    x.alpha = take(&at, ROWS);
    x.column = take(&at, chunk);
    x.mean = take(&at, d);
    x.room = take(&at, 2 * chunks);
    x.score = take(&at, chunks);
    x.best = take(&at, chunks);
    x.look = at;
    *bytes = (size_t)(at - start) + fvi_look_bytes(ROWS, d_k, d_v);
    return x;
}

static size_t scratch_bytes(const double *value, const fvi_extent *e) {
    size_t bytes;
    lay_out(value, e->n_kv, e->d_k, e->d_v, (uint8_t *)(uintptr_t)64, &bytes);
    return bytes;
}

static bench open_bench(const fvi_select *s) {
    size_t bytes;
    return lay_out(s->value, s->sight->n_kv, s->sight->d_k, s->sight->d_v, s->scratch, &bytes);
}

/* ---- summaries ---- */

/* column (chunk) += the weights of the chunk's keys for 64 of its queries, from row `from`. */
static void add_weights(const fvi_select *s, int64_t begin, int64_t from, bool queries, bench *x) {
    const fvi_sight *sight = s->sight;
    int64_t leaves = (int64_t)s->value[CHUNK] / FVI_BLOCK, row = begin + from - sight->offset;
    bool there = queries && row >= 0 && row + ROWS <= sight->n_q;
    sight->rows(sight, there ? FVI_SIDE_Q : FVI_SIDE_K, there ? row : begin + from, ROWS, x->q);
    fvi_look look = fvi_look_open(sight, x->q, ROWS, x->look);
    for (int64_t l = 0; l < leaves; l++) {
        float *top = x->top + l * ROWS, *sum = x->sum + l * ROWS;
        for (int r = 0; r < ROWS; r++) {
            top[r] = -INFINITY;
            sum[r] = 0;
        }
        fvi_look_scores(&look, begin / FVI_BLOCK + l, sight->scale * (float)M_LOG2E, x->s + l * LEAF);
        sight->plain->soften(x->s + l * LEAF, ROWS, top, sum, x->alpha);
    }
    for (int r = 0; r < ROWS; r++) {
        float most = x->top[r], total = 0;
        for (int64_t l = 1; l < leaves; l++) {
            most = fmaxf(most, x->top[l * ROWS + r]);
        }
        for (int64_t l = 0; l < leaves; l++) {
            total += x->sum[l * ROWS + r] * exp2f(x->top[l * ROWS + r] - most);
        }
        for (int64_t l = 0; l < leaves; l++) {
            float weight = exp2f(x->top[l * ROWS + r] - most) / total;
            for (int j = 0; j < FVI_BLOCK; j++) {
                x->column[l * FVI_BLOCK + j] += weight * x->s[l * LEAF + r * FVI_BLOCK + j];
            }
        }
    }
}

/* out (d) = sum of weight[j] times row begin + j of a side. */
static void mix(const fvi_select *s, fvi_side side, int64_t begin, const float *weight, int64_t n, bench *x, float *out) {
    int64_t d = side == FVI_SIDE_V ? s->sight->d_v : s->sight->d_k;
    memset(out, 0, (size_t)d * sizeof *out);
    for (int64_t j = 0; j < n; j++) {
        if (j % ROWS == 0) {
            s->sight->rows(s->sight, side, begin + j, fvi_min(ROWS, n - j), x->rows);
        }
        for (int64_t c = 0; c < d; c++) {
            out[c] += weight[j] * x->rows[j % ROWS * d + c];
        }
    }
}

static void summarise(const fvi_select *s, int64_t b, bool queries, bench *x, float *summary) {
    const fvi_sight *sight = s->sight;
    int64_t chunk = (int64_t)s->value[CHUNK], begin = b * chunk, d = sight->d_k;
    memset(x->column, 0, (size_t)chunk * sizeof *x->column);
    for (int64_t from = 0; from < chunk; from += ROWS) {
        add_weights(s, begin, from, queries, x);
    }
    for (int64_t j = 0; j < chunk; j++) {
        x->column[j] /= (float)chunk;
    }
    mix(s, FVI_SIDE_V, begin, x->column, chunk, x, x->mean);
    if (sight->turn != NULL) { /* it meets keys that stand at their places in the chunk */
        sight->turn(sight, begin, 1, x->mean);
    }
    float most = -INFINITY, total = 0;
    for (int64_t j = 0; j < chunk; j++) {
        if (j % ROWS == 0) {
            sight->rows(sight, FVI_SIDE_K, begin + j, ROWS, x->rows);
        }
        float dot = 0;
        for (int64_t c = 0; c < d; c++) {
            dot += x->mean[c] * x->rows[j % ROWS * d + c];
        }
        x->column[j] = dot / sqrtf((float)d);
        most = fmaxf(most, x->column[j]);
    }
    for (int64_t j = 0; j < chunk; j++) {
        x->column[j] = expf(x->column[j] - most);
        total += x->column[j];
    }
    for (int64_t j = 0; j < chunk; j++) {
        x->column[j] /= total;
    }
    mix(s, FVI_SIDE_K, begin, x->column, chunk, x, summary);
    if (sight->turn != NULL) {
        sight->turn(sight, -begin, 1, summary);
    }
}

static void prepare(const fvi_select *s) {
    bench x = open_bench(s);
    float *summary = s->head_state;
    int64_t complete = s->sight->n_kv / (int64_t)s->value[CHUNK];
    for (int64_t b = 0; b < complete; b++) {
        summarise(s, b, true, &x, summary + b * s->sight->d_k);
    }
}

static void prepare_step(const fvi_select *s) {
    bench x = open_bench(s);
    kept *state = s->head_state;
    float *summary = (float *)(state + 1);
    int64_t complete = s->sight->n_kv / (int64_t)s->value[CHUNK];
    for (int64_t b = s->sight->step == 0 ? 0 : state->complete; b < complete; b++) {
        summarise(s, b, false, &x, summary + b * s->sight->d_k);
    }
    state->complete = complete;
}

/* ---- what a query takes ---- */

static void take_chunk(uint64_t *bits, int64_t b) { bits[b / 64] |= UINT64_C(1) << (b % 64); }

static void choose(const fvi_select *s, const float *summary, int64_t position, float *q, bench *x, uint64_t *bits) {
    int64_t chunk = (int64_t)s->value[CHUNK], own = position / chunk, count = (int64_t)s->value[LENGTH] / chunk;
    if (position < (int64_t)s->value[LENGTH]) {
        for (int64_t b = 0; b <= own; b++) {
            take_chunk(bits, b);
        }
        return;
    }
    take_chunk(bits, 0);
    take_chunk(bits, own);
    take_chunk(bits, own - 1);
    if (s->sight->turn != NULL) {
        s->sight->turn(s->sight, -position, 1, q);
    }
    for (int64_t b = 1; b < own - 1; b++) {
        x->score[b - 1] = 0;
        for (int64_t c = 0; c < s->sight->d_k; c++) {
            x->score[b - 1] += q[c] * summary[b * s->sight->d_k + c];
        }
    }
    int64_t more = fvi_min(count - 3, own - 2);
    s->sight->sift->top(x->score, own - 2, more, x->room, x->best);
    for (int64_t i = 0; i < more; i++) {
        take_chunk(bits, x->best[i] + 1);
    }
}

static uint64_t seen(const void *arg, int64_t position, int64_t block) {
    const rows_chunks *r = arg;
    int64_t b = block * FVI_BLOCK / r->chunk;
    return r->bits[(position - r->first) * r->words + b / 64] >> (b % 64) & 1 ? UINT64_MAX : 0;
}

/* Where the query at `position` stands for keys of `block`, which stay where they are: as far from them as if the row's chunks
 * stood side by side and it in the last one. */
static int64_t place(const fvi_places *places, int64_t position, int64_t block, int64_t *set) {
    const rows_chunks *r = places->arg;
    const int64_t b = block * FVI_BLOCK / r->chunk;
    const uint64_t *bits = r->bits + (position - r->first) * r->words;
    *set = 0;
    if (!(bits[b / 64] >> (b % 64) & 1)) {
        return FVI_NOWHERE;
    }
    int64_t after = fvi_count_bits(bits[b / 64] >> (b % 64)) - 1; /* of its chunks */
    for (int64_t w = b / 64 + 1; w < r->words; w++) {
        after += fvi_count_bits(bits[w]);
    }
    return (b + after) * r->chunk + position % r->chunk;
}

static void fill(const fvi_select *s, const float *summary, const fvi_query_tile *q, fvi_index *index) {
    const fvi_sight *sight = s->sight;
    bench x = open_bench(s);
    rows_chunks *r = s->seen_state;
    int64_t chunks = chunks_of(s->value, sight->n_kv);
    *r = (rows_chunks){q->first, (int64_t)s->value[CHUNK], fvi_ceil_div(chunks, 64), (uint64_t *)((uint8_t *)s->seen_state + 64)};
    memset(r->bits, 0, (size_t)(ROWS * r->words) * sizeof *r->bits);
    int64_t first = fvi_max(fvi_max(q->first, sight->offset), 0);
    int64_t last = fvi_min(fvi_min(q->last, sight->offset + sight->n_q - 1), sight->n_kv - 1);
    for (int64_t i = first; i <= last; i++) {
        sight->rows(sight, FVI_SIDE_Q, i - sight->offset, 1, x.q);
        choose(s, summary, i, x.q, &x, r->bits + (i - q->first) * r->words);
    }
    index->seen = seen;
    index->seen_arg = r;
    if (sight->turn != NULL) {
        index->places = (fvi_places){.query = place, .arg = r, .n_kv = q->n_kv};
    }
    for (int64_t b = 0; b < chunks; b++) {
        int64_t rows = 0;
        for (int64_t i = first; i <= last; i++) {
            rows += (int64_t)(r->bits[(i - q->first) * r->words + b / 64] >> (b % 64) & 1);
        }
        for (int64_t block = b * r->chunk / FVI_BLOCK; rows > 0 && block < fvi_min((b + 1) * r->chunk / FVI_BLOCK, index->blocks);
             block++) {
            if (rows == last + 1 - first) {
                fvi_index_add_block(index, block);
            } else {
                fvi_index_add_apart(index, block, UINT64_MAX);
            }
        }
    }
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) { fill(s, s->head_state, q, index); }

static void tile_step(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    fill(s, (const float *)((const kept *)s->head_state + 1), q, index);
}

static const char *refuse(const double *value, const fvi_extent *e) {
    int64_t chunk = (int64_t)value[CHUNK];
    if (chunk % FVI_BLOCK != 0) {
        return "chunk has to be a multiple of 64";
    }
    if ((int64_t)value[LENGTH] < 3 * chunk) {
        return "length has to be 3 chunks at least: the first, a query's own and the one before are always seen";
    }
    if (e->rotary && e->trained > 0 && (int64_t)value[LENGTH] > e->trained) {
        return "length is more than the positions the model was trained on: give fewer, that queries and keys stand at";
    }
    if (e->d_k != e->d_v) {
        return "a mean of values meets keys: K and V have to be of one width";
    }
    return e->causal ? NULL : "a query's own chunk is its last: it needs a causal problem";
}

const fvi_selector fvi_select_longheads = {.query_block = ROWS,
                                           .scope = FVI_SCOPE_PROMPT,
                                           .head_bytes = head_bytes,
                                           .scratch_bytes = scratch_bytes,
                                           .seen_bytes = seen_bytes,
                                           .prepare = prepare,
                                           .tile = tile,
                                           .places = true,
                                           .refuse = refuse};

/* For generated tokens. */
const fvi_selector fvi_select_longheads_step = {.query_block = ROWS,
                                                .scope = FVI_SCOPE_PROMPT,
                                                .head_bytes = step_bytes,
                                                .scratch_bytes = scratch_bytes,
                                                .seen_bytes = seen_bytes,
                                                .prepare = prepare_step,
                                                .tile = tile_step,
                                                .steps = true,
                                                .places = true,
                                                .refuse = refuse};
