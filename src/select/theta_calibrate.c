/* theta_calibrate.c - the calibration of Top-Theta (see top_theta.c): section 3.1 of the paper, and the official code's
 * aggregate: a row's threshold is its (k + 1)-th largest score, samples of one length are summed up as mean + sigmas * deviation.
 */
#include "select/theta_calibrate.h"

#include <math.h>
#include <stdlib.h>

static int by_score(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

fvi_theta_sample fvi_theta_of_row(float *s, int64_t n, int64_t k) {
    qsort(s, (size_t)n, sizeof *s, by_score);
    fvi_theta_sample sample = {.length = n, .theta = s[k]};
    for (int64_t i = n - 1; i >= 0 && s[i] <= s[k]; i--) {
        sample.missing += exp((double)s[i] - s[0]);
    }
    return sample;
}

static int by_length(const void *a, const void *b) {
    int64_t x = ((const fvi_theta_sample *)a)->length, y = ((const fvi_theta_sample *)b)->length;
    return (x > y) - (x < y);
}

int64_t fvi_theta_calibrate(fvi_theta_sample *sample, int64_t n, double sigmas, double *number) {
    qsort(sample, (size_t)n, sizeof *sample, by_length);
    int64_t numbers = 0;
    for (int64_t from = 0, to; from < n; from = to) {
        double theta = 0, missing = 0, square = 0;
        for (to = from; to < n && sample[to].length == sample[from].length; to++) {
            theta += sample[to].theta;
            missing += sample[to].missing;
        }
        theta /= (double)(to - from);
        for (int64_t i = from; i < to; i++) {
            square += (sample[i].theta - theta) * (sample[i].theta - theta);
        }
        number[numbers++] = (double)sample[from].length;
        number[numbers++] = theta + sigmas * sqrt(square / (double)(to - from));
        number[numbers++] = missing / (double)(to - from);
    }
    return numbers;
}
