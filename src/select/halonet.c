/* halonet.c - blocked local attention on a plane: queries of a block of b x b tokens see the block and a halo of h tokens around
 * it, (b + 2 h)^2 keys.
 *
 * Vaswani, Ramachandran, Srinivas, Parmar, Hechtman, Shlens: Scaling Local Self-Attention for Parameter Efficient Visual
 * Backbones, CVPR 2021, section 2.2 and figure 2; attention downsampling, section 2.3: with a stride s only every s-th query of
 * each axis is there, n_q = n_kv / s^2, and keys are all of the plane's. The paper pads the plane with zeros and does not say
 * whether padding takes part in the softmax; here it does not (a third-party form, lucidrains/halonet-pytorch, has that mask
 * inverted). The 2-D relative position term is additive, and comes as the problem's bias. The official code is not public. */
#include "select/neighborhood.h"

enum { WIDTH, HEIGHT, BLOCK, HALO, STRIDE };

static const char *refuse(const double *value, const fvi_extent *extent) {
    int64_t width = (int64_t)value[WIDTH], height = (int64_t)value[HEIGHT];
    int64_t block = (int64_t)value[BLOCK], stride = (int64_t)value[STRIDE];
    if (width < 1 || height < 1 || width * height != extent->n_kv) {
        return "halonet works on a plane: set width and height, whose product must be the number of keys";
    }
    if (width % block != 0 || height % block != 0 || block % stride != 0) {
        return "halonet's block must divide width and height, and its stride the block";
    }
    if (extent->n_q > extent->n_kv / (stride * stride)) {
        return "halonet has a query for each stride x stride tokens: there are more";
    }
    return stride > 1 && extent->causal ? "halonet with a stride has no order that a causal mask could follow" : NULL;
}

static fvi_na_axis axis(const double *value, int size) {
    return (fvi_na_axis){.size = (int64_t)value[size],
                         .stride = 1,
                         .dilation = 1,
                         .step = (int64_t)value[STRIDE],
                         .block = (int64_t)value[BLOCK],
                         .halo = (int64_t)value[HALO]};
}

static void prepare(const fvi_select *s) {
    fvi_na na = {
        {{.size = 1, .window = 1, .stride = 1, .dilation = 1, .step = 1}, axis(s->value, HEIGHT), axis(s->value, WIDTH)}};
    fvi_na_prepare(&na, s);
}

const fvi_selector fvi_select_halonet = {.query_block = FVI_NA_TILE,
                                         .scope = FVI_SCOPE_PROMPT,
                                         .head_bytes = fvi_na_head_bytes,
                                         .scratch_bytes = fvi_na_scratch_bytes,
                                         .prepare = prepare,
                                         .order = fvi_na_order,
                                         .tile = fvi_na_tile,
                                         .refuse = refuse};
