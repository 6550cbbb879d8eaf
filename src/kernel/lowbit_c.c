/* lowbit_c.c - lowbit.h in portable C, and the choice of a level. */
#include "kernel/lowbit.h"

#include <math.h>

static float largest(const float *x, int64_t d) {
    float most = 0;
    for (int64_t c = 0; c < d; c++) {
        most = fabsf(x[c]) > most ? fabsf(x[c]) : most;
    }
    return most;
}

/* Ties to even. The factor of what is not finite is 0 or NaN: zeros. */
static int8_t digit(float x) {
    float moved = x + 12582912.0f; /* 3 * 2^22: its last place is 1 */
    return fabsf(x) <= 7.5f ? (int8_t)(moved - 12582912.0f) : 0;
}

static float digits(const float *x, int64_t d, int8_t *out) {
    float most = largest(x, d), factor = most > 0 ? 7 / most : 0;
    for (int64_t c = 0; c < fvi_lowbit_width(d); c++) {
        out[c] = c < d ? digit(x[c] * factor) : 0;
    }
    return most / 7;
}

/* Products of a row with all keys, times the row's factor. */
static void dots(const fvi_lowbit_rows *rows, int r, const uint8_t *kt, int32_t dot[FVI_LOWBIT_KEYS]) {
    for (int j = 0; j < FVI_LOWBIT_KEYS; j++) {
        dot[j] = rows->zero[r];
    }
    for (int c = 0; c < rows->width; c += 4) {
        const int8_t *q = rows->q + fvi_lowbit_at(r, c, rows->width);
        const uint8_t *k = kt + (c + 4) * FVI_LOWBIT_KEYS;
        for (int j = 0; j < FVI_LOWBIT_KEYS; j++) {
            dot[j] += q[0] * k[4 * j] + q[1] * k[4 * j + 1] + q[2] * k[4 * j + 2] + q[3] * k[4 * j + 3];
        }
    }
}

static unsigned above(const fvi_lowbit_rows *rows, const uint8_t *kt, const float *scale, const float *added, unsigned halves,
                      fvi_lowbit_hint *hint) {
    const float per_factor = 1 / (float)fvi_lowbit_factor(rows->width);
    unsigned found = 0;
    int32_t dot[FVI_LOWBIT_KEYS];
    (void)hint;
    for (int r = 0; r < rows->n && found != halves; r++) {
        dots(rows, r, kt, dot);
        for (int j = 0; j < FVI_LOWBIT_KEYS; j++) {
            float x = (float)dot[j] * per_factor * scale[j] + (added[j] * rows->per_scale[r] - rows->limit[r]);
            found |= (unsigned)(x > 0) << j / FVI_LOWBIT_PART & halves;
        }
    }
    return found;
}

void fvi_lowbit_c(fvi_lowbit_ops *ops) { *ops = (fvi_lowbit_ops){.digits = digits, .above = above}; }

void fvi_lowbit_init(const fvi_cpu *cpu, fvi_lowbit_ops *ops) {
    fvi_lowbit_c(ops);
#if defined(__x86_64__)
    if (cpu->avx512_vnni) {
        fvi_lowbit_avx512vnni(ops);
    }
#else
    (void)cpu;
#endif
}
