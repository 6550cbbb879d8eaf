/* ceiling_avx512vnni.c - sixteen chains of vpdpbusd: each adds four products of bytes to each of 16 integers. */
#include "kernel/ceiling.h"

#include <immintrin.h>

enum { CHAINS = 16 };

static void dot_int8(int64_t steps, const float *x, float *sink) {
    __m512i a = _mm512_loadu_si512(x), b = _mm512_srli_epi32(a, 3), acc[CHAINS];
    FVI_UNROLL
    for (int i = 0; i < CHAINS; i++) {
        acc[i] = _mm512_add_epi32(a, _mm512_set1_epi32(i));
    }
    for (int64_t s = 0; s < steps; s++) {
        FVI_UNROLL
        for (int i = 0; i < CHAINS; i++) {
            acc[i] = _mm512_dpbusd_epi32(acc[i], a, b);
        }
    }
    FVI_UNROLL
    for (int i = 1; i < CHAINS; i++) {
        acc[0] = _mm512_add_epi32(acc[0], acc[i]);
    }
    _mm512_storeu_si512(sink, acc[0]);
}

void fvi_ceiling_avx512vnni(fvi_ceiling_ops *ops) { ops->dot_int8 = (fvi_ceiling_op){dot_int8, 8.0 * 16 * CHAINS}; }
