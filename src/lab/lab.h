/* lab.h - what the measurements share: next-token distributions, and estimates of how long things take. */
#ifndef FVI_LAB_H
#define FVI_LAB_H

#include "base/base.h"
#include "fovea/lab.h"

int64_t fvi_lab_n_vocab(const fv_model *model);
/* BOS where the model wants one before a prompt, else -1. */
int32_t fvi_lab_bos(const fv_model *model);

/* ln sum exp of n logits, in double. */
double fvi_lab_lse(const float *logits, int64_t n);
/* The most likely id, the lowest among equals. */
int32_t fvi_lab_argmax(const float *logits, int64_t n);
/* Relative cost of a prompt of n tokens, dense: weights + attention. For progress only. */
double fvi_lab_cost(const fv_model *model, int64_t n);
#endif
