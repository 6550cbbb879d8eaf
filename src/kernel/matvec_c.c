/* matvec_c.c - level 0: portable C. A row is summed in 16 lanes, lane i taking elements i, i + 16, ..., which are folded by
 * halves; compilers turn the lanes into whatever vectors there are. */
#include "kernel/matvec_inline.h"

enum { LANES = 16 };

static float fold(float *lane) {
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            lane[i] += lane[i + half];
        }
    }
    return lane[0];
}

static void rows_f32(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    const float *row = w;
    for (int64_t r = 0; r < rows; r++, row += n_in) {
        float lane[LANES] = {0};
        int64_t i = 0;
        for (; i + LANES <= n_in; i += LANES) {
            for (int l = 0; l < LANES; l++) {
                lane[l] += row[i + l] * x[i + l];
            }
        }
        for (int l = 0; i + l < n_in; l++) {
            lane[l] += row[i + l] * x[i + l];
        }
        y[r] = fold(lane);
    }
}

static void rows_f16(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    const uint16_t *row = w;
    for (int64_t r = 0; r < rows; r++, row += n_in) {
        float lane[LANES] = {0};
        int64_t i = 0;
        for (; i + LANES <= n_in; i += LANES) {
            for (int l = 0; l < LANES; l++) {
                lane[l] += fvi_convert_f16(row[i + l]) * x[i + l];
            }
        }
        for (int l = 0; i + l < n_in; l++) {
            lane[l] += fvi_convert_f16(row[i + l]) * x[i + l];
        }
        y[r] = fold(lane);
    }
}

static void rows_bf16(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    const uint16_t *row = w;
    for (int64_t r = 0; r < rows; r++, row += n_in) {
        float lane[LANES] = {0};
        int64_t i = 0;
        for (; i + LANES <= n_in; i += LANES) {
            for (int l = 0; l < LANES; l++) {
                lane[l] += fvi_bf16_to_f32(row[i + l]) * x[i + l];
            }
        }
        for (int l = 0; i + l < n_in; l++) {
            lane[l] += fvi_bf16_to_f32(row[i + l]) * x[i + l];
        }
        y[r] = fold(lane);
    }
}

/* The quantised types: integer sums of four products in 8 lanes a block, blocks in turn into the lower and the upper half of 16
 * float sums. */

static void dot_q8_0(const int8_t *q, const int8_t *x, int32_t *lane) {
    for (int l = 0; l < 8; l++) {
        lane[l] = 0;
        for (int i = 4 * l; i < 4 * l + 4; i++) {
            lane[l] += q[i] * x[i];
        }
    }
}

static void dot_nibbles(const uint8_t *q, int least, const int8_t *x, int32_t *lane) {
    for (int l = 0; l < 4; l++) {
        lane[l] = lane[l + 4] = 0;
        for (int i = 4 * l; i < 4 * l + 4; i++) {
            lane[l] += ((q[i] & 15) + least) * x[i];
            lane[l + 4] += ((q[i] >> 4) + least) * x[i + 16];
        }
    }
}

static void dots_q8_0(const void *w, int64_t rows, int64_t n_in, const fvi_matvec_x *x, float *y) {
    const fvi_block_q8_0 *block = w;
    for (int64_t r = 0; r < rows; r++) {
        float sum[LANES] = {0};
        for (int64_t b = 0; b < n_in / FVI_BLOCK; b++, block++) {
            const int at = (int)(b % 2);
            const float scale = fvi_convert_f16(block->scale) * x[b / 2].scale[8 * at];
            int32_t lane[8];
            dot_q8_0(block->q, x[b / 2].q + 32 * at, lane);
            for (int l = 0; l < 8; l++) {
                sum[8 * at + l] += scale * (float)lane[l];
            }
        }
        y[r] = fold(sum);
    }
}

static void dots_q4_0(const void *w, int64_t rows, int64_t n_in, const fvi_matvec_x *x, float *y) {
    const fvi_block_q4_0 *block = w;
    for (int64_t r = 0; r < rows; r++) {
        float sum[LANES] = {0};
        for (int64_t b = 0; b < n_in / FVI_BLOCK; b++, block++) {
            const int at = (int)(b % 2);
            const float scale = fvi_convert_f16(block->scale) * x[b / 2].scale[8 * at];
            int32_t lane[8];
            dot_nibbles(block->q, -8, x[b / 2].q + 32 * at, lane);
            for (int l = 0; l < 8; l++) {
                sum[8 * at + l] += scale * (float)lane[l];
            }
        }
        y[r] = fold(sum);
    }
}

static void dots_q4_1(const void *w, int64_t rows, int64_t n_in, const fvi_matvec_x *x, float *y) {
    const fvi_block_q4_1 *block = w;
    for (int64_t r = 0; r < rows; r++) {
        float sum[LANES] = {0};
        for (int64_t b = 0; b < n_in / FVI_BLOCK; b++, block++) {
            const int at = (int)(b % 2);
            const float scale = fvi_convert_f16(block->scale) * x[b / 2].scale[8 * at];
            const float least = fvi_convert_f16(block->least);
            int32_t lane[8];
            dot_nibbles(block->q, 0, x[b / 2].q + 32 * at, lane);
            for (int l = 0; l < 8; l++) {
                sum[8 * at + l] += scale * (float)lane[l] + least * x[b / 2].mass[8 * at + l];
            }
        }
        y[r] = fold(sum);
    }
}

static void quantise(int64_t n_in, const float *x, fvi_matvec_x *out) { matvec_quantise(n_in, x, out); }

void fvi_matvec_c(fvi_matvec_ops *ops) {
    *ops = (fvi_matvec_ops){.rows = {[FV_F32] = rows_f32, [FV_F16] = rows_f16, [FV_BF16] = rows_bf16},
                            .dots = {[FV_Q8_0] = dots_q8_0, [FV_Q4_0] = dots_q4_0, [FV_Q4_1] = dots_q4_1},
                            .quantise = quantise};
}

void fvi_matvec_init(const fvi_cpu *cpu, fvi_matvec_ops *ops) {
    fvi_matvec_c(ops);
#if defined(__x86_64__)
    if (cpu->avx2) {
        fvi_matvec_avx2(ops);
    }
    if (cpu->avx512) {
        fvi_matvec_avx512(ops);
    }
    if (cpu->avx512_vnni) {
        fvi_matvec_avx512vnni(ops);
    }
#else
    (void)cpu;
#endif
}
