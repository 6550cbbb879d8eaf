/* lsg.c - LSG attention: local blocks, sparse keys beyond them, global keys.
 *
 * Condevaux, Harispe: LSG Attention: Extrapolation of pretrained Transformers to long sequences, PAKDD 2023;
 * ccdv-ai/convert_checkpoint_to_lsg (modeling_lsg_bert.py), whose form is here. The first `globals` positions see all and are
 * seen by all; the rest is cut into blocks of B. A row sees its own block and the two beside it; beyond those, on either side,
 * `sparse` keys that are left of sparse x f keys, one of f. Which one, `reduction` says:
 *   0 norm          in chunks of min(B, sparse) keys, the 1/f of largest norm (ties: the earlier key)
 *   1 stride        head h the keys with number mod f = h mod f
 *   2 block-stride  head h a run of B/f keys of each block, the (h mod f)-th
 *   3 pooling, 4 bos-pooling, 5 lsh: means of keys and of their values in their place, entries that are no keys (lsg_pool.h)
 * A head is a query head. Causal: own block and the one before it, sparse keys to the left; the code copies the queries of global
 * positions to the output there, here they see what is before them. With f = 1 every reduction leaves all keys.
 *
 * Where B/f is odd the code's right side begins two sparse keys too early; here it begins where the left side's mirror image
 * does. */
#include "select/lsg_pool.h"
#include "select/pattern.h"

typedef struct head {
    int64_t block, reach, factor, globals; /* reach: keys beyond the local blocks of which 1 / factor are seen */
    bool causal;
    uint64_t *sparse; /* (blocks of 64) the keys that are left */
    fvi_entries pooled;
} head;

static int64_t chunk_of(const double *value) { return fvi_lsg_chunk(value); }

static size_t sparse_bytes(const fvi_extent *extent) {
    return (size_t)fvi_round_up(fvi_ceil_div(extent->n_kv, FVI_BLOCK) * (int64_t)sizeof(uint64_t), 64);
}

static size_t head_bytes(const double *value, const fvi_extent *extent) {
    return (size_t)fvi_round_up(sizeof(head), 64) + sparse_bytes(extent) + fvi_lsg_pool_bytes(value, extent);
}

static size_t scratch_bytes(const double *value, const fvi_extent *extent) {
    const size_t norm = (size_t)(FVI_BLOCK * extent->d_k + fvi_min(chunk_of(value), extent->n_kv)) * sizeof(float);
    const size_t pool = fvi_lsg_pool_scratch(value, extent);
    return norm > pool ? norm : pool;
}

/* ---- the keys that are left ---- */

/* Squared, of keys first..first + n - 1. */
static void norms(const fvi_select *s, int64_t first, int64_t n, float *norm) {
    float *row = s->scratch;
    int64_t d = s->sight->d_k;
    for (int64_t from = 0, rows; from < n; from += rows) {
        rows = fvi_min(FVI_BLOCK, n - from);
        s->sight->rows(s->sight, FVI_SIDE_K, first + from, rows, row);
        for (int64_t j = 0; j < rows; j++) {
            float sum = 0;
            for (int64_t c = 0; c < d; c++) {
                sum += row[j * d + c] * row[j * d + c];
            }
            norm[from + j] = sum;
        }
    }
}

/* Of keys first..first + n - 1 at most `keep`. */
static void keep_norm(const fvi_select *s, head *h, int64_t first, int64_t n, int64_t keep) {
    float *norm = (float *)s->scratch + FVI_BLOCK * s->sight->d_k;
    norms(s, first, n, norm);
    for (int64_t j = 0; j < n; j++) {
        int32_t before = 0;
        for (int64_t k = 0; k < j; k++) {
            before += norm[k] >= norm[j];
        }
        for (int64_t k = j + 1; k < n; k++) {
            before += norm[k] > norm[j];
        }
        if (before < keep) {
            h->sparse[(first + j) / FVI_BLOCK] |= UINT64_C(1) << ((first + j) % FVI_BLOCK);
        }
    }
}

static void keep_by_norm(const fvi_select *s, head *h) {
    int64_t chunk = chunk_of(s->value), n_kv = s->sight->n_kv;
    for (int64_t first = h->globals; first < n_kv; first += chunk) {
        keep_norm(s, h, first, fvi_min(chunk, n_kv - first), chunk / h->factor);
    }
}

static void keep_by_number(const fvi_select *s, head *h, bool runs) {
    int64_t turn = s->sight->head % h->factor, run = h->block / h->factor;
    for (int64_t j = h->globals; j < s->sight->n_kv; j++) {
        int64_t number = j - h->globals;
        bool kept = runs ? number % h->block / run == turn : number % h->factor == turn;
        h->sparse[j / FVI_BLOCK] |= (uint64_t)kept << (j % FVI_BLOCK);
    }
}

/* The first key of the block that the row is in. */
static int64_t own_block(const head *h, int64_t position) {
    return fvi_pattern_floor(position - h->globals, h->block) + h->globals;
}

/* Pooled entries that stand for keys from .. to - 1, which are multiples of a block from the globals on. */
static fvi_span pooled_span(const head *h, int64_t from, int64_t to) {
    const int64_t first = (fvi_max(from, h->globals) - h->globals) / h->factor;
    return (fvi_span){first, fvi_max(first, fvi_min((fvi_max(to, h->globals) - h->globals) / h->factor, h->pooled.n))};
}

static uint64_t seen_pooled(const void *arg, int64_t position, int64_t leaf) {
    const head *h = arg;
    if (position < h->globals) {
        return 0;
    }
    const int64_t from = own_block(h, position) - h->block, to = from + 3 * h->block;
    const fvi_span left = pooled_span(h, from - h->reach, from), right = pooled_span(h, to, to + h->reach);
    return fvi_pattern_bits(leaf, left.from, left.to) | fvi_pattern_bits(leaf, right.from, right.to);
}

static void prepare(const fvi_select *s) {
    head *h = s->head_state;
    *h = (head){.block = (int64_t)s->value[0],
                .reach = (int64_t)s->value[1] * (int64_t)s->value[2],
                .factor = (int64_t)s->value[2],
                .globals = (int64_t)s->value[4],
                .causal = s->sight->causal,
                .sparse = (uint64_t *)((uint8_t *)h + fvi_round_up(sizeof(head), 64))};
    const int64_t blocks = fvi_ceil_div(s->sight->n_kv, FVI_BLOCK);
    for (int64_t b = 0; b < blocks; b++) {
        h->sparse[b] = 0;
    }
    if (fvi_lsg_pools(s->value)) {
        fvi_lsg_pool(s, (uint8_t *)h->sparse + fvi_round_up(blocks * (int64_t)sizeof(uint64_t), 64), &h->pooled);
        h->pooled.seen = seen_pooled;
        h->pooled.arg = h;
    } else if (h->reach > 0 && ((int64_t)s->value[3] == FVI_LSG_NORM || h->factor == 1)) {
        keep_by_norm(s, h);
    } else if (h->reach > 0) {
        keep_by_number(s, h, (int64_t)s->value[3] == FVI_LSG_BLOCK_STRIDE);
    }
}

/* ---- what a row sees ---- */

static uint64_t seen(const void *arg, int64_t position, int64_t block) {
    const head *h = arg;
    if (position < h->globals) {
        return UINT64_MAX;
    }
    int64_t from = own_block(h, position) - h->block, to = from + 3 * h->block;
    uint64_t local = fvi_pattern_bits(block, fvi_max(from, 0), to) | fvi_pattern_bits(block, 0, h->globals);
    uint64_t beyond = fvi_pattern_bits(block, from - h->reach, from) | fvi_pattern_bits(block, to, to + h->reach);
    return local | (beyond & h->sparse[block]);
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    const head *h = s->head_state;
    int64_t end = fvi_pattern_end(s, q, index);
    int64_t first = own_block(h, q->first), last = own_block(h, q->last);
    int64_t from = fvi_max(first - h->block - h->reach, 0) / FVI_BLOCK;
    int64_t to = fvi_max((last + 2 * h->block + h->reach - 1) / FVI_BLOCK + 1, from);
    index->seen = seen;
    index->seen_arg = h;
    if (h->pooled.n > 0 && q->last >= h->globals) {
        const fvi_span span =
            pooled_span(h, first - h->block - h->reach, (h->causal ? last - h->block : last + 2 * h->block + h->reach));
        index->entries = &h->pooled;
        index->entry_leaves = (fvi_span){span.from / FVI_BLOCK, fvi_ceil_div(span.to, FVI_BLOCK)};
    }
    if (q->first < h->globals) {
        fvi_pattern_rows(s, q, 0, end, index);
        return;
    }
    fvi_pattern_alike(q, 0, fvi_min(from, fvi_ceil_div(h->globals, FVI_BLOCK)), index);
    if (first == last) {
        fvi_pattern_alike(q, from, fvi_min(to, end), index);
    } else {
        fvi_pattern_rows(s, q, from, to, index);
    }
}

static const char *refuse(const double *value, const fvi_extent *extent) {
    (void)extent;
    int64_t block = (int64_t)value[0], sparse = (int64_t)value[1], factor = (int64_t)value[2], chunk = chunk_of(value);
    if (block % factor != 0 || sparse % factor != 0) {
        return "lsg: block and sparse must be multiples of factor";
    }
    if (sparse > 0 && (block % chunk != 0 || sparse % (block / factor) != 0)) {
        return "lsg: sparse must be a multiple of block / factor, and divide block where it is smaller";
    }
    return fvi_lsg_pool_refuse(value);
}

const fvi_selector fvi_select_lsg = {.query_block = 64,
                                     .scope = FVI_SCOPE_TILE,
                                     .head_bytes = head_bytes,
                                     .scratch_bytes = scratch_bytes,
                                     .prepare = prepare,
                                     .tile = tile,
                                     .refuse = refuse};
