/* boundary_train.c - labels, loss and steps of DHSA's predictor, after xiongsiheng/DHSA: legacy/utils/helper.py (ratios of
 * attention mass around a place), legacy/boundary_predictor/loss.py and train.py (a place is a boundary where the ratio is 2 or
 * more; focal cross-entropy with gamma 2, boundaries weighing 1.3; Adam). */
#include "select/boundary_train.h"

#include <math.h>

static const double epsilon = 1e-6, positive = 1.3, rate = 1e-3, keep_first = 0.9, keep_second = 0.999, least = 1e-8;

/* Attention to key j from the rows `from` on. */
static double mass(const double *column, const double *band, int64_t j, int64_t from) {
    double sum = column[j];
    for (int64_t i = j; i < from; i++) {
        sum -= band[j * FVI_BOUNDARY_BAND + i - j];
    }
    return sum > 0 ? sum : 0;
}

void fvi_boundary_ratios(const double *column, const double *band, int64_t n, double *ratio) {
    const int64_t w = FVI_BOUNDARY_WINDOW;
    for (int64_t p = 0; p < n; p++) {
        double before = 0, after = 0;
        ratio[p] = 0;
        if (p < 2 * w || p > n - 2 * w) {
            continue;
        }
        for (int64_t j = p - w; j < p; j++) {
            before += mass(column, band, j, p + w - 1);
            after += mass(column, band, j + w, p + w - 1);
        }
        ratio[p] = (fmax(before, after) + epsilon) / (fmin(before, after) + epsilon);
    }
}

static double softplus(double z) { return z > 0 ? z + log1p(exp(-z)) : log1p(exp(z)); }

double fvi_boundary_loss(double logit, bool boundary, double *slope) {
    /* as seen from the right answer: that a place is none has the other sign */
    const double z = boundary ? logit : -logit, weight = boundary ? positive : 1;
    const double p = 1 / (1 + exp(-z)), wrong = 1 - p, cross = softplus(-z);
    const double by_z = -weight * (2 * p * wrong * wrong * cross + wrong * wrong * wrong);
    *slope = boundary ? by_z : -by_z;
    return weight * wrong * wrong * cross;
}

double fvi_boundary_gradient(const double *weight, const float *x, int64_t d, bool boundary, double *gradient) {
    enum { HIDDEN = FVI_BOUNDARY_HIDDEN };
    const int64_t width = fvi_boundary_width(d);
    const double *bias = weight + width * HIDDEN, *out = bias + HIDDEN;
    double unit[HIDDEN], logit = out[HIDDEN], slope;
    for (int h = 0; h < HIDDEN; h++) {
        unit[h] = bias[h];
    }
    for (int64_t i = 0; i < width; i++) {
        for (int h = 0; h < HIDDEN; h++) {
            unit[h] += (double)x[i] * weight[i * HIDDEN + h];
        }
    }
    for (int h = 0; h < HIDDEN; h++) {
        logit += out[h] * fmax(unit[h], 0);
    }
    const double loss = fvi_boundary_loss(logit, boundary, &slope);
    double *by_bias = gradient + width * HIDDEN, *by_out = by_bias + HIDDEN;
    for (int h = 0; h < HIDDEN; h++) {
        by_out[h] += slope * fmax(unit[h], 0);
        unit[h] = unit[h] > 0 ? slope * out[h] : 0;
        by_bias[h] += unit[h];
    }
    by_out[HIDDEN] += slope;
    for (int64_t i = 0; i < width; i++) {
        for (int h = 0; h < HIDDEN; h++) {
            gradient[i * HIDDEN + h] += (double)x[i] * unit[h];
        }
    }
    return loss;
}

void fvi_boundary_step(double *weight, double *gradient, double *first, double *second, int64_t n, int64_t step) {
    const double a = 1 - pow(keep_first, (double)step), b = 1 - pow(keep_second, (double)step);
    for (int64_t i = 0; i < n; i++) {
        first[i] = keep_first * first[i] + (1 - keep_first) * gradient[i];
        second[i] = keep_second * second[i] + (1 - keep_second) * gradient[i] * gradient[i];
        weight[i] -= rate * (first[i] / a) / (sqrt(second[i] / b) + least);
        gradient[i] = 0;
    }
}
