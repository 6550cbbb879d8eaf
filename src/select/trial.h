/* trial.h - what a head's attention would lose under many settings of a selector, tried on some rows of a whole prompt.
 *
 * Once: the softmax of each block of 32 or 64 keys by itself, its largest score, sum and output, for up to 256 rows spread over
 * the prompt, the last among them (all rows of shorter prompts). The output under any choice of whole blocks is then a merge of
 * those. Takes rows * blocks * (d_v + 2) floats; a setting costs its own choice and rows * blocks * d_v. */
#ifndef FVI_TRIAL_H
#define FVI_TRIAL_H

#include "select/select.h"

enum { FVI_TRIAL_ROWS = 256 };

typedef struct fvi_trial {
    const fvi_sight *sight;
    const fvi_selector *selector;
    int64_t part, parts;     /* keys of a block, 32 or 64; blocks */
    int64_t rows, step;      /* row r stands at position n_q - 1 - (rows - 1 - r) * step */
    float *most, *sum, *out; /* (rows, parts), and out (rows, parts, d_v) */
    float *dense;            /* (rows, d_v) */
    float *merged;           /* (d_v) */
    int32_t *kept;           /* (parts) */
    fvi_select select;       /* with state and scratch of the selector; value and number are the caller's to set */
    fvi_index index;
    size_t bytes;
} fvi_trial;

/* Over all rows: sums of |output - dense output| and of |dense output|; blocks kept and blocks seen. */
typedef struct fvi_loss {
    double error, size;
    int64_t kept, seen;
} fvi_loss;

/* Bytes of memory, 64-byte aligned. `value` are parameters as the selector's own sizes take them. */
size_t fvi_trial_bytes(const fvi_selector *selector, const double *value, const fvi_extent *extent, int64_t part);
/* For causal attention of a whole prompt: queries stand at their keys. `value`: those of fvi_trial_bytes. */
fvi_trial fvi_trial_open(const fvi_selector *selector, const double *value, const fvi_sight *sight, int64_t part, void *memory);
/* Calls the selector's tile, after the caller called its prepare with trial->select. A block is kept if one of its keys is. pv,
 * if not 0: a row skips blocks whose largest score, to the base 2, is pv or more below the largest before. */
fvi_loss fvi_trial_run(fvi_trial *trial, float pv);

#endif
