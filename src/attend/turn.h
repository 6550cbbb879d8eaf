/* turn.h - queries and keys at positions that a method gives them.
 *
 * Rows come rotated by where they stand, and a rotation by a sum is two rotations: a row is turned on by the difference, in f32.
 * So a cache is the same for all methods, and what is not moved keeps its bits. Queries are turned where they are packed, and
 * again when a block finds them elsewhere; keys when a leaf is packed for rows that find them elsewhere. A table of 256 + n / 256
 * positions has all angles. Where a cache keeps K in the basis of a Walsh-Hadamard rotation, its rows are taken back first. */
#ifndef FVI_TURN_H
#define FVI_TURN_H

#include "attend/tile.h"

/* Makes the table, if the method has places and the problem positions. */
fv_status fvi_turns_create(fv_plan *plan);
void fvi_turns_release(fv_plan *plan);
/* Turns one row of Q or K on by so many positions. */
void fvi_turn_row(const fv_plan *plan, int64_t by, float *row);

/* Remembers the item's row `row`, which stands in scratch->q_row and is about to be packed, at its own position. */
void fvi_turn_remember(const fv_plan *plan, const fvi_scratch *scratch, int64_t row, int64_t position);
/* Takes an open leaf's keys back from a cache's own basis, and packs them. */
void fvi_turn_plain_keys(const fv_plan *plan, fvi_leaf *leaf, const fvi_scratch *scratch);
/* s (n, 64) = scores, still without score parts, of rows first .. first + n - 1 of the item with block `block`, which is open. */
void fvi_turn_scores(const fv_plan *plan, const fv_run *run, const fvi_item *item, const fvi_places *places, int64_t block,
                     fvi_leaf *leaf, const fvi_scratch *scratch, int64_t first, int64_t n, float *s);

#endif
