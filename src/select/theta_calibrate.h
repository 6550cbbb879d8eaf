/* theta_calibrate.h - thresholds of Top-Theta from rows of scores: pure functions. Scores are natural logarithms, scale * q . k.
 */
#ifndef FVI_THETA_CALIBRATE_H
#define FVI_THETA_CALIBRATE_H

#include "base/base.h"

/* What one row tells. */
typedef struct fvi_theta_sample {
    int64_t length; /* keys that the row sees */
    double theta;   /* scores above it are the row's k largest */
    double missing; /* the sum of exp(s - largest s) of the others */
} fvi_theta_sample;

/* Of a row s (n), n > k >= 1; s is put into another order. */
fvi_theta_sample fvi_theta_of_row(float *s, int64_t n, int64_t k);
/* A profile's numbers of samples of a head, in `number` (3 n): for each length, ascending, the length, the samples' mean theta
 * plus `sigmas` standard deviations, and their mean of what is missing. Returns how many numbers; puts `sample` in order. */
int64_t fvi_theta_calibrate(fvi_theta_sample *sample, int64_t n, double sigmas, double *number);

#endif
