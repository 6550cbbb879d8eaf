/* compare.h - a comparison from inside: the job, its rows, one run of it, what is said at the end. */
#ifndef FVI_COMPARE_H
#define FVI_COMPARE_H

#include "lab/document.h"

struct fv_compare {
    fv_context *ctx;
    fv_compare_row *row;
    int n, capacity;
    char verdict[2048];
};

/* ---- rows: next-token distributions against dense's ---- */

typedef struct fvi_rows {
    int64_t from, every, most; /* positions from, from + every, ... below the document's end: `most` of them */
    int64_t n_vocab, n;        /* n: seen so far */
    float *reference;          /* (most, n_vocab) dense's log-probabilities */
    double *kl;                /* (most) */
    int64_t agree;
    bool fills;     /* dense: the reference is written */
    double seconds; /* spent here, which is no part of the prompt's time */
} fvi_rows;

/* Every so-many-th position of the second half, so that there are `wanted` of them or fewer. Close in any case. */
fv_status fvi_rows_open(fv_context *ctx, int64_t document, int64_t wanted, int64_t n_vocab, fvi_rows *rows);
void fvi_rows_close(fv_context *ctx, fvi_rows *rows);
/* From the first row again: dense if `fills`. */
void fvi_rows_begin(fvi_rows *rows, bool fills);
void fvi_rows_take(fvi_rows *rows, const float *logits);
/* Fills in kl, kl_p99, top1 and rows. */
void fvi_rows_summarise(fvi_rows *rows, fv_compare_row *out);

/* ---- the job ---- */

typedef struct fvi_job {
    fv_model *model;
    fv_context *ctx;
    const fv_compare_options *options;
    fvi_material material;
    fv_tokens document, asked; /* of the present length; question + answer */
    fvi_rows rows;
    double cost_done, cost_run, cost_total; /* before this run; of it; of all */
    char what[320];
    fv_compare *out;
} fvi_job;

/* Runs a recipe on the present document and adds its row to the result. recipe NULL: dense, the reference. */
fv_status fvi_compare_recipe(fvi_job *job, const char *recipe, int64_t context);

/* Writes a few sentences about `lengths` groups of `recipes` + 1 rows each, dense first in each group. */
void fvi_compare_verdict(const fv_compare_row *row, int lengths, int recipes, char *out, size_t size);

#endif
