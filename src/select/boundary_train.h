/* boundary_train.h - how DHSA's predictor is trained: labels from a head's attention, loss, gradient, steps. Pure functions. */
#ifndef FVI_BOUNDARY_TRAIN_H
#define FVI_BOUNDARY_TRAIN_H

#include "select/boundary.h"

enum { FVI_BOUNDARY_BAND = 2 * FVI_BOUNDARY_WINDOW };

/* ratio (n): of the place before key p, how many times as much attention the larger of its two windows gets as the smaller, from
 * the rows that see both whole; 0 within 2 WINDOW of the ends. column (n): a key's attention from all rows; band (n, BAND): from
 * the row 0, 1, ... after it. */
void fvi_boundary_ratios(const double *column, const double *band, int64_t n, double *ratio);

/* The focal loss of a place, and its derivative by the logit. */
double fvi_boundary_loss(double logit, bool boundary, double *slope);
/* Adds the gradient of the loss of features x by all weights to `gradient`; returns the loss. */
double fvi_boundary_gradient(const double *weight, const float *x, int64_t d, bool boundary, double *gradient);
/* Adam's step number `step` (1, 2, ...), and the gradient is zero again. first, second: (n) its moments. */
void fvi_boundary_step(double *weight, double *gradient, double *first, double *second, int64_t n, int64_t step);

#endif
