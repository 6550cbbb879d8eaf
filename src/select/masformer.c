/* masformer.c - MASFormer: full attention at a few layers, blocks or a window at all others.
 *
 * Zhang, Ram, Hawkins, Zha, Zhao: Efficient Long-Range Transformers: You Need to Attend More, but Not Necessarily at Every Layer,
 * Findings of EMNLP 2023. Full attention stands at the layers next to the input, where the paper found it to serve
 * best; the others see their own block of `size` keys (form 0) or a window of `size` keys, the own included (form 1), figure 1's
 * (a) and (b). The official code is not public where we could look. Defaults are those of its experiments as others report them:
 * the first 4 of 24 layers, blocks of 1024; not checked against the text.
 *
 * All heads are alike. Bidirectional: the whole own block, or a window to both sides. */
#include "select/pattern.h"

enum { FORM_BLOCKS, FORM_WINDOW };

static uint64_t seen(const void *arg, int64_t position, int64_t block) {
    const double *value = arg;
    int64_t size = (int64_t)value[1], own = fvi_pattern_floor(position, size);
    return (int64_t)value[2] == FORM_WINDOW ? fvi_pattern_bits(block, position - size + 1, position + size)
                                            : fvi_pattern_bits(block, own, own + size);
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    int64_t size = (int64_t)s->value[1], from = (q->first - size + 1) / FVI_BLOCK, to = (q->last + size - 1) / FVI_BLOCK + 1;
    index->seen = seen;
    index->seen_arg = s->value;
    if (s->sight->layer < (int64_t)s->value[0]) {
        fvi_index_add_all(index);
    } else if ((int64_t)s->value[2] == FORM_WINDOW) {
        fvi_pattern_rows(s, q, from, to, index);
    } else {
        fvi_pattern_within(s, q, size, from, to, index);
    }
}

const fvi_selector fvi_select_masformer = {.query_block = 64, .scope = FVI_SCOPE_TILE, .tile = tile};
