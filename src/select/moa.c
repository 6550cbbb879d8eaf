/* moa.c - Mixture of Sparse Attention: each head a window whose span grows with the prompt, and a block of sinks.
 *
 * Fu, Huang, Ning, et al.: MoA: Mixture of Sparse Attention for Automatic Large Language Model Compression, 2024:
 * the span of head h is alpha_h + beta_h N, N the prompt's length. thu-nics/MoA, elastic_block_sparse.py
 * layout_generate_function, whose form is here: int(alpha // 64 + beta N / 64) blocks of 64, the own one among them and at least
 * it, and the first block beside them. alpha may be negative. N is counted in started blocks here; the code wants multiples
 * of 64. (The code's runtime rounds otherwise: it takes the sink block out of the span, at least 128 keys, and counts tokens to
 * come into N.)
 *
 * alpha and beta are those of a profile, two numbers for each query head; without one, the parameters serve all heads. N is known
 * when the prompt ends. The search for a profile's rules is src/method/moa_search.c, its losses come from
 * src/lab/calibrate_moa.c.
 *
 * Bidirectional, as in the code's layout before its causal mask: the span to both sides, and the first block's rows see all. */
#include "select/pattern.h"

#include <math.h>

static size_t head_bytes(const double *value, const fvi_extent *extent) {
    (void)value;
    (void)extent;
    return sizeof(int64_t);
}

static void prepare(const fvi_select *s) {
    bool has_profile = s->number != NULL && s->numbers >= 2;
    double alpha = has_profile ? s->number[0] : s->value[0], beta = has_profile ? s->number[1] : s->value[1];
    double blocks = floor(alpha / FVI_BLOCK) + beta * (double)fvi_ceil_div(s->sight->n_kv, FVI_BLOCK);
    *(int64_t *)s->head_state = blocks > 1 ? (int64_t)fmin(blocks, 0x1p31) : 1;
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    int64_t span = *(const int64_t *)s->head_state, own = fvi_pattern_floor(q->first, FVI_BLOCK) / FVI_BLOCK;
    fvi_index_add(index, 0, FVI_BLOCK);
    fvi_index_add(index, (own - span + 1) * FVI_BLOCK, (own + (s->sight->causal ? 1 : span)) * FVI_BLOCK);
    if (own == 0 && !s->sight->causal) {
        fvi_index_add_all(index);
    }
}

const fvi_selector fvi_select_moa = {
    .query_block = 64, .scope = FVI_SCOPE_PROMPT, .head_bytes = head_bytes, .prepare = prepare, .tile = tile};
