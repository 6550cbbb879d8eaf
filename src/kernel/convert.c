/* convert.c - convert.h at level 0, and the choice of a level. */
#include "kernel/convert_inline.h"

bool fvi_convert_to_f32(fv_dtype dtype, const void *row, int64_t n, float *out) { return convert_to_f32(dtype, row, n, out); }
void fvi_convert_to_bf16(int64_t n, const float *x, uint16_t *out) { convert_to_bf16(n, x, out); }

void fvi_convert_to_f16(int64_t n, const float *x, uint16_t *out) {
    for (int64_t i = 0; i < n; i++) {
        out[i] = fvi_f32_to_f16(x[i]);
    }
}

static void pack(int64_t n, int64_t k, const uint16_t *w, uint16_t *out) { convert_pack(n, k, w, out); }

void fvi_convert_c(fvi_convert_ops *ops) {
    *ops = (fvi_convert_ops){.to_f32 = fvi_convert_to_f32, .to_bf16 = fvi_convert_to_bf16, .pack = pack};
}

void fvi_convert_init(const fvi_cpu *cpu, fvi_convert_ops *ops) {
    fvi_convert_c(ops);
#if defined(__x86_64__)
    if (cpu->avx2) {
        fvi_convert_avx2(ops);
    }
    if (cpu->avx512) {
        fvi_convert_avx512(ops);
    }
#else
    (void)cpu;
#endif
}
