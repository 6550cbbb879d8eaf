/* faster_na.c - neighborhood attention: along each axis of a line, a plane or a volume a query sees the `window` keys nearest to
 * it, clamped at the edges; dilated, those of its residue class; causal, the last ones up to its own.
 *
 * Hassani et al.: Faster Neighborhood Attention: Reducing the O(n^2) Cost of Self Attention at the Threadblock Level, NeurIPS
 * 2024, section 2 (the pattern) and 3.2 (fused kernels, which tile queries and keys in as many dimensions as there are: here by
 * the order of queries, see neighborhood.c). It is gna at a stride of 1. Windows of even length are legal as in gna; the paper's
 * are odd. The unfused form of its section 3.1 is attend/na_unfused.c. */
#include "select/neighborhood.h"

static fvi_na_values values(const double *value) {
    return (fvi_na_values){
        .shape = value, .window = value + FVI_NA_AXES, .dilation = value + 2 * FVI_NA_AXES, .causal = value + 3 * FVI_NA_AXES};
}

static const char *refuse(const double *value, const fvi_extent *extent) {
    fvi_na_values v = values(value);
    return fvi_na_refuse_values(&v, extent->n_kv);
}

static void prepare(const fvi_select *s) {
    fvi_na_values v = values(s->value);
    fvi_na na = fvi_na_of(&v, s->sight->n_kv);
    fvi_na_prepare(&na, s);
}

const fvi_selector fvi_select_faster_na = {.query_block = FVI_NA_TILE,
                                           .scope = FVI_SCOPE_PROMPT,
                                           .head_bytes = fvi_na_head_bytes,
                                           .scratch_bytes = fvi_na_scratch_bytes,
                                           .prepare = prepare,
                                           .order = fvi_na_order,
                                           .tile = fvi_na_tile,
                                           .refuse = refuse};
