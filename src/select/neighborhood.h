/* neighborhood.h - windows around a token of a line, a plane or a volume: what gna.c, faster_na.c and halonet.c select and
 * gna_forecast.c counts.
 *
 * Tokens stand in row-major order of (depth, height, width); key j is token j and a query at position p is token p. Along each
 * axis a query sees the keys of its own residue class modulo the dilation; within the class, coordinates count from 0.
 */
#ifndef FVI_NEIGHBORHOOD_H
#define FVI_NEIGHBORHOOD_H

#include "fovea/experimental.h"
#include "select/select.h"

enum { FVI_NA_AXES = 3, FVI_NA_TILE = 64 }; /* depth, height, width; queries of a tile */

typedef struct fvi_na_axis {
    int64_t size, window, stride, dilation;
    bool causal;
    int64_t step;        /* queries stand at every step-th token; 1: at each */
    int64_t block, halo; /* block > 0: a query sees its block of tokens and `halo` on both sides; the window is not used */
} fvi_na_axis;

typedef struct fvi_na {
    fvi_na_axis axis[FVI_NA_AXES];
} fvi_na;

/* Parameters of a recipe: each for width, height and depth; what a method does not have is NULL. */
typedef struct fvi_na_values {
    const double *shape;  /* a width of 0: the sequence */
    const double *window; /* 0: as the width's; likewise the next two */
    const double *stride, *dilation;
    const double *causal; /* -1: as the width's */
} fvi_na_values;
fvi_na fvi_na_of(const fvi_na_values *values, int64_t n_kv);

/* Checked; and how many tokens there are. */
fv_status fvi_na_of_gna(fv_context *ctx, const fv_gna *gna, fvi_na *na, int64_t *tokens);

/* First and last key coordinate that query x of the axis sees: those in steps of the dilation between them. */
typedef struct fvi_na_reach {
    int32_t first, last;
} fvi_na_reach;
fvi_na_reach fvi_na_sees(const fvi_na_axis *axis, int64_t x);

/* NULL, or what is wrong with the shape, which has no axes of size 0, for n_kv keys; the second for parameters. */
const char *fvi_na_refuse(const fvi_na *na, int64_t n_kv);
const char *fvi_na_refuse_values(const fvi_na_values *values, int64_t n_kv);

/* A head's state: the windows along each axis, and the order of queries, by boxes of FVI_NA_TILE. */
size_t fvi_na_head_bytes(const double *value, const fvi_extent *extent);
size_t fvi_na_scratch_bytes(const double *value, const fvi_extent *extent);
void fvi_na_prepare(const fvi_na *na, const fvi_select *s);
const int32_t *fvi_na_order(const void *head_state);
void fvi_na_tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index);

#endif
