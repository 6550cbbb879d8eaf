/* ceiling_avx512.c - sixteen chains of 512-bit fused multiply-adds. */
#include "kernel/ceiling.h"

#include <immintrin.h>

enum { CHAINS = 16 };

static void fma_f32(int64_t steps, const float *x, float *sink) {
    __m512 a = _mm512_loadu_ps(x), b = _mm512_mul_ps(a, a), acc[CHAINS];
    FVI_UNROLL
    for (int i = 0; i < CHAINS; i++) {
        acc[i] = _mm512_add_ps(a, _mm512_set1_ps((float)i));
    }
    for (int64_t s = 0; s < steps; s++) {
        FVI_UNROLL
        for (int i = 0; i < CHAINS; i++) {
            acc[i] = _mm512_fmadd_ps(acc[i], a, b);
        }
    }
    FVI_UNROLL
    for (int i = 1; i < CHAINS; i++) {
        acc[0] = _mm512_add_ps(acc[0], acc[i]);
    }
    _mm512_storeu_ps(sink, acc[0]);
}

void fvi_ceiling_avx512(fvi_ceiling_ops *ops) { ops->fma_f32 = (fvi_ceiling_op){fma_f32, 2.0 * 16 * CHAINS}; }
