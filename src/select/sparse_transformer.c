/* sparse_transformer.c - the two factorised patterns of Sparse Transformers, strided and fixed.
 *
 * Child, Gray, Radford, Sutskever: Generating Long Sequences with Sparse Transformers, 2019, section 4.3. Strided: A1 = the l
 * keys before, A2 = every l-th key before, (i - j) mod l = 0. Fixed: A1 = the query's own segment of l keys, A2 = the last c
 * cells of each segment. Section 5.1 uses the two sets in one of three ways: in turn over layers, merged in one head, or in turn
 * over heads; `form` chooses. A head is a query head, as in openai/sparse_attention.
 *
 * Where paper and code differ, the code's form is here: A1 has l keys, the own among them (the paper's i - l .. i has l + 1), and
 * with `groups` heads of fixed attention take groups of c cells of their own, head h the (h mod groups)-th from a segment's end
 * (the code's num_verts; the paper says in words that distinct subblocks were better). groups = 1 is the formula. A row that
 * comes before the first cell sees nothing where A2 stands alone: its output is zero.
 *
 * Bidirectional, which the paper does not have: A1 is |i - j| < l or the whole own segment, A2 both sides.
 *
 * Cost: 64 consecutive rows of a strided head visit min(1, 64 / l) of all keys between them, one row 1 / l. So a strided head
 * takes its queries residue by residue, as the code does, which transposes the sequence: a tile's rows then share their keys.
 * That needs the whole prompt. Merged sets are taken in order of position, at 64 / l. */
#include "select/pattern.h"

/* What one head sees. */
typedef struct head {
    int64_t length;   /* l */
    bool near, far;   /* A1, A2 */
    int64_t from, to; /* fixed: A2's cells within a segment */
    bool causal;
    int32_t *order; /* strided: the rows' order */
} head;

enum { FORM_HEADS, FORM_MERGED, FORM_LAYERS };

static size_t head_bytes(const double *value, const fvi_extent *extent) {
    (void)value;
    (void)extent;
    return sizeof(head);
}

static head make_head(const fvi_select *s, int64_t form) {
    int64_t turn = form == FORM_HEADS ? s->sight->head : s->sight->layer;
    return (head){.length = (int64_t)s->value[0],
                  .near = form == FORM_MERGED || turn % 2 == 0,
                  .far = form == FORM_MERGED || turn % 2 == 1,
                  .causal = s->sight->causal};
}

/* ---- strided ---- */

static size_t strided_head_bytes(const double *value, const fvi_extent *extent) {
    (void)value;
    return sizeof(head) + (size_t)extent->n_q * sizeof(int32_t);
}

/* Whether the head's rows are taken residue by residue. */
static bool by_residue(const head *h) { return h->far && !h->near; }

static void strided_prepare(const fvi_select *s) {
    head *h = s->head_state;
    *h = make_head(s, (int64_t)s->value[1]);
    h->order = (int32_t *)(h + 1);
    int64_t n = s->sight->n_q, step = by_residue(h) ? fvi_min(h->length, fvi_max(n, 1)) : 1, at = 0;
    for (int64_t first = 0; first < step; first++) {
        for (int64_t row = first; row < n; row += step) {
            h->order[at++] = (int32_t)row;
        }
    }
}

static const int32_t *strided_order(const void *state) { return ((const head *)state)->order; }

static uint64_t strided_seen(const void *arg, int64_t position, int64_t block) {
    const head *h = arg;
    uint64_t bits = h->near ? fvi_pattern_bits(block, position - h->length + 1, position + h->length) : 0;
    return bits | (h->far ? fvi_pattern_stride_bits(block, position, h->length) : 0);
}

/* Every l-th key of each row: runs of as many keys as the tile has rows. */
static void add_runs(const head *h, const fvi_query_tile *q, int64_t end, fvi_index *index) {
    int64_t rows = q->last - q->first + 1;
    for (int64_t j = q->first - fvi_pattern_floor(q->first, h->length) - h->length; j < end * FVI_BLOCK; j += h->length) {
        fvi_index_add(index, j, fvi_min(j + rows, end * FVI_BLOCK));
    }
}

/* The keys of each row's residue. Returns whether there is more than one. */
static bool add_residues(const fvi_select *s, const fvi_query_tile *q, int64_t end, fvi_index *index) {
    const head *h = s->head_state;
    int64_t before = -1, residues = 0;
    for (int64_t r = 0; r < q->rows; r++) {
        int64_t position = s->sight->offset + q->row[r], residue = position - fvi_pattern_floor(position, h->length);
        for (int64_t j = residue; residue != before && j < end * FVI_BLOCK; j += h->length) {
            fvi_index_add_key(index, j);
        }
        residues += residue != before;
        before = residue;
    }
    return residues > 1;
}

static void strided_tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    const head *h = s->head_state;
    int64_t end = fvi_pattern_end(s, q, index);
    bool differ = h->far && h->length > 1;
    index->seen = strided_seen;
    index->seen_arg = h;
    if (h->far && h->length == 1) {
        fvi_index_add_all(index);
    } else if (by_residue(h)) {
        differ = add_residues(s, q, end, index);
    } else if (h->far) {
        add_runs(h, q, end, index);
    }
    for (int64_t b = 0; differ && b < end; b++) {
        fvi_index_add_apart(index, b, 0);
    }
    if (h->near) {
        fvi_pattern_rows(s, q, (q->first - h->length + 1) / FVI_BLOCK, (q->last + h->length - 1) / FVI_BLOCK + 1, index);
    }
}

const fvi_selector fvi_select_sparse_strided = {.query_block = 64,
                                                .scope = FVI_SCOPE_PROMPT,
                                                .head_bytes = strided_head_bytes,
                                                .prepare = strided_prepare,
                                                .order = strided_order,
                                                .tile = strided_tile};

/* ---- fixed ---- */

static void fixed_prepare(const fvi_select *s) {
    int64_t cells = (int64_t)s->value[1], groups = (int64_t)s->value[2], form = (int64_t)s->value[3];
    int64_t group = (form == FORM_HEADS ? s->sight->head / 2 : s->sight->head) % groups;
    head *h = s->head_state;
    *h = make_head(s, form);
    h->to = h->length - group * cells;
    h->from = h->to - cells;
}

static uint64_t fixed_seen(const void *arg, int64_t position, int64_t block) {
    const head *h = arg;
    int64_t own = fvi_pattern_floor(position, h->length), first = block * FVI_BLOCK;
    uint64_t bits = h->near ? fvi_pattern_bits(block, own, own + h->length) : 0;
    for (int64_t j = first - first % h->length; h->far && j < first + FVI_BLOCK; j += h->length) {
        bits |= fvi_pattern_bits(block, j + h->from, j + h->to);
    }
    return bits;
}

static void fixed_tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    const head *h = s->head_state;
    index->seen = fixed_seen;
    index->seen_arg = h;
    int64_t end = fvi_pattern_end(s, q, index);
    int64_t from = fvi_max(fvi_pattern_floor(q->first, h->length), 0) / FVI_BLOCK;
    int64_t to = h->near ? fvi_max((fvi_pattern_floor(q->last, h->length) + h->length - 1) / FVI_BLOCK + 1, from) : from;
    fvi_pattern_alike(q, 0, fvi_min(from, end), index);
    fvi_pattern_within(s, q, h->length, from, to, index);
    fvi_pattern_alike(q, to, end, index);
}

static const char *fixed_refuse(const double *value, const fvi_extent *extent) {
    (void)extent;
    return value[1] * value[2] > value[0] ? "sparse-fixed: cells x groups may not be more than the length of a segment" : NULL;
}

const fvi_selector fvi_select_sparse_fixed = {.query_block = 64,
                                              .scope = FVI_SCOPE_TILE,
                                              .head_bytes = head_bytes,
                                              .prepare = fixed_prepare,
                                              .tile = fixed_tile,
                                              .refuse = fixed_refuse};
