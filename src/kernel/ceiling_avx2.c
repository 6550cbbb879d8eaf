/* ceiling_avx2.c - twelve chains of 256-bit fused multiply-adds. */
#include "kernel/ceiling.h"

#include <immintrin.h>

enum { CHAINS = 12 };

static void fma_f32(int64_t steps, const float *x, float *sink) {
    __m256 a = _mm256_loadu_ps(x), b = _mm256_loadu_ps(x + 8), acc[CHAINS];
    FVI_UNROLL
    for (int i = 0; i < CHAINS; i++) {
        acc[i] = _mm256_add_ps(a, _mm256_set1_ps((float)i));
    }
    for (int64_t s = 0; s < steps; s++) {
        FVI_UNROLL
        for (int i = 0; i < CHAINS; i++) {
            acc[i] = _mm256_fmadd_ps(acc[i], a, b);
        }
    }
    FVI_UNROLL
    for (int i = 1; i < CHAINS; i++) {
        acc[0] = _mm256_add_ps(acc[0], acc[i]);
    }
    _mm256_storeu_ps(sink, acc[0]);
}

void fvi_ceiling_avx2(fvi_ceiling_ops *ops) { ops->fma_f32 = (fvi_ceiling_op){fma_f32, 2.0 * 8 * CHAINS}; }
