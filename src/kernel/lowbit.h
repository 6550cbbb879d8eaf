/* lowbit.h - estimates of scores from numbers of four bits, for all pairs of some rows and 64 keys.
 *
 * A row or key x of d numbers is kept as integers round(7 x / largest |x|) and its scale, largest |x| / 7. Integers are held in
 * bytes, those of keys moved up by 8, so that products of unsigned and signed bytes add up four at a time; width = d rounded up
 * to 4. What a pair gives is exact in integers, and then a few operations in f32, whose rounding differs from level to level. */
#ifndef FVI_KERNEL_LOWBIT_H
#define FVI_KERNEL_LOWBIT_H

#include "base/base.h"

enum { FVI_LOWBIT_KEYS = 64, FVI_LOWBIT_PART = 32 };

static inline int64_t fvi_lowbit_width(int64_t d) { return fvi_round_up(d, 4); }
/* Bytes of packed keys. */
static inline int64_t fvi_lowbit_bytes(int64_t d) { return fvi_lowbit_width(d) * FVI_LOWBIT_KEYS; }

/* Rows that are compared with thresholds. */
typedef struct fvi_lowbit_rows {
    int n, width;
    const int8_t *q;        /* (n, width), 4-byte aligned */
    const int32_t *start;   /* (n) -8 times the sum of the row's integers */
    const float *per_scale; /* (n) 1 / scale */
    const float *limit;     /* (n) the threshold / scale */
} fvi_lowbit_rows;

typedef struct fvi_lowbit_ops {
    /* For each half of the keys the largest, over rows and keys, of
     *   dot(row, key) * scale[key] + added[key] / row's scale - limit[row],
     * which is above 0 where a pair's estimate dot * row's scale * scale[key] + added[key] is above the row's threshold.
     * kt (width / 4, 64, 4), scale (64) and added (64) are 64-byte aligned. -inf where there are no rows; NaN is not the
     * largest. */
    void (*excess)(const fvi_lowbit_rows *rows, const uint8_t *kt, const float *scale, const float *added, float most[2]);
} fvi_lowbit_ops;

/* Integers of a row x (d): out (width), zeros past d; returns the scale, 0 for zeros. */
float fvi_lowbit_row(const float *x, int64_t d, int8_t *out);
/* Of key number j: its place in kt. */
float fvi_lowbit_key(const float *x, int64_t d, int j, uint8_t *kt);

/* Portable C first, then overwritten level by level up to what `cpu` allows. */
void fvi_lowbit_init(const fvi_cpu *cpu, fvi_lowbit_ops *ops);

void fvi_lowbit_c(fvi_lowbit_ops *ops);
void fvi_lowbit_avx512vnni(fvi_lowbit_ops *ops);

#endif
