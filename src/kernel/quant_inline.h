/* quant_inline.h - the bodies of quant.h in plain C, in loops that compilers vectorise; compiled once for each level that has no
 * better ones. */
#ifndef FVI_QUANT_INLINE_H
#define FVI_QUANT_INLINE_H

#include "kernel/quant.h"

#include "kernel/convert.h"

#include <math.h>

/* Bits of the largest |x| of a block: as integers they order like the numbers, with infinities and NaN above all. */
static inline uint32_t quant_largest(const float *x) {
    uint32_t most = 0, bits[FVI_QUANT_BLOCK];
    memcpy(bits, x, sizeof bits);
    for (int i = 0; i < FVI_QUANT_BLOCK; i++) {
        uint32_t size = bits[i] & 0x7fffffff;
        most = size > most ? size : most;
    }
    return most;
}

/* The scale as stored, and its reciprocal; 0 for a block of zeros or, with the scale a NaN, for one that cannot be held. */
static inline float quant_scale(uint32_t largest, float d, uint16_t *scale) {
    uint16_t h = fvi_f32_to_f16(d);
    bool held = largest < 0x7f800000 && (h & 0x7fff) < 0x7c00;
    *scale = held ? h : 0x7e00;
    return held && (h & 0x7fff) != 0 ? 1.0f / d : 0.0f;
}

static inline void quant_q8_0(const float *x, int d, void *row, uint16_t *scale) {
    int8_t *q = row;
    for (; d > 0; d -= FVI_QUANT_BLOCK, x += FVI_QUANT_BLOCK, q += FVI_QUANT_BLOCK, scale += FVI_QUANT_ROWS) {
        uint32_t largest = quant_largest(x);
        float size;
        memcpy(&size, &largest, sizeof size);
        float by = quant_scale(largest, size / 127.0f, scale);
        if (by == 0) {
            memset(q, 0, FVI_QUANT_BLOCK);
            continue;
        }
        for (int i = 0; i < FVI_QUANT_BLOCK; i++) {
            float y = x[i] * by + 0x1.8p23f; /* leaves the nearest integer, ties to even, in the low bits */
            uint32_t bits;
            memcpy(&bits, &y, sizeof bits);
            q[i] = (int8_t)bits;
        }
    }
}

/* The first element of the largest |x|. */
static inline float quant_extreme(const float *x, uint32_t largest) {
    int at = FVI_QUANT_BLOCK;
    for (int i = 0; i < FVI_QUANT_BLOCK; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        int here = (bits & 0x7fffffff) == largest ? i : FVI_QUANT_BLOCK;
        at = here < at ? here : at;
    }
    return x[at];
}

static inline void quant_q4_0(const float *x, int d, void *row, uint16_t *scale) {
    uint8_t *q = row;
    for (; d > 0; d -= FVI_QUANT_BLOCK, x += FVI_QUANT_BLOCK, q += FVI_QUANT_BLOCK / 2, scale += FVI_QUANT_ROWS) {
        uint32_t largest = quant_largest(x);
        float by = quant_scale(largest, quant_extreme(x, largest) / -8.0f, scale);
        if (by == 0) {
            memset(q, 0x88, FVI_QUANT_BLOCK / 2);
            continue;
        }
        for (int i = 0; i < FVI_QUANT_BLOCK / 2; i++) {
            int low = (int)(x[i] * by + 8.5f), high = (int)(x[i + FVI_QUANT_BLOCK / 2] * by + 8.5f);
            q[i] = (uint8_t)((low < 15 ? low : 15) | (high < 15 ? high : 15) << 4);
        }
    }
}

static inline void quant_block_q8_0(const uint8_t *q, float scale, float *out) {
    for (int i = 0; i < FVI_QUANT_BLOCK; i++) {
        out[i] = scale * (float)(int8_t)q[i];
    }
}

static inline void quant_block_q4_0(const uint8_t *q, float scale, float *out) {
    for (int i = 0; i < FVI_QUANT_BLOCK / 2; i++) {
        out[i] = scale * (float)((q[i] & 15) - 8);
        out[i + FVI_QUANT_BLOCK / 2] = scale * (float)((q[i] >> 4) - 8);
    }
}

static inline void quant_to_f32(fv_dtype dtype, const void *rows, int64_t row_bytes, const uint16_t *scale, int n, int d,
                                float *out) {
    for (int j = 0; j < n; j++) {
        const uint8_t *row = (const uint8_t *)rows + j * row_bytes;
        for (int i = 0; i < d / FVI_QUANT_BLOCK; i++, out += FVI_QUANT_BLOCK) {
            float by = fvi_convert_f16(scale[i * FVI_QUANT_ROWS + j]);
            if (dtype == FV_Q8_0) {
                quant_block_q8_0(row + i * FVI_QUANT_BLOCK, by, out);
            } else {
                quant_block_q4_0(row + i * FVI_QUANT_BLOCK / 2, by, out);
            }
        }
    }
}

static inline void quant_to_bf16(fv_dtype dtype, const void *rows, int64_t row_bytes, const uint16_t *scale, int n, int d,
                                 uint16_t *out) {
    for (int j = 0; j < n; j++, out += d) {
        float wide[256];
        quant_to_f32(dtype, (const uint8_t *)rows + j * row_bytes, 0, scale + j, 1, d, wide);
        for (int c = 0; c < d; c++) {
            uint32_t bits;
            memcpy(&bits, &wide[c], sizeof bits);
            uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
            out[c] = (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : rounded);
        }
    }
}

/* Stages of sums and differences of elements `step` apart, from `step` on. */
static inline void quant_rotate_from(float *x, int d, int step) {
    int width = (int)fvi_rotation_width(d);
    for (; step < width; step *= 2) {
        for (int i = 0; i < d; i += 2 * step) {
            for (int j = i; j < i + step; j++) {
                float a = x[j], b = x[j + step];
                x[j] = a + b;
                x[j + step] = a - b;
            }
        }
    }
    float by = 1.0f / sqrtf((float)width);
    for (int i = 0; i < d; i++) {
        x[i] *= by;
    }
}

/* The table of the loops above, compiled for the file that asks. */

static inline void plain_q8_0(const float *x, int d, void *row, uint16_t *scale) { quant_q8_0(x, d, row, scale); }
static inline void plain_q4_0(const float *x, int d, void *row, uint16_t *scale) { quant_q4_0(x, d, row, scale); }
static inline void plain_f32_from_q8_0(const void *rows, int64_t row_bytes, const uint16_t *scale, int n, int d, float *out) {
    quant_to_f32(FV_Q8_0, rows, row_bytes, scale, n, d, out);
}
static inline void plain_f32_from_q4_0(const void *rows, int64_t row_bytes, const uint16_t *scale, int n, int d, float *out) {
    quant_to_f32(FV_Q4_0, rows, row_bytes, scale, n, d, out);
}
static inline void plain_bf16_from_q8_0(const void *rows, int64_t row_bytes, const uint16_t *scale, int n, int d, uint16_t *out) {
    quant_to_bf16(FV_Q8_0, rows, row_bytes, scale, n, d, out);
}
static inline void plain_bf16_from_q4_0(const void *rows, int64_t row_bytes, const uint16_t *scale, int n, int d, uint16_t *out) {
    quant_to_bf16(FV_Q4_0, rows, row_bytes, scale, n, d, out);
}
static inline void plain_rotate(float *x, int d) { quant_rotate_from(x, d, 1); }

static inline fvi_quant_ops quant_plain(const char *name) {
    return (fvi_quant_ops){
        .name = name,
        .quantise = {[FV_Q8_0] = plain_q8_0, [FV_Q4_0] = plain_q4_0},
        .to_f32 = {[FV_Q8_0] = plain_f32_from_q8_0, [FV_Q4_0] = plain_f32_from_q4_0},
        .to_bf16 = {[FV_Q8_0] = plain_bf16_from_q8_0, [FV_Q4_0] = plain_bf16_from_q4_0},
        .rotate = plain_rotate,
    };
}

#endif
