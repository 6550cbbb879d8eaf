/* calibrate_moa.h - what each head of a model loses by each span, measured, and the rules that MoA's search makes of it. */
#ifndef FVI_CALIBRATE_MOA_H
#define FVI_CALIBRATE_MOA_H

#include "fovea/experimental.h"
#include "lab/lab.h"

enum { FVI_MOA_LENGTHS = 2, FVI_MOA_SPANS = 6 };

typedef struct fvi_moa_table {
    int64_t heads; /* layers x query heads */
    int64_t length[FVI_MOA_LENGTHS];
    int64_t spans[FVI_MOA_LENGTHS];
    int64_t span[FVI_MOA_LENGTHS][FVI_MOA_SPANS]; /* (spans) blocks of 64, ascending, fewer than the prompt's */
    double *loss;                                 /* (lengths, heads, FVI_MOA_SPANS) nats */
} fvi_moa_table;

/* Lengths and spans for prompts of up to `tokens` tokens; no losses. */
void fvi_moa_table_plan(int64_t tokens, int64_t heads, fvi_moa_table *out);
/* What the head loses at length e with a span of `blocks`: measured, or between the two that were, by the span's logarithm. */
double fvi_moa_table_loss(const fvi_moa_table *table, int e, int64_t head, int64_t blocks);
/* Fills in losses of a planned table; tokens (n) is the text, of which places of a prompt's first token are overwritten. Release
 * loss (lengths * heads * FVI_MOA_SPANS) whatever the status. */
fv_status fvi_moa_measure(fv_model *model, const fv_calibrate_options *options, fv_tokens *tokens, fvi_moa_table *table);
void fvi_moa_table_release(fv_context *ctx, fvi_moa_table *table);

/* The profile of MoA, as fv_calibrate makes it. */
fv_status fvi_calibrate_moa(fv_model *model, const fv_calibrate_options *options, fv_tokens *tokens, fv_profile **out);

#endif
