/* lsg_pool.h - LSG's pooled tokens: means of keys and of their values, of groups of `factor` keys or of keys that hash alike. */
#ifndef FVI_LSG_POOL_H
#define FVI_LSG_POOL_H

#include "select/select.h"

/* The parameter `reduction`. */
enum { FVI_LSG_NORM, FVI_LSG_STRIDE, FVI_LSG_BLOCK_STRIDE, FVI_LSG_POOLING, FVI_LSG_BOS_POOLING, FVI_LSG_LSH };

/* Keys of a chunk in which the best are left, or hashed. */
static inline int64_t fvi_lsg_chunk(const double *value) { return fvi_max(fvi_min((int64_t)value[0], (int64_t)value[1]), 1); }
/* Whether these parameters make pooled tokens. */
bool fvi_lsg_pools(const double *value);
/* Bytes of a head's entries, a multiple of 64, and of scratch; 0 where there are none. */
size_t fvi_lsg_pool_bytes(const double *value, const fvi_extent *extent);
size_t fvi_lsg_pool_scratch(const double *value, const fvi_extent *extent);
/* Makes the head's entries in `memory`, 64-byte aligned: entry e stands for keys globals + factor e .., or, hashed, for some of
 * the chunk that these are in. Their seen and arg are the caller's. */
void fvi_lsg_pool(const fvi_select *s, void *memory, fvi_entries *out);
/* As fvi_selector.refuse. */
const char *fvi_lsg_pool_refuse(const double *value);

#endif
