/* convert_avx2.c - convert.h at level avx2. */
#include "kernel/convert_inline.h"

static bool to_f32(fv_dtype dtype, const void *row, int64_t n, float *out) { return convert_to_f32(dtype, row, n, out); }
static void to_bf16(int64_t n, const float *x, uint16_t *out) { convert_to_bf16(n, x, out); }
static void pack(int64_t n, int64_t k, const uint16_t *w, uint16_t *out) { convert_pack(n, k, w, out); }

void fvi_convert_avx2(fvi_convert_ops *ops) { *ops = (fvi_convert_ops){.to_f32 = to_f32, .to_bf16 = to_bf16, .pack = pack}; }
