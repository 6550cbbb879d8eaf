/* matvec_c.c - level 0: portable C. A row is summed in 16 lanes, lane i taking elements i, i + 16, ..., which are folded by
 * halves; compilers turn the lanes into whatever vectors there are. */
#include "kernel/convert.h"
#include "kernel/matvec.h"

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

/* The quantised types sum quants times x within a block, and scale the block's lanes once. */

static void rows_q8_0(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    const fvi_block_q8_0 *block = w;
    for (int64_t r = 0; r < rows; r++) {
        float lane[LANES] = {0};
        for (int64_t i = 0; i < n_in; i += FVI_BLOCK, block++) {
            float scale = fvi_convert_f16(block->scale);
            for (int l = 0; l < LANES; l++) {
                float low = (float)block->q[l] * x[i + l];
                lane[l] += scale * (low + (float)block->q[l + LANES] * x[i + l + LANES]);
            }
        }
        y[r] = fold(lane);
    }
}

static void rows_q4_0(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    const fvi_block_q4_0 *block = w;
    for (int64_t r = 0; r < rows; r++) {
        float lane[LANES] = {0};
        for (int64_t i = 0; i < n_in; i += FVI_BLOCK, block++) {
            float scale = fvi_convert_f16(block->scale);
            for (int l = 0; l < LANES; l++) {
                float low = (float)((block->q[l] & 15) - 8) * x[i + l];
                lane[l] += scale * (low + (float)((block->q[l] >> 4) - 8) * x[i + l + LANES]);
            }
        }
        y[r] = fold(lane);
    }
}

static void rows_q4_1(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    const fvi_block_q4_1 *block = w;
    for (int64_t r = 0; r < rows; r++) {
        float lane[LANES] = {0};
        for (int64_t i = 0; i < n_in; i += FVI_BLOCK, block++) {
            float scale = fvi_convert_f16(block->scale), least = fvi_convert_f16(block->least);
            for (int l = 0; l < LANES; l++) {
                float low = (scale * (float)(block->q[l] & 15) + least) * x[i + l];
                lane[l] += low + (scale * (float)(block->q[l] >> 4) + least) * x[i + l + LANES];
            }
        }
        y[r] = fold(lane);
    }
}

void fvi_matvec_c(fvi_matvec_ops *ops) {
    *ops = (fvi_matvec_ops){.rows = {[FV_F32] = rows_f32,
                                     [FV_F16] = rows_f16,
                                     [FV_BF16] = rows_bf16,
                                     [FV_Q8_0] = rows_q8_0,
                                     [FV_Q4_0] = rows_q4_0,
                                     [FV_Q4_1] = rows_q4_1}};
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
#else
    (void)cpu;
#endif
}
