/* lowbit.h - estimates of scores from numbers of four bits, for all pairs of some rows and 64 keys.
 *
 * A row or key x of d numbers is kept as integers round(7 x / largest |x|) and its scale, largest |x| / 7. Integers are held in
 * bytes, those of keys moved up by 8, so that products of unsigned and signed bytes add up four at a time; width = d rounded up
 * to 4. What a pair gives is exact in integers, and then a few operations in f32, whose rounding differs from level to level. */
#ifndef FVI_KERNEL_LOWBIT_H
#define FVI_KERNEL_LOWBIT_H

#include "base/base.h"

enum { FVI_LOWBIT_KEYS = 64, FVI_LOWBIT_PART = 32, FVI_LOWBIT_ROWS = 8 };

static inline int64_t fvi_lowbit_width(int64_t d) { return fvi_round_up(d, 4); }
/* Bytes of packed keys. */
static inline int64_t fvi_lowbit_bytes(int64_t d) { return fvi_lowbit_width(d) * FVI_LOWBIT_KEYS; }
/* Where number c of row r stands among the packed rows: eight rows side by side, by four numbers. */
static inline int64_t fvi_lowbit_at(int64_t r, int64_t c, int64_t width) {
    const int64_t rows = FVI_LOWBIT_ROWS;
    return r / rows * rows * width + (c / 4 * rows + r % rows) * 4 + c % 4;
}

/* Rows that are compared with thresholds. All arrays go on to a multiple of 8 rows; those past n are zeros, and of limit +inf. */
typedef struct fvi_lowbit_rows {
    int n, width;
    const int8_t *q;        /* (ceil(n / 8), width / 4, 8, 4), 4-byte aligned */
    const int32_t *start;   /* -8 times the sum of the row's integers */
    const float *per_scale; /* 1 / scale */
    const float *limit;     /* the threshold / scale */
} fvi_lowbit_rows;

typedef struct fvi_lowbit_ops {
    /* Which halves of the keys have a pair above its row's threshold: bit h, if for some row and key of half h
     *   dot(row, key) * scale[key] + added[key] / row's scale - limit[row] > 0,
     * that is, if the estimate dot * row's scale * scale[key] + added[key] is above the row's threshold. NaN is not. `halves`:
     * those that are asked for. kt (width / 4, 64, 4), scale (64) and added (64) are 64-byte aligned. Costs as many rows as it
     * takes to find one, by eights. */
    unsigned (*above)(const fvi_lowbit_rows *rows, const uint8_t *kt, const float *scale, const float *added, unsigned halves);
} fvi_lowbit_ops;

/* Integers of a row x (d), as row number r: its places among q, zeros past d; returns the scale, 0 for zeros. */
float fvi_lowbit_row(const float *x, int64_t d, int64_t r, int8_t *q);
/* Of key number j: its place in kt. */
float fvi_lowbit_key(const float *x, int64_t d, int j, uint8_t *kt);

/* Portable C first, then overwritten level by level up to what `cpu` allows. */
void fvi_lowbit_init(const fvi_cpu *cpu, fvi_lowbit_ops *ops);

void fvi_lowbit_c(fvi_lowbit_ops *ops);
void fvi_lowbit_avx512vnni(fvi_lowbit_ops *ops);

#endif
