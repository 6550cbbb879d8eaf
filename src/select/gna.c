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

enum { SHAPE = 0, WINDOW = 3, STRIDE = 6, DILATION = 9, CAUSAL = 12 }; /* each for width, height, depth */

static int64_t of_axis(const double *value, int first, int axis, bool set) {
    return (int64_t)(set ? value[first + axis] : value[first]);
}

static fvi_na gna_of(const double *value, int64_t n_kv) {
    fvi_na na;
    for (int k = 0; k < FVI_NA_AXES; k++) { /* k-th from the last */
        bool there = value[SHAPE + k] > 0 || k == 0;
        int64_t size = value[SHAPE + k] > 0 ? (int64_t)value[SHAPE + k] : k == 0 ? fvi_max(n_kv, 1) : 1;
        na.axis[FVI_NA_AXES - 1 - k] = !there ? (fvi_na_axis){1, 1, 1, 1, false}
                                              : (fvi_na_axis){size, of_axis(value, WINDOW, k, value[WINDOW + k] > 0),
                                                              of_axis(value, STRIDE, k, value[STRIDE + k] > 0),
                                                              of_axis(value, DILATION, k, value[DILATION + k] > 0),
                                                              of_axis(value, CAUSAL, k, value[CAUSAL + k] >= 0) != 0};
    }
    return na;
}

static const char *refuse(const double *value, const fvi_extent *extent) {
    if ((value[SHAPE + 1] > 0 && value[SHAPE] == 0) || (value[SHAPE + 2] > 0 && value[SHAPE + 1] == 0)) {
        return "a shape with a height needs a width, one with a depth both";
    }
    fvi_na na = gna_of(value, extent->n_kv);
    if (value[SHAPE] == 0) { /* the sequence, whatever its length */
        na.axis[2].size = fvi_max(na.axis[2].size, na.axis[2].window * na.axis[2].dilation);
        return fvi_na_refuse(&na, na.axis[2].size);
    }
    return fvi_na_refuse(&na, extent->n_kv);
}

static size_t head_bytes(const double *value, const fvi_extent *extent) {
    (void)value;
    return fvi_na_bytes(extent);
}

static size_t scratch_bytes(const double *value, const fvi_extent *extent) {
    (void)value;
    return fvi_na_scratch_bytes(extent);
}

static void prepare(const fvi_select *s) {
    fvi_na na = gna_of(s->value, s->sight->n_kv);
    fvi_na_prepare(&na, s->sight->n_q, s->sight->offset, s->head_state);
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    fvi_na_tile(s->head_state, s->sight->offset, q, s->scratch, index);
}

const fvi_selector fvi_select_gna = {.query_block = FVI_NA_TILE,
                                     .scope = FVI_SCOPE_PROMPT,
                                     .head_bytes = head_bytes,
                                     .scratch_bytes = scratch_bytes,
                                     .prepare = prepare,
                                     .order = fvi_na_order,
                                     .tile = tile,
                                     .refuse = refuse};
