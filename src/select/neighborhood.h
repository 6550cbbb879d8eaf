/* neighborhood.h - windows around a token of a line, a plane or a volume: what gna.c and faster_na.c select and gna_simulate.c
 * counts.
 *
 * Tokens stand in row-major order of (depth, height, width); key j is token j and a query at position p is token p. Along each
 * axis a query sees the keys of its own residue class modulo the dilation; within the class, coordinates count from 0.
 */
#ifndef FVI_NEIGHBORHOOD_H
#define FVI_NEIGHBORHOOD_H

#include "select/select.h"

enum { FVI_NA_AXES = 3, FVI_NA_TILE = 64 }; /* depth, height, width; queries of a tile */

typedef struct fvi_na_axis {
    int64_t size, window, stride, dilation;
    bool causal;
} fvi_na_axis;

typedef struct fvi_na {
    fvi_na_axis axis[FVI_NA_AXES];
} fvi_na;

/* First and last key coordinate that a query at coordinate x of the axis sees: those in steps of the dilation between them. */
typedef struct fvi_na_reach {
    int32_t first, last;
} fvi_na_reach;
fvi_na_reach fvi_na_sees(const fvi_na_axis *axis, int64_t x);

/* NULL, or what is wrong with the shape, which has no axes of size 0, for n_kv keys. */
const char *fvi_na_refuse(const fvi_na *na, int64_t n_kv);

/* A head's state: the windows along each axis, and the order of queries, by boxes of FVI_NA_TILE. */
size_t fvi_na_bytes(const fvi_extent *extent);
void fvi_na_prepare(const fvi_na *na, int64_t n_q, int64_t offset, void *state);
const int32_t *fvi_na_order(const void *state);
size_t fvi_na_scratch_bytes(const fvi_extent *extent);
/* `scratch` of fvi_na_scratch_bytes. */
void fvi_na_tile(const void *state, int64_t offset, const fvi_query_tile *q, void *scratch, fvi_index *index);

#endif
