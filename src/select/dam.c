/* dam.c - columns and diagonals that were found for each layer and head on short inputs, drawn out to any length.
 *
 * DAM: Dynamic Attention Mask for Long-Context Large Language Model Inference Acceleration, 2025 (arXiv 2506.11104). Attention
 * maps of short inputs are averaged, made comparable by a Box-Cox transform and cut at a threshold: a head's true mask. Columns
 * and diagonals that lie in it are kept, and are what the mask of a longer input is made of. The offline part is dam_masks.c; it
 * was built from the paper's description, the official code (ResponsibleAILab/DAM) could not be had: the power is the
 * likelihood's best, transformed weights are spread to 0..1 before the threshold.
 *
 * A profile's numbers: how many columns, the columns, the diagonals (distances). Deviations: a query's own key is always
 * seen, since a row must not be empty; up to the captured length the paper uses the true mask itself, here lines serve there too;
 * a head of which the profile says nothing is dense and counts as fallen back. */
#include "select/calibrate.h"

#include <math.h>
#include <string.h>

/* Bit j of column: key j. Bit `far - i + j` of line: a query at i sees j by a diagonal; all bits for keys to come. */
typedef struct masks {
    bool known;
    int64_t far;
    uint64_t *column, *line;
} masks;

static int64_t words_of(int64_t n_kv) { return fvi_ceil_div(n_kv, FVI_BLOCK) + 2; }

static size_t head_bytes(const double *value, const fvi_extent *e) {
    (void)value;
    return 64 + (size_t)(2 * words_of(e->n_kv)) * sizeof(uint64_t);
}

static void set(uint64_t *bits, int64_t at) { bits[at / 64] |= UINT64_C(1) << (at % 64); }

static void prepare(const fvi_select *s) {
    masks *m = s->head_state;
    int64_t n = s->sight->n_kv, words = words_of(n);
    *m = (masks){.known = s->numbers > 0, .far = fvi_round_up(n, FVI_BLOCK)};
    m->column = (uint64_t *)((uint8_t *)s->head_state + 64);
    m->line = m->column + words;
    memset(m->column, 0, (size_t)(2 * words) * sizeof *m->column);
    int64_t columns = m->known ? (int64_t)s->number[0] : 0;
    for (int64_t i = 1; i < s->numbers; i++) {
        double at = s->number[i];
        if (at >= 0 && at < (double)n && i <= columns) {
            set(m->column, (int64_t)at);
        } else if (at >= 0 && at < (double)n) {
            set(m->line, m->far - (int64_t)at);
        }
    }
    for (int64_t at = m->far; at < 64 * words; at++) { /* the query's own key among them */
        set(m->line, at);
    }
}

static uint64_t bits_at(const uint64_t *bits, int64_t at) {
    int64_t word = at / 64, shift = at % 64;
    return bits[word] >> shift | (shift == 0 ? 0 : bits[word + 1] << (64 - shift));
}

static uint64_t seen(const void *arg, int64_t position, int64_t block) {
    const masks *m = arg;
    return position < 0 ? 0 : m->column[block] | bits_at(m->line, m->far - position + block * FVI_BLOCK);
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    const masks *m = s->head_state;
    if (!m->known) {
        fvi_index_add_all(index);
        index->fell_back = true;
        return;
    }
    index->seen = seen;
    index->seen_arg = m;
    int64_t last = fvi_min(q->last, s->sight->n_kv - 1);
    for (int64_t b = 0; b <= last / FVI_BLOCK; b++) {
        uint64_t any = 0, all = UINT64_MAX;
        for (int64_t i = fvi_max(q->first, 0); i <= last; i++) {
            uint64_t bits = seen(m, i, b);
            any |= bits;
            all &= bits;
        }
        if (any == all) {
            index->key[b] |= any;
        } else {
            fvi_index_add_apart(index, b, any);
        }
    }
}

static const char *refuse(const double *value, const fvi_extent *e) {
    (void)value;
    return e->causal ? NULL : "its diagonals are distances to earlier keys: it needs a causal problem";
}

const fvi_selector fvi_select_dam = {.calibration = &fvi_calibrate_dam,
                                     .query_block = 64,
                                     .scope = FVI_SCOPE_TILE,
                                     .head_bytes = head_bytes,
                                     .prepare = prepare,
                                     .tile = tile,
                                     .refuse = refuse};
