/* lowbit_pack.c - rows and keys as lowbit.h has them.
 *
 * The bytes of the edge, and what they stand for, f being the factor of the rows' integers:
 *   keys   U = 1 / scale,  W = added / scale from `most` down,   lengths times sqrt(2 f), of both parts of the last numbers
 *   rows  -L = -f limit,   P = f per_scale,                      lengths times sqrt(f / 2)
 * U, L and P are rounded down, W and lengths up: f (dot - limit / scale + per_scale added / scale) is never above the sum. A
 * limit below 0 would have to be rounded the other way, and such rows are always asked exactly. */
#include "kernel/lowbit.h"

#include <math.h>
#include <string.h>

enum { TYPICAL = 120, LEVELS = 127, FAR = 1 << 28 };

/* Rounded up: the length of integers, times `unit`. At most 7 sqrt(48) unit. */
static int length(const int8_t *digit, int64_t from, int64_t to, float unit) {
    int sum = 0;
    for (int64_t c = from; c < to; c++) {
        sum += digit[c] * digit[c];
    }
    return sum == 0 ? 0 : (int)(unit * sqrtf((float)sum)) + 1;
}

float fvi_lowbit_row(const fvi_lowbit_ops *ops, const float *x, int64_t d, int64_t r, int8_t *q, int32_t *zero, int32_t *late) {
    const int64_t width = fvi_lowbit_width(d), early = fvi_lowbit_early(width), second = fvi_lowbit_second(width);
    const int factor = fvi_lowbit_factor(width);
    const float unit = sqrtf((float)factor / 2);
    int8_t digit[256];
    const float scale = ops->digits(x, d, digit);
    const int lengths[2] = {length(digit, early, second, unit), length(digit, second, width, unit)};
    int32_t sum = 0, last = 0;
    for (int64_t c = 0; c < width; c++) {
        digit[c] = (int8_t)(digit[c] * factor);
        sum += digit[c];
        last += c < early ? 0 : digit[c];
    }
    for (int64_t c = 0; c < width; c += 4) {
        memcpy(q + fvi_lowbit_at(r, c, width), digit + c, 4);
    }
    const int8_t ahead[4] = {0, 0, (int8_t)lengths[0], (int8_t)lengths[1]};
    const int8_t back[4] = {0, 0, (int8_t)-lengths[0], (int8_t)-lengths[1]};
    memcpy(q + fvi_lowbit_byte(r, 0, width + 8), ahead, 4);
    memcpy(q + fvi_lowbit_byte(r, early + 4, width + 8), back, 4);
    *zero = -8 * sum;
    *late = -8 * last;
    return scale;
}

float fvi_lowbit_key(const fvi_lowbit_ops *ops, const float *x, int64_t d, int j, uint8_t *kt) {
    const int64_t width = fvi_lowbit_width(d), early = fvi_lowbit_early(width), second = fvi_lowbit_second(width);
    const float unit = sqrtf((float)fvi_lowbit_factor(width) * 2);
    int8_t digit[256];
    const float scale = ops->digits(x, d, digit);
    const uint8_t edge[4] = {0, 0, (uint8_t)length(digit, early, second, unit), (uint8_t)length(digit, second, width, unit)};
    memcpy(kt + 4 * j, edge, 4);
    for (int64_t c = 0; c < width; c++) {
        digit[c] = (int8_t)(digit[c] + 8);
    }
    for (int64_t c = 0; c < width; c += 4) {
        memcpy(kt + (c + 4) * FVI_LOWBIT_KEYS + 4 * j, digit + c, 4);
    }
    return scale;
}

/* What is not finite is never above, or makes `most` so, and then rows are asked exactly. */
fvi_lowbit_units fvi_lowbit_units_of(int64_t n, const float *scale, const float *added) {
    float least = INFINITY, most = -INFINITY;
    double sum = 0;
    int64_t there = 0;
    for (int64_t j = 0; j < n; j++) {
        const float per = 1 / scale[j], w = added[j] * per;
        if (isfinite(per) && per > 0) {
            sum += per;
            there++;
            most = w > most ? w : most;
            least = w < least && w >= -3e38f ? w : least;
        }
    }
    if (!(most >= least)) {
        most = most > 3e38f ? most : 0;
        least = most;
    }
    const float unit = there > 0 ? (float)(sum / (double)there / TYPICAL) : 1;
    return (fvi_lowbit_units){unit, (most - least) / LEVELS, most, fmaxf(fabsf(most), fabsf(least))};
}

/* Rounded down, 0 .. most; 0 for NaN. */
static int level(float x, int most) { return !(x > 0) ? 0 : x >= (float)most ? most : (int)x; }

void fvi_lowbit_key_edges(const fvi_lowbit_units *u, const float *scale, const float *added, uint8_t *kt) {
    const float per_unit = 1 / u->per_scale, per_level = u->added > 0 ? 1 / u->added : 0;
    for (int j = 0; j < FVI_LOWBIT_KEYS; j++) {
        const float per = 1 / scale[j];
        kt[4 * j] = (uint8_t)level(per * per_unit, 255);
        kt[4 * j + 1] = (uint8_t)(LEVELS - level((u->most - added[j] * per) * per_level, LEVELS));
    }
}

int32_t fvi_lowbit_row_edge(const fvi_lowbit_units *u, int64_t width, int64_t r, float per_scale, float limit, int32_t zero,
                            int8_t *q) {
    const float factor = (float)fvi_lowbit_factor(width);
    const int l = level(limit * factor * u->per_scale, 127), p = level(per_scale * factor * u->added, 127);
    q[fvi_lowbit_byte(r, 0, width + 8)] = (int8_t)-l;
    q[fvi_lowbit_byte(r, 1, width + 8)] = (int8_t)p;
    if (isnan(limit) || limit == INFINITY) {
        return -FAR;
    }
    /* for what f32 rounds, here and in the pair's own arithmetic */
    const float slack = 1 + 1e-5f * (per_scale * u->magnitude + 49 * (float)width);
    const float start = factor * (per_scale * u->most + slack) - (float)(LEVELS * p);
    return limit >= 0 && fabsf(start) < (float)(FAR / 4) ? zero + (int32_t)ceilf(start) : FAR;
}

int32_t fvi_lowbit_no_row(int64_t width, int64_t r, int8_t *q) {
    for (int64_t c = 0; c < width + 8; c++) {
        q[fvi_lowbit_byte(r, c, width + 8)] = 0;
    }
    return -FAR;
}
