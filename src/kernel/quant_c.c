/* quant_c.c - quant.h in portable C: level 0. */
#include "kernel/quant_inline.h"

static void q8_0(const float *x, int d, void *row, uint16_t *scale) { quant_q8_0(x, d, row, scale); }
static void q4_0(const float *x, int d, void *row, uint16_t *scale) { quant_q4_0(x, d, row, scale); }
static void f32_from_q8_0(const void *rows, int64_t row_bytes, const uint16_t *scale, int n, int d, float *out) {
    quant_to_f32(FV_Q8_0, rows, row_bytes, scale, n, d, out);
}
static void f32_from_q4_0(const void *rows, int64_t row_bytes, const uint16_t *scale, int n, int d, float *out) {
    quant_to_f32(FV_Q4_0, rows, row_bytes, scale, n, d, out);
}
static void bf16_from_q8_0(const void *rows, int64_t row_bytes, const uint16_t *scale, int n, int d, uint16_t *out) {
    quant_to_bf16(FV_Q8_0, rows, row_bytes, scale, n, d, out);
}
static void bf16_from_q4_0(const void *rows, int64_t row_bytes, const uint16_t *scale, int n, int d, uint16_t *out) {
    quant_to_bf16(FV_Q4_0, rows, row_bytes, scale, n, d, out);
}
static void rotate(float *x, int d) { quant_rotate_from(x, d, 1); }

void fvi_quant_c(fvi_quant_ops *ops) {
    *ops = (fvi_quant_ops){
        .name = "c",
        .quantise = {[FV_Q8_0] = q8_0, [FV_Q4_0] = q4_0},
        .to_f32 = {[FV_Q8_0] = f32_from_q8_0, [FV_Q4_0] = f32_from_q4_0},
        .to_bf16 = {[FV_Q8_0] = bf16_from_q8_0, [FV_Q4_0] = bf16_from_q4_0},
        .rotate = rotate,
    };
}
