/* minference_search.h - which of MInference's patterns a head has: the kernel-aware search of the paper's algorithm 1.
 *
 * Each candidate is given the numbers that let it cost as much as the budget allows, in pairs that the executor visits; the one
 * that keeps most of the head's attention wins. A pure function of the head's queries and keys. */
#ifndef FVI_MINFERENCE_SEARCH_H
#define FVI_MINFERENCE_SEARCH_H

#include "select/select.h"

enum { FVI_MINFERENCE_CANDIDATES = 7 };

typedef struct fvi_minference_found {
    double number[3]; /* as a profile has them: kind; vertical and slash, blocks and 0, or init and local */
    double density;   /* visited pairs as a share of those of dense attention by the same blocks */
    double recall;    /* share of the attention of the rows that were looked at; -1: does not fit the budget */
} fvi_minference_found;

/* Bytes of memory, 64-byte aligned, for one search. */
size_t fvi_minference_search_bytes(const fvi_extent *extent);
/* out: all candidates, the best first; of equal ones the earlier of vertical-slash by columns ascending, block-sparse, A-shape.
 * Causal; budget in (0, 1] is a density; recall is over every `step`-th tile of 64 rows, the last one included. */
void fvi_minference_search(const fvi_sight *sight, double budget, int64_t step, void *memory,
                           fvi_minference_found out[FVI_MINFERENCE_CANDIDATES]);

#endif
