/* products.h - an item's rows times a leaf of K, and their weights times a leaf of V: packed once for the many rows of a prompt,
 * or in place for the few of generated tokens. The phase of the problem decides, never the number of rows. */
#ifndef FVI_PRODUCTS_H
#define FVI_PRODUCTS_H

#include "attend/tile.h"

/* Fills in the kernels that the run's phase and types take. */
void fvi_products_pick(const fv_plan *plan, const fv_run *run, fvi_scratch *scratch);
/* Where row `row` of the item's queries is, packed. */
void *fvi_products_query(const fv_plan *plan, const fvi_scratch *scratch, int64_t row);
/* The same for products of its own list, where it may have one. */
void *fvi_products_list_query(const fv_plan *plan, const fvi_scratch *scratch, int64_t row);
/* Row `row` of the item's queries, which stands in scratch->q_row, packed. */
void fvi_products_pack_query(const fv_plan *plan, const fvi_scratch *scratch, int64_t row);
/* How many leaves may be open at once. */
int64_t fvi_products_batch(const fv_plan *plan, const fvi_scratch *scratch, bool in_place);
/* To be called for a leaf before its scores; `slot` counts the leaves that are open at once. A prompt's quantised rows are
 * widened to scratch->gather, and `leaf` names those. */
void fvi_products_open_keys(const fv_plan *plan, fvi_leaf *leaf, int slot, const fvi_scratch *scratch);
/* After it, and before products with the leaf's values. */
void fvi_products_open_values(const fv_plan *plan, const fvi_leaf *leaf, const fvi_scratch *scratch);
/* Whether no value of the leaf is an infinity or NaN. */
bool fvi_products_finite(const fv_plan *plan, const fvi_leaf *leaf, const fvi_scratch *scratch);
/* All three stages at once for the leaves that are open and the item's first n rows, where the kernels can: false if not. n and
 * `seen` as in fvi_tile_fold. */
bool fvi_products_fold(const fv_plan *plan, const fvi_scratch *scratch, int leaves, int64_t n,
                       const uint64_t *const seen[FVI_FOLD_LEAVES], fvi_fold *fold);
/* s (n, 64) = scaled products of rows first .. first + n - 1 with the leaf's keys. */
void fvi_products_scores(const fv_plan *plan, const fvi_leaf *leaf, const fvi_scratch *scratch, int64_t first, int64_t n,
                         float *s);
/* out (n, d_pad) = out * alpha (n) + weights s (n, 64) times the leaf's values. s is overwritten. */
void fvi_products_values(const fv_plan *plan, const fvi_leaf *leaf, const fvi_scratch *scratch, float *s, int64_t n,
                         const float *alpha, float *out);
/* The same, where a row may not see a value that is not finite: each row takes values of its own, zero where `seen` (n) has no
 * bit. Slow, and seldom. */
void fvi_products_values_apart(const fv_plan *plan, const fvi_leaf *leaf, const fvi_scratch *scratch, float *s, int64_t n,
                               const float *alpha, const uint64_t *seen, float *out);

#endif
