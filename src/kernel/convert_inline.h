/* convert_inline.h - the bodies of convert.h in plain C without branches, compiled once for each level. All levels give the same
 * bits. Products of a scale and a quantised weight are rounded to f32 once, in every type. */
#ifndef FVI_CONVERT_INLINE_H
#define FVI_CONVERT_INLINE_H

#include "kernel/convert.h"

static inline void convert_from_f16(const uint16_t *row, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) {
        out[i] = fvi_convert_f16(row[i]);
    }
}

static inline void convert_from_bf16(const uint16_t *row, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) {
        out[i] = fvi_bf16_to_f32(row[i]);
    }
}

static inline void convert_from_q8_0(const fvi_block_q8_0 *row, int64_t n, float *out) {
    for (int64_t b = 0; b < n / FVI_BLOCK; b++) {
        float scale = fvi_convert_f16(row[b].scale);
        for (int i = 0; i < FVI_BLOCK; i++) {
            out[b * FVI_BLOCK + i] = scale * (float)row[b].q[i];
        }
    }
}

static inline void convert_from_q4_0(const fvi_block_q4_0 *row, int64_t n, float *out) {
    for (int64_t b = 0; b < n / FVI_BLOCK; b++) {
        float scale = fvi_convert_f16(row[b].scale);
        float *low = out + b * FVI_BLOCK, *high = low + 16;
        for (int i = 0; i < 16; i++) {
            low[i] = scale * (float)((row[b].q[i] & 15) - 8);
            high[i] = scale * (float)((row[b].q[i] >> 4) - 8);
        }
    }
}

static inline void convert_from_q4_1(const fvi_block_q4_1 *row, int64_t n, float *out) {
    for (int64_t b = 0; b < n / FVI_BLOCK; b++) {
        float scale = fvi_convert_f16(row[b].scale), least = fvi_convert_f16(row[b].least);
        float *low = out + b * FVI_BLOCK, *high = low + 16;
        for (int i = 0; i < 16; i++) {
            low[i] = scale * (float)(row[b].q[i] & 15) + least;
            high[i] = scale * (float)(row[b].q[i] >> 4) + least;
        }
    }
}

static inline bool convert_to_f32(fv_dtype dtype, const void *row, int64_t n, float *out) {
    switch (dtype) {
    case FV_F32:
        memcpy(out, row, (size_t)n * sizeof *out);
        return true;
    case FV_F16:
        convert_from_f16(row, n, out);
        return true;
    case FV_BF16:
        convert_from_bf16(row, n, out);
        return true;
    case FV_Q8_0:
        convert_from_q8_0(row, n, out);
        return true;
    case FV_Q4_0:
        convert_from_q4_0(row, n, out);
        return true;
    case FV_Q4_1:
        convert_from_q4_1(row, n, out);
        return true;
    default:
        return false;
    }
}

static inline void convert_to_bf16(int64_t n, const float *x, uint16_t *out) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        uint32_t quiet = bits >> 16 | 0x40;
        out[i] = (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
    }
}

static inline void convert_pack(int64_t n, int64_t k, const uint16_t *w, uint16_t *out) {
    for (int64_t i = 0; i < fvi_round_up(n, 64); i += 64) {
        for (int64_t j = 0; j < fvi_round_up(k, 32); j += 2) {
            for (int64_t r = i; r < i + 64; r++, out += 2) {
                out[0] = r < n && j < k ? w[r * k + j] : 0;
                out[1] = r < n && j + 1 < k ? w[r * k + j + 1] : 0;
            }
        }
    }
}

#endif
