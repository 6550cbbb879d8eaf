/* sift_avx512.c - sift.h at level avx512. */
#include "kernel/avx512_inline.h"
#include "kernel/sift.h"
#include "kernel/sift_inline.h"

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

static void columns(const float *s, int rows, float *most) {
    __m512 top[4];
    for (int part = 0; part < 4; part++) {
        top[part] = _mm512_set1_ps(-INFINITY);
    }
    for (int r = 0; r < rows; r++, s += 64) {
        for (int part = 0; part < 4; part++) {
            top[part] = _mm512_max_ps(_mm512_load_ps(s + 16 * part), top[part]);
        }
    }
    for (int part = 0; part < 4; part++) {
        _mm512_storeu_ps(most + 16 * part, top[part]);
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

/* Ascends with the score; -0 is 0. */
static __m512i ascending(__m512 x) {
    const __m512i bits = _mm512_castps_si512(_mm512_add_ps(x, _mm512_setzero_ps()));
    return _mm512_xor_si512(bits, _mm512_or_si512(_mm512_srai_epi32(bits, 31), _mm512_set1_epi32(INT32_MIN)));
}

static int64_t put(uint32_t *to, __mmask16 in, __m512i x) {
    const int n = __builtin_popcount(in);
    _mm512_mask_storeu_epi32(to, first(n), _mm512_maskz_compress_epi32(in, x));
    return n;
}

/* Quickselect, 16 at a time. What is below the pivot is written over what has been read. */
static uint32_t nth_largest(sift_part part) {
    for (;;) {
        const uint32_t pivot = sift_pivot(&part);
        const __m512i p = _mm512_set1_epi32((int32_t)pivot);
        int64_t above = 0, below = 0;
        for (int64_t i = 0; i < part.n; i += LANES) {
            const __mmask16 in = first(part.n - i);
            const __m512i v = _mm512_maskz_loadu_epi32(in, part.x + i);
            above += put(part.other + above, _mm512_mask_cmpgt_epu32_mask(in, v, p), v);
            below += put(part.x + below, _mm512_mask_cmplt_epu32_mask(in, v, p), v);
        }
        if (!sift_narrow(&part, above, below)) {
            return pivot;
        }
    }
}

static __m512i scores_at(const float *x, int64_t i, __mmask16 in) { return ascending(_mm512_maskz_loadu_ps(in, x + i)); }

static void top(const float *x, int64_t n, int64_t k, uint32_t *room, int32_t *out) {
    if (k <= 0) {
        return;
    }
    for (int64_t i = 0; i < n; i += LANES) {
        _mm512_mask_storeu_epi32(room + i, first(n - i), scores_at(x, i, first(n - i)));
    }
    const __m512i least = _mm512_set1_epi32((int32_t)nth_largest((sift_part){room, room + n, n, k}));
    int64_t above = 0, taken = 0;
    for (int64_t i = 0; i < n; i += LANES) {
        above += __builtin_popcount(_mm512_mask_cmpgt_epu32_mask(first(n - i), scores_at(x, i, first(n - i)), least));
    }
    for (int64_t i = 0, equals = k - above; i < n; i += LANES) {
        const __m512i v = scores_at(x, i, first(n - i));
        uint32_t in = _mm512_mask_cmpgt_epu32_mask(first(n - i), v, least);
        for (uint32_t same = _mm512_mask_cmpeq_epi32_mask(first(n - i), v, least); same != 0 && equals > 0; equals--) {
            in |= same & -same;
            same &= same - 1;
        }
        const __m512i number = _mm512_add_epi32(_mm512_set1_epi32((int32_t)i),
                                                _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
        taken += put((uint32_t *)out + taken, (__mmask16)in, number);
    }
}

void fvi_sift_avx512(fvi_sift_ops *ops) {
    *ops = (fvi_sift_ops){.largest = largest, .columns = columns, .above = above, .weigh = weigh, .top = top};
}
