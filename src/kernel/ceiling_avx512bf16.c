/* ceiling_avx512bf16.c - sixteen chains of vdpbf16ps: each adds two products of bf16 to each of 16 floats. */
#include "kernel/ceiling.h"

#include <immintrin.h>

enum { CHAINS = 16 };

static void dot_bf16(int64_t steps, const float *x, float *sink) {
    __m512 f = _mm512_loadu_ps(x), acc[CHAINS];
    __m512bh a = _mm512_cvtne2ps_pbh(f, f), b = _mm512_cvtne2ps_pbh(f, _mm512_mul_ps(f, f));
    FVI_UNROLL
    for (int i = 0; i < CHAINS; i++) {
        acc[i] = _mm512_add_ps(f, _mm512_set1_ps((float)i));
    }
    for (int64_t s = 0; s < steps; s++) {
        FVI_UNROLL
        for (int i = 0; i < CHAINS; i++) {
            acc[i] = _mm512_dpbf16_ps(acc[i], a, b);
        }
    }
    FVI_UNROLL
    for (int i = 1; i < CHAINS; i++) {
        acc[0] = _mm512_add_ps(acc[0], acc[i]);
    }
    _mm512_storeu_ps(sink, acc[0]);
}

void fvi_ceiling_avx512bf16(fvi_ceiling_ops *ops) { ops->dot_bf16 = (fvi_ceiling_op){dot_bf16, 4.0 * 16 * CHAINS}; }
