/* sift_avx512.c - sift.h at level avx512. */
#include "kernel/sift.h"

#include <immintrin.h>
#include <math.h>

/* The second operand of a maximum is the answer where either is NaN. */
static void largest(const float *s, int rows, const uint64_t *seen, float *most) {
    for (int r = 0; r < rows; r++, s += 64) {
        __m512 top = _mm512_set1_ps(-INFINITY);
        for (int part = 0; part < 4; part++) {
            __mmask16 in = (__mmask16)(seen[r] >> (16 * part));
            top = _mm512_mask_max_ps(top, in, _mm512_load_ps(s + 16 * part), top);
        }
        most[r] = _mm512_reduce_max_ps(top);
    }
}

static void above(const float *s, int rows, const float *theta, uint64_t *seen) {
    for (int r = 0; r < rows; r++, s += 64) {
        __m512 t = _mm512_set1_ps(theta[r]);
        uint64_t bits = 0;
        for (int part = 0; part < 4; part++) {
            bits |= (uint64_t)_mm512_cmp_ps_mask(_mm512_load_ps(s + 16 * part), t, _CMP_GT_OQ) << (16 * part);
        }
        seen[r] &= bits;
    }
}

static void weigh(float *s, int rows, const int32_t *own, const int32_t *block, const float *weight, uint64_t in,
                  uint64_t *seen) {
    __m512i b[4];
    __m512 w[4];
    uint64_t weighed = 0;
    for (int part = 0; part < 4; part++) {
        b[part] = _mm512_loadu_si512(block + 16 * part);
        w[part] = _mm512_loadu_ps(weight + 16 * part);
        weighed |= (uint64_t)_mm512_cmp_ps_mask(w[part], _mm512_set1_ps(-INFINITY), _CMP_NEQ_UQ) << (16 * part);
    }
    for (int r = 0; r < rows; r++, s += 64) {
        const __m512i mine = _mm512_set1_epi32(own[r]);
        uint64_t same = 0;
        for (int part = 0; part < 4; part++) {
            const __mmask16 hit = _mm512_cmpeq_epi32_mask(b[part], mine);
            const __mmask16 other = (__mmask16)(in >> (16 * part)) & (__mmask16)~hit;
            const __m512 x = _mm512_load_ps(s + 16 * part);
            _mm512_store_ps(s + 16 * part, _mm512_mask_add_ps(x, other, x, w[part]));
            same |= (uint64_t)hit << (16 * part);
        }
        seen[r] &= ~in | same | weighed;
    }
}

void fvi_sift_avx512(fvi_sift_ops *ops) { *ops = (fvi_sift_ops){.largest = largest, .above = above, .weigh = weigh}; }
