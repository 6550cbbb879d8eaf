/* row_topk.c - each row's k largest scores, exactly: the yardstick of methods that choose keys row by row.
 *
 * Gupta, Dar, Goodman, Ciprut, Berant: Memory-efficient Transformers via Top-k Attention, 2021: softmax over a row's k largest
 * scores. All scores are made first, by the tile's products, so the method saves values and weights, not products. Of equal
 * scores the earlier key is taken. Scores are those before a soft cap, a bias and ALiBi. Rows of k keys or fewer are dense. */
#include "select/select.h"

#include <math.h>
#include <string.h>

enum { K, ROWS = 64 };

typedef struct entry {
    float score;
    int32_t key;
} entry;

typedef struct scratch {
    int64_t first, blocks; /* position of row 0; words of a row */
    int64_t room;          /* entries of a row's heap at most */
    uint64_t *bits;        /* (64, blocks): what each row visits */
    entry *heap;           /* (64, room): the best so far, the worst of them first */
    int64_t n[ROWS];
    float least[ROWS]; /* a score must be above it to get in */
    float *query;      /* (64, d) */
    float *s;          /* (64, 64) */
    void *look;
} scratch;

static int64_t room_of(const double *value, int64_t n_kv) { return fvi_max(1, fvi_min((int64_t)value[K], n_kv)); }

static scratch *scratch_of(const fvi_select *s) {
    const fvi_sight *sight = s->sight;
    scratch *at = s->seen_state;
    uint8_t *base = (uint8_t *)at + ((sizeof(scratch) + 63) & ~(size_t)63);
    at->blocks = fvi_ceil_div(sight->n_kv, FVI_BLOCK);
    at->room = room_of(s->value, sight->n_kv);
    at->s = (float *)base;
    at->look = base + ROWS * FVI_LEAF * sizeof(float);
    at->bits = (uint64_t *)((uint8_t *)at->look + fvi_look_bytes(ROWS, sight->d_k, sight->d_v));
    at->heap = (entry *)(at->bits + ROWS * at->blocks);
    at->query = (float *)(at->heap + ROWS * at->room);
    return at;
}

static size_t seen_bytes(const double *value, const fvi_extent *e) {
    int64_t row = fvi_ceil_div(e->n_kv, FVI_BLOCK) * (int64_t)sizeof(uint64_t) +
                  room_of(value, e->n_kv) * (int64_t)sizeof(entry) + (FVI_LEAF + e->d_k) * (int64_t)sizeof(float);
    return fvi_look_bytes(ROWS, e->d_k, e->d_v) + (size_t)(ROWS * row) + sizeof(scratch) + 63;
}

/* Whether a gives way to b: a smaller score, or a later key. */
static bool worse(entry a, entry b) { return a.score < b.score || (a.score == b.score && a.key > b.key); }

static void sink_down(entry *heap, int64_t n, int64_t at) {
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        child += child + 1 < n && worse(heap[child + 1], heap[child]);
        if (!worse(heap[child], heap[at])) {
            return;
        }
        entry swap = heap[at];
        heap[at] = heap[child];
        heap[child] = swap;
    }
}

/* Keys come in ascending order: an equal score is too late. */
static void offer(scratch *at, int row, entry e) {
    entry *heap = at->heap + row * at->room;
    if (at->n[row] < at->room) {
        heap[at->n[row]++] = e;
        for (int64_t i = at->room / 2; at->n[row] == at->room && i-- > 0;) {
            sink_down(heap, at->room, i);
        }
    } else {
        heap[0] = e;
        sink_down(heap, at->room, 0);
    }
    at->least[row] = at->n[row] == at->room ? heap[0].score : -INFINITY;
}

/* Bits of block b that the row at `position` may see. */
static uint64_t in_reach(const fvi_sight *sight, int64_t position, int64_t b) {
    int64_t keys = fvi_min(sight->causal ? position + 1 : sight->n_kv, sight->n_kv) - b * FVI_BLOCK;
    return keys >= FVI_BLOCK ? UINT64_MAX : keys <= 0 ? 0 : (UINT64_C(1) << keys) - 1;
}

static void offer_block(const fvi_sight *sight, scratch *at, int64_t row0, int64_t rows, int64_t b) {
    uint64_t bits[ROWS];
    for (int64_t r = 0; r < rows; r++) {
        bits[r] = in_reach(sight, at->first + row0 + r, b);
    }
    sight->sift->above(at->s, (int)rows, at->least + row0, bits);
    for (int64_t r = 0; r < rows; r++) {
        for (; bits[r] != 0; bits[r] &= bits[r] - 1) {
            int j = __builtin_ctzll(bits[r]);
            float score = at->s[r * FVI_LEAF + j];
            if (score > at->least[row0 + r]) {
                offer(at, (int)(row0 + r), (entry){score, (int32_t)(b * FVI_BLOCK + j)});
            }
        }
    }
}

static uint64_t seen(const void *arg, int64_t position, int64_t block) {
    const scratch *at = arg;
    return at->bits[(position - at->first) * at->blocks + block];
}

static const uint64_t *row_words(const void *arg, int64_t position) {
    const scratch *at = arg;
    return at->bits + (position - at->first) * at->blocks;
}

static void set_bits(const fvi_sight *sight, const scratch *at, int64_t row) {
    uint64_t *bits = at->bits + row * at->blocks;
    const entry *heap = at->heap + row * at->room;
    int64_t length = fvi_min(sight->causal ? at->first + row + 1 : sight->n_kv, sight->n_kv);
    for (int64_t b = 0; b < at->blocks; b++) {
        bits[b] = length <= at->room ? in_reach(sight, at->first + row, b) : 0;
    }
    for (int64_t i = 0; i < at->n[row] && length > at->room; i++) {
        bits[heap[i].key / FVI_BLOCK] |= UINT64_C(1) << heap[i].key % FVI_BLOCK;
    }
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    const fvi_sight *sight = s->sight;
    scratch *at = scratch_of(s);
    int64_t keys = fvi_min(sight->causal ? q->last + 1 : sight->n_kv, sight->n_kv);
    if (keys <= (int64_t)s->value[K]) {
        fvi_index_add_all(index);
        return;
    }
    int64_t from = fvi_max(0, q->first - sight->offset), to = fvi_min(sight->n_q, q->last + 1 - sight->offset);
    int64_t row0 = sight->offset + from - q->first, rows = to - from;
    at->first = q->first;
    memset(at->n, 0, sizeof at->n);
    for (int r = 0; r < ROWS; r++) {
        at->least[r] = -INFINITY;
    }
    sight->rows(sight, FVI_SIDE_Q, from, rows, at->query);
    fvi_look look = fvi_look_open(sight, at->query, rows, at->look);
    for (int64_t b = 0; b * FVI_BLOCK < keys; b++) {
        fvi_look_scores(&look, b, sight->scale, at->s);
        offer_block(sight, at, row0, rows, b);
    }
    memset(at->bits, 0, (size_t)(ROWS * at->blocks) * sizeof *at->bits);
    for (int64_t r = row0; r < row0 + rows; r++) {
        set_bits(sight, at, r);
    }
    index->seen = seen;
    index->row = row_words;
    index->seen_arg = at;
    for (int64_t b = 0; b * FVI_BLOCK < keys; b++) {
        uint64_t any = 0;
        for (int64_t r = row0; r < row0 + rows; r++) {
            any |= at->bits[r * at->blocks + b];
        }
        if (any != 0) {
            fvi_index_add_apart(index, b, any);
        }
    }
}

const fvi_selector fvi_select_row_topk = {.query_block = ROWS, .scope = FVI_SCOPE_TILE, .seen_bytes = seen_bytes, .tile = tile};
