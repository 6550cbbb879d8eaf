/* gna.c - generalized neighborhood attention: along each axis of a line, a plane or a volume of tokens a query sees a window of
 * keys; queries of a group of `stride` share the window of their leader.
 *
 * Hassani et al.: Generalized Neighborhood Attention: Multi-dimensional Sparse Attention at the Speed of Light, 2025, section 3
 * and figure 3; the form is that of its code (SHI-Labs/NATTEN, the mask of the reference kernel): not causal   the leader is the
 * group's middle query, the right one of two, and not past the end; its window begins window / 2 before it, or where window keys
 * still fit: every query sees exactly `window` keys causal       the leader is the group's last query; a query sees the window
 * that ends there, up to its own position: under a stride, fewer than `window` keys dilation     all of this within the residue
 * class of the query's coordinate Parameters 0 or -1 for height and depth repeat the width's. Deviations: an axis shorter than
 * its window is legal where no shape is given (the sequence is the line): its windows are as long as the class. */
#include "select/neighborhood.h"

static fvi_na_values values(const double *value) {
    return (fvi_na_values){value, value + FVI_NA_AXES, value + 2 * FVI_NA_AXES, value + 3 * FVI_NA_AXES, value + 4 * FVI_NA_AXES};
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

fv_status fvi_na_of_gna(fv_context *ctx, const fv_gna *g, fvi_na *na, int64_t *tokens) {
    *tokens = 1;
    if (g->axes < 1 || g->axes > FVI_NA_AXES) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "axes is %d; it must be from 1 to %d", g->axes, FVI_NA_AXES);
    }
    for (int k = 0; k < FVI_NA_AXES; k++) {
        int a = k - (FVI_NA_AXES - g->axes);
        na->axis[k] = a < 0 ? (fvi_na_axis){.size = 1, .window = 1, .stride = 1, .dilation = 1, .step = 1}
                            : (fvi_na_axis){g->size[a], g->window[a], g->stride[a], g->dilation[a], g->causal[a], .step = 1};
        const fvi_na_axis *x = &na->axis[k];
        const int64_t least = fvi_min(fvi_min(x->size, x->window), fvi_min(x->stride, x->dilation));
        const int64_t most = fvi_max(fvi_max(x->size, x->window), fvi_max(x->stride, x->dilation));
        if (least < 1 || most > 1 << 30 || *tokens * x->size > 1 << 30) {
            return fvi_fail(
                ctx, FV_ERR_ARGUMENT,
                "axis %d: size %lld, window %lld, stride %lld and dilation %lld must be at least 1, and the tokens at "
                "most 2^30",
                a, (long long)x->size, (long long)x->window, (long long)x->stride, (long long)x->dilation);
        }
        *tokens *= x->size;
    }
    const char *reason = fvi_na_refuse(na, *tokens);
    return reason == NULL ? FV_OK : fvi_fail(ctx, FV_ERR_ARGUMENT, "%s", reason);
}

const fvi_selector fvi_select_gna = {.query_block = FVI_NA_TILE,
                                     .scope = FVI_SCOPE_PROMPT,
                                     .head_bytes = fvi_na_head_bytes,
                                     .scratch_bytes = fvi_na_scratch_bytes,
                                     .prepare = prepare,
                                     .order = fvi_na_order,
                                     .tile = fvi_na_tile,
                                     .refuse = refuse};
