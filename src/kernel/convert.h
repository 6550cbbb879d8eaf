/* convert.h - rows of numbers from one type to another, and the layouts of the quantised blocks.
 *
 * Portable C whose loops have no branches, so that the compiler vectorises them. */
#ifndef FVI_CONVERT_H
#define FVI_CONVERT_H

#include "base/base.h"

#include <string.h>

enum { FVI_BLOCK = 32 }; /* weights in a quantised block */

typedef struct fvi_block_q8_0 {
    uint16_t scale; /* f16 */
    int8_t q[32];
} fvi_block_q8_0;

/* Nibbles: byte i holds weight i below and weight i + 16 above. */
typedef struct fvi_block_q4_0 {
    uint16_t scale; /* f16; weight = scale * (nibble - 8) */
    uint8_t q[16];
} fvi_block_q4_0;

typedef struct fvi_block_q4_1 {
    uint16_t scale, least; /* f16; weight = scale * nibble + least */
    uint8_t q[16];
} fvi_block_q4_1;

/* As fvi_f16_to_f32, without branches and in line. */
static inline float fvi_convert_f16(uint16_t h) {
    uint32_t bits = (uint32_t)(h & 0x7fff) << 13;
    float f;
    memcpy(&f, &bits, sizeof f);
    f *= 0x1p112f; /* moves the exponent's bias; subnormals come out right */
    memcpy(&bits, &f, sizeof bits);
    bits |= (h & 0x7c00) == 0x7c00 ? 0x7f800000u : 0;
    bits |= (uint32_t)(h & 0x8000) << 16;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* out[0..n) = the n elements at `row`, of type F32, F16, BF16, Q8_0, Q4_0 or Q4_1, exactly. n is a multiple of 32 for the
 * quantised types. False, and nothing is written, for other types. */
bool fvi_convert_to_f32(fv_dtype dtype, const void *row, int64_t n, float *out);
/* Rounds to nearest even; overflow gives infinity, NaN stays NaN. */
void fvi_convert_to_f16(int64_t n, const float *x, uint16_t *out);
void fvi_convert_to_bf16(int64_t n, const float *x, uint16_t *out);

/* Elements of the packed form of (n, k) bf16. */
static inline int64_t fvi_convert_packed(int64_t n, int64_t k) { return fvi_round_up(n, 64) * fvi_round_up(k, 32); }

/* These behind a table, for the loops of a prompt; the same bits at every level. */
typedef struct fvi_convert_ops {
    bool (*to_f32)(fv_dtype dtype, const void *row, int64_t n, float *out);
    void (*to_bf16)(int64_t n, const float *x, uint16_t *out);
    /* w (n, k) as products of pairs of bf16 read it: blocks of 64 rows, in them blocks of 32 columns, in them 16 pairs of
     * columns, of each 64 rows' two elements side by side; zeros where there are no rows or columns. out is 64-byte aligned. */
    void (*pack)(int64_t n, int64_t k, const uint16_t *w, uint16_t *out);
} fvi_convert_ops;

void fvi_convert_init(const fvi_cpu *cpu, fvi_convert_ops *ops);
void fvi_convert_c(fvi_convert_ops *ops);
void fvi_convert_avx2(fvi_convert_ops *ops);
void fvi_convert_avx512(fvi_convert_ops *ops);

#endif
