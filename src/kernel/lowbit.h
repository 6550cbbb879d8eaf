/* lowbit.h - estimates of scores from numbers of four bits, for all pairs of some rows and 64 keys.
 *
 * A row or key x of d numbers is kept as integers round(7 x / largest |x|) and its scale, largest |x| / 7. Integers are held in
 * bytes, those of keys moved up by 8 and those of rows times a factor, so that products of unsigned and signed bytes add up four
 * at a time; width = d rounded up to 4. What a pair gives is exact in integers, and then a few operations in f32, whose rounding
 * differs from level to level.
 *
 * The edge. Nearly all pairs are far below their row's threshold, and integers can tell: dot(row, key) has to be above
 *   limit[row] / scale[key] - per_scale[row] * added[key] / scale[key],
 * two products of what is the row's and what is the key's. Four bytes of each hold these factors, rounded so that the difference
 * is never too large, and the lengths of two parts of the last numbers, whose products are never less than what these numbers
 * will add. A sum over the edge and the first numbers that is negative needs no more of them; one over the edge and all numbers,
 * less the lengths again, no arithmetic in f32. Which numbers are first is the caller's: the larger they are, the sooner it is
 * known. */
#ifndef FVI_KERNEL_LOWBIT_H
#define FVI_KERNEL_LOWBIT_H

#include "base/base.h"

enum { FVI_LOWBIT_KEYS = 64, FVI_LOWBIT_PART = 32, FVI_LOWBIT_ROWS = 8 };

static inline int64_t fvi_lowbit_width(int64_t d) { return fvi_round_up(d, 4); }
/* What integers of rows are multiplied by: units of the edge. */
static inline int fvi_lowbit_factor(int64_t width) { return width <= 128 ? 16 : 8; }
/* Numbers before the first of the last ones, and before their second part: multiples of 4. */
static inline int64_t fvi_lowbit_early(int64_t width) { return (width / 4 - width / 4 * 3 / 8) * 4; }
static inline int64_t fvi_lowbit_second(int64_t width) { return (width - (width - fvi_lowbit_early(width)) / 8 * 4); }
/* Bytes of packed keys: their edge (64, 4), then (width / 4, 64, 4). */
static inline int64_t fvi_lowbit_bytes(int64_t d) { return (fvi_lowbit_width(d) + 4) * FVI_LOWBIT_KEYS; }
/* Bytes of a packed row: its edge, the early numbers, the edge that takes the lengths back, the last numbers. */
static inline int64_t fvi_lowbit_row_bytes(int64_t d) { return fvi_lowbit_width(d) + 8; }
/* Where byte c of row r stands: eight rows side by side, by four bytes. */
static inline int64_t fvi_lowbit_byte(int64_t r, int64_t c, int64_t row_bytes) {
    const int64_t rows = FVI_LOWBIT_ROWS;
    return r / rows * rows * row_bytes + (c / 4 * rows + r % rows) * 4 + c % 4;
}
/* Where its number c does. */
static inline int64_t fvi_lowbit_at(int64_t r, int64_t c, int64_t width) {
    return fvi_lowbit_byte(r, c + (c < fvi_lowbit_early(width) ? 4 : 8), width + 8);
}

/* Rows that are compared with thresholds. All arrays go on to a multiple of 8 rows; those past n are zeros, of limit +inf. */
typedef struct fvi_lowbit_rows {
    int n, width;
    const int8_t *q;        /* (ceil(n / 8), width / 4 + 2, 8, 4), 4-byte aligned */
    const int32_t *zero;    /* -8 times the sum of the row's integers times their factor */
    const int32_t *late;    /* the last numbers' part of it */
    const int32_t *start;   /* what the sum that begins with the edge begins with */
    const float *per_scale; /* 1 / scale, 0 or more */
    const float *limit;     /* the threshold / scale */
} fvi_lowbit_rows;

/* What the bytes of the edge count in, for all keys that rows meet. */
typedef struct fvi_lowbit_units {
    float per_scale;       /* of 1 / scale[key] */
    float added;           /* of added[key] / scale[key], down from `most` */
    float most, magnitude; /* the largest of these, and the largest of their magnitudes */
} fvi_lowbit_units;

/* What the keys before these were like; zeros before the first. It changes what is fast, and no answer. */
typedef struct fvi_lowbit_hint {
    int lead;          /* the eight rows that had a pair: they are asked first */
    int asked, passed; /* eights, of late, and those of them that went on to the last numbers */
    int whole;         /* halves that were asked for all numbers at once, since that became the faster way */
} fvi_lowbit_hint;

typedef struct fvi_lowbit_ops {
    /* Integers of x (d) to out (width), zeros past d; returns the scale, 0 for zeros. */
    float (*digits)(const float *x, int64_t d, int8_t *out);
    /* Which halves of the keys have a pair above its row's threshold: bit h, if for some row and key of half h
     *   dot(row, key) * scale[key] + added[key] * per_scale[row] - limit[row] > 0,
     * that is, if the estimate dot * row's scale * scale[key] + added[key] is above the row's threshold. NaN is not. `halves`:
     * those that are asked for. kt (as fvi_lowbit_bytes has it), scale (64) and added (64) are 64-byte aligned; a key of scale 0
     * has added 0. Costs as many rows as it takes to find one, by eights. */
    unsigned (*above)(const fvi_lowbit_rows *rows, const uint8_t *kt, const float *scale, const float *added, unsigned halves,
                      fvi_lowbit_hint *hint);
} fvi_lowbit_ops;

/* Packs x (d) as row r of q, all but its factors in the edge; *zero and *late as in rows; returns the scale. */
float fvi_lowbit_row(const fvi_lowbit_ops *ops, const float *x, int64_t d, int64_t r, int8_t *q, int32_t *zero, int32_t *late);
/* As key j of kt, likewise. */
float fvi_lowbit_key(const fvi_lowbit_ops *ops, const float *x, int64_t d, int j, uint8_t *kt);

/* Of keys with these scales and `added` (n). */
fvi_lowbit_units fvi_lowbit_units_of(int64_t n, const float *scale, const float *added);
/* Factors in the edge of 64 keys. */
void fvi_lowbit_key_edges(const fvi_lowbit_units *u, const float *scale, const float *added, uint8_t *kt);
/* Of row r, which is packed; returns its start. zero: that of the early numbers. */
int32_t fvi_lowbit_row_edge(const fvi_lowbit_units *u, int64_t width, int64_t r, float per_scale, float limit, int32_t zero,
                            int8_t *q);
/* Packs row r as one that is not there; returns its start. All else of it is 0, and its limit +inf. */
int32_t fvi_lowbit_no_row(int64_t width, int64_t r, int8_t *q);

/* Portable C first, then overwritten level by level up to what `cpu` allows. */
void fvi_lowbit_init(const fvi_cpu *cpu, fvi_lowbit_ops *ops);

void fvi_lowbit_c(fvi_lowbit_ops *ops);
void fvi_lowbit_avx512vnni(fvi_lowbit_ops *ops);

#endif
