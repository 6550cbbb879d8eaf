/* dam_masks.c - see dam_masks.h. */
#include "select/dam_masks.h"

#include <math.h>

enum { STEPS = 60 };

void fvi_dam_add(const float *map, int64_t n, double *sum) {
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j <= i; j++) {
            sum[i * n + j] += (double)map[i * n + j];
        }
    }
}

void fvi_dam_mean(double *sum, int64_t n, int64_t maps) {
    for (int64_t i = 0; i < n * n; i++) {
        sum[i] /= (double)maps;
    }
}

/* ---- the transform ---- */

static double power_of(double w, double least, double power) {
    w = w > least ? w : least;
    return fabs(power) < 1e-9 ? log(w) : (pow(w, power) - 1) / power;
}

/* Up to a constant: -n/2 log of the variance, and the transform's own density. */
static double likelihood(const double *map, int64_t n, double least, double power) {
    double sum = 0, squares = 0, logs = 0, count = (double)(n * (n + 1) / 2);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j <= i; j++) {
            double w = map[i * n + j] > least ? map[i * n + j] : least, y = power_of(w, least, power);
            sum += y;
            squares += y * y;
            logs += log(w);
        }
    }
    double variance = squares / count - sum / count * (sum / count);
    return -count / 2 * log(variance > 1e-300 ? variance : 1e-300) + (power - 1) * logs;
}

/* Thirds: the likelihood has one maximum. */
double fvi_dam_power(const double *map, int64_t n, double least) {
    double from = -2, to = 2;
    for (int i = 0; i < STEPS && to - from > 1e-6; i++) {
        double a = from + (to - from) / 3, b = to - (to - from) / 3;
        if (likelihood(map, n, least, a) < likelihood(map, n, least, b)) {
            from = a;
        } else {
            to = b;
        }
    }
    return (from + to) / 2;
}

void fvi_dam_transform(double *map, int64_t n, double least, double power) {
    double low = INFINITY, high = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j <= i; j++) {
            double y = power_of(map[i * n + j], least, power);
            map[i * n + j] = y;
            low = y < low ? y : low;
            high = y > high ? y : high;
        }
    }
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j <= i; j++) {
            map[i * n + j] = high > low ? (map[i * n + j] - low) / (high - low) : 1;
        }
    }
}

int64_t fvi_dam_threshold(const double *map, int64_t n, double threshold, unsigned char *mask) {
    int64_t set = 0;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < n; j++) {
            mask[i * n + j] = j <= i && map[i * n + j] >= threshold;
            set += mask[i * n + j];
        }
    }
    return set;
}

/* ---- lines ---- */

void fvi_dam_match(const unsigned char *mask, int64_t n, double match, int64_t shortest, fvi_dam_lines *out) {
    out->columns = out->diagonals = 0;
    for (int64_t at = 0; at < n; at++) {
        int64_t length = n - at, column = 0, diagonal = 0;
        for (int64_t i = at; i < n; i++) {
            column += mask[i * n + at];
            diagonal += mask[i * n + i - at];
        }
        if (length >= shortest && (double)column >= match * (double)length) {
            out->column[out->columns++] = (int32_t)at;
        }
        if (length >= shortest && (double)diagonal >= match * (double)length) {
            out->diagonal[out->diagonals++] = (int32_t)at;
        }
    }
}

static bool holds(const int32_t *list, int64_t n, int64_t x) {
    int64_t low = 0, high = n;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (list[middle] < x) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < n && list[low] == x;
}

fvi_dam_report fvi_dam_compare(const unsigned char *mask, const double *mean, int64_t n, const fvi_dam_lines *lines) {
    fvi_dam_report r = {0};
    for (int64_t i = 0; i < n; i++) {
        double kept = 0, all = 0;
        for (int64_t j = 0; j <= i; j++) {
            bool drawn = holds(lines->column, lines->columns, j) || holds(lines->diagonal, lines->diagonals, i - j);
            r.set += mask[i * n + j];
            r.drawn += drawn;
            r.both += drawn && mask[i * n + j];
            kept += drawn ? mean[i * n + j] : 0;
            all += mean[i * n + j];
        }
        r.mass += all > 0 ? kept / all / (double)n : 0;
    }
    int64_t either = r.set + r.drawn - r.both;
    r.recall = r.set > 0 ? (double)r.both / (double)r.set : 1;
    r.precision = r.drawn > 0 ? (double)r.both / (double)r.drawn : 1;
    r.jaccard = either > 0 ? (double)r.both / (double)either : 1;
    r.density = n > 0 ? (double)r.drawn / (double)(n * (n + 1) / 2) : 0;
    return r;
}

int64_t fvi_dam_numbers(const fvi_dam_lines *lines, double *number) {
    int64_t n = 0;
    number[n++] = (double)lines->columns;
    for (int64_t i = 0; i < lines->columns; i++) {
        number[n++] = lines->column[i];
    }
    for (int64_t i = 0; i < lines->diagonals; i++) {
        number[n++] = lines->diagonal[i];
    }
    return n;
}
