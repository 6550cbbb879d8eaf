/* quant.h - rows of K and V in blocks of 32 small integers, the blocks' scales apart; and the rotation before them.
 *
 * A page keeps the integers of its 64 rows side by side and, behind them, the f16 scales: block i of row j has the scale
 * scale[i * 64 + j], so that the scales of neighbouring keys are one vector. q8_0: element = scale * int8; q4_0: element =
 * scale * (nibble - 8), block i in bytes 16 i .. 16 i + 15, elements 0..15 in the low halves, 16..31 in the high ones.
 *
 * Rounding is that of ggml's formats: q8_0 takes scale = max |x| / 127, q4_0 scale = x / -8 for the first x of the largest |x|;
 * integers follow from the scale in f32, the scale is then rounded to f16. A block whose scale that leaves at 0 is all zeros. A
 * block with a number that is not finite, or a scale beyond f16, reads as NaN throughout. Every level gives the same bits.
 */
#ifndef FVI_KERNEL_QUANT_H
#define FVI_KERNEL_QUANT_H

#include "base/base.h"

enum { FVI_QUANT_BLOCK = 32, FVI_QUANT_ROWS = 64, FVI_QUANT_TYPES = FV_Q4_0 + 1 };

static inline bool fvi_quantised(fv_dtype dtype) { return dtype == FV_Q8_0 || dtype == FV_Q4_0; }
/* Bytes of a row's integers, without its scales. */
static inline int64_t fvi_quant_row_bytes(fv_dtype dtype, int64_t d) { return dtype == FV_Q8_0 ? d : d / 2; }
/* Elements that a rotation of rows of d mixes: the largest power of two that divides d. */
static inline int64_t fvi_rotation_width(int64_t d) { return d & -d; }

/* Those by type are for q8_0 and q4_0. d is a multiple of 32, at most 256; nothing needs to be aligned. */
typedef struct fvi_quant_ops {
    const char *name; /* "c", "avx2", "avx512", "avx512bf16" */
    /* One row; the scale of block i goes to scale[64 i]. */
    void (*quantise[FVI_QUANT_TYPES])(const float *x, int d, void *row, uint16_t *scale);
    /* n <= 64 rows to (n, d): products of scale and integer rounded to f32, and then to bf16. */
    void (*to_f32[FVI_QUANT_TYPES])(const void *rows, int64_t row_bytes, const uint16_t *scale, int n, int d, float *out);
    void (*to_bf16[FVI_QUANT_TYPES])(const void *rows, int64_t row_bytes, const uint16_t *scale, int n, int d, uint16_t *out);
    /* Orthonormal Walsh-Hadamard transform of one row of any d, in place: its own inverse. Adjacent elements first; one product
     * with 1 / sqrt(width) at the end. */
    void (*rotate)(float *x, int d);
} fvi_quant_ops;

/* Portable C first, then overwritten level by level up to what `cpu` allows. */
void fvi_quant_init(const fvi_cpu *cpu, fvi_quant_ops *ops);

/* The rungs; only those of the target processor are built. */
void fvi_quant_c(fvi_quant_ops *ops);
void fvi_quant_avx2(fvi_quant_ops *ops);
void fvi_quant_avx512(fvi_quant_ops *ops);
void fvi_quant_avx512bf16(fvi_quant_ops *ops);

#endif
