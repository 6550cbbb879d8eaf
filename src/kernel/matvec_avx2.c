/* matvec_avx2.c - AVX2 and FMA: one row after the other, in four sums of 8 lanes (elements 0-7, 8-15, 16-23 and 24-31 of every
 * 32), or for the quantised types in two. Each step asks for the bytes AHEAD of it; matvec_avx512.c says why. */
#include "kernel/matvec_inline.h"

#include <immintrin.h>

enum { AHEAD = 8192 };

#define INLINE static inline __attribute__((always_inline))

/* May lie beyond the matrix: a prefetch never faults. */
INLINE void prefetch(const char *at, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) {
        _mm_prefetch((const void *)((uintptr_t)at + i + AHEAD), _MM_HINT_T0);
    }
}
INLINE float fold(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

INLINE __m256 scale_of(const uint16_t *h) { return _mm256_cvtph_ps(_mm_set1_epi16((short)*h)); }

/* Eight weights from element i on. */
typedef __m256 (*load_8)(const void *w, int64_t i);
typedef float (*load_1)(const void *w, int64_t i);

INLINE __m256 load_f32(const void *w, int64_t i) { return _mm256_loadu_ps((const float *)w + i); }
INLINE float one_f32(const void *w, int64_t i) { return ((const float *)w)[i]; }
INLINE __m256 load_f16(const void *w, int64_t i) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)((const uint16_t *)w + i)));
}
INLINE float one_f16(const void *w, int64_t i) { return fvi_convert_f16(((const uint16_t *)w)[i]); }
INLINE __m256 load_bf16(const void *w, int64_t i) {
    __m128i half = _mm_loadu_si128((const void *)((const uint16_t *)w + i));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
INLINE float one_bf16(const void *w, int64_t i) { return fvi_bf16_to_f32(((const uint16_t *)w)[i]); }

INLINE void plain_rows(const void *w, int64_t rows, size_t width, int64_t n_in, const float *x, float *y, load_8 load,
                       load_1 one) {
    const char *row = w;
    for (int64_t r = 0; r < rows; r++, row += (size_t)n_in * width) {
        __m256 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
        int64_t i = 0;
        for (; i + 32 <= n_in; i += 32) {
            prefetch(row + (size_t)i * width, 32 * width);
            for (int part = 0; part < 4; part++) {
                sum[part] = _mm256_fmadd_ps(load(row, i + 8 * part), _mm256_loadu_ps(x + i + 8 * part), sum[part]);
            }
        }
        float rest = 0;
        for (; i < n_in; i++) {
            rest += one(row, i) * x[i];
        }
        y[r] = fold(_mm256_add_ps(_mm256_add_ps(sum[0], sum[2]), _mm256_add_ps(sum[1], sum[3]))) + rest;
    }
}

static void rows_f32(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    plain_rows(w, rows, 4, n_in, x, y, load_f32, one_f32);
}
static void rows_f16(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    plain_rows(w, rows, 2, n_in, x, y, load_f16, one_f16);
}
static void rows_bf16(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    plain_rows(w, rows, 2, n_in, x, y, load_bf16, one_bf16);
}

/* ---- quantised: the integer sums of one block's 8 lanes ---- */

/* u unsigned, s signed: pairs of products stay within 16 bits, as |s| is at most 127 and u at most 128. */
INLINE __m256i dot(__m256i u, __m256i s) { return _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1)); }

INLINE __m256i nibbles(const uint8_t *q) {
    __m128i both = _mm_loadu_si128((const void *)q);
    __m256i wide = _mm256_inserti128_si256(_mm256_castsi128_si256(both), _mm_srli_epi16(both, 4), 1);
    return _mm256_and_si256(wide, _mm256_set1_epi8(15));
}

INLINE __m256 add_q8_0(const void *at, const fvi_matvec_x *x, int half, __m256 sum) {
    const fvi_block_q8_0 *block = at;
    __m256i w = _mm256_loadu_si256((const void *)block->q), q = _mm256_load_si256((const void *)(x->q + 32 * half));
    __m256i lane = dot(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w));
    __m256 scale = _mm256_mul_ps(scale_of(&block->scale), _mm256_load_ps(x->scale + 8 * half));
    return _mm256_add_ps(sum, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(lane)));
}

INLINE __m256 add_q4_0(const void *at, const fvi_matvec_x *x, int half, __m256 sum) {
    const fvi_block_q4_0 *block = at;
    __m256i lane = dot(nibbles(block->q), _mm256_load_si256((const void *)(x->q + 32 * half)));
    lane = _mm256_add_epi32(lane, _mm256_srai_epi32(_mm256_load_si256((const void *)(x->start + 8 * half)), 4));
    __m256 scale = _mm256_mul_ps(scale_of(&block->scale), _mm256_load_ps(x->scale + 8 * half));
    return _mm256_add_ps(sum, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(lane)));
}

INLINE __m256 add_q4_1(const void *at, const fvi_matvec_x *x, int half, __m256 sum) {
    const fvi_block_q4_1 *block = at;
    __m256i lane = dot(nibbles(block->q), _mm256_load_si256((const void *)(x->q + 32 * half)));
    __m256 scale = _mm256_mul_ps(scale_of(&block->scale), _mm256_load_ps(x->scale + 8 * half));
    __m256 least = _mm256_mul_ps(scale_of(&block->least), _mm256_load_ps(x->mass + 8 * half));
    return _mm256_add_ps(sum, _mm256_add_ps(_mm256_mul_ps(scale, _mm256_cvtepi32_ps(lane)), least));
}

typedef __m256 (*add_block)(const void *at, const fvi_matvec_x *x, int half, __m256 sum);

INLINE void quant_dots(const void *w, int64_t rows, size_t bytes, int64_t n_in, const fvi_matvec_x *x, float *y, add_block add) {
    const char *block = w;
    for (int64_t r = 0; r < rows; r++) {
        __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
        int64_t p = 0;
        for (; p < n_in / 64; p++, block += 2 * bytes) {
            prefetch(block, 2 * bytes);
            sum[0] = add(block, x + p, 0, sum[0]);
            sum[1] = add(block + bytes, x + p, 1, sum[1]);
        }
        if (n_in % 64 != 0) {
            sum[0] = add(block, x + p, 0, sum[0]);
            block += bytes;
        }
        y[r] = fold(_mm256_add_ps(sum[0], sum[1]));
    }
}

static void dots_q8_0(const void *w, int64_t rows, int64_t n_in, const fvi_matvec_x *x, float *y) {
    quant_dots(w, rows, sizeof(fvi_block_q8_0), n_in, x, y, add_q8_0);
}
static void dots_q4_0(const void *w, int64_t rows, int64_t n_in, const fvi_matvec_x *x, float *y) {
    quant_dots(w, rows, sizeof(fvi_block_q4_0), n_in, x, y, add_q4_0);
}
static void dots_q4_1(const void *w, int64_t rows, int64_t n_in, const fvi_matvec_x *x, float *y) {
    quant_dots(w, rows, sizeof(fvi_block_q4_1), n_in, x, y, add_q4_1);
}

static void quantise(int64_t n_in, const float *x, fvi_matvec_x *out) { matvec_quantise(n_in, x, out); }

void fvi_matvec_avx2(fvi_matvec_ops *ops) {
    *ops = (fvi_matvec_ops){.rows = {[FV_F32] = rows_f32, [FV_F16] = rows_f16, [FV_BF16] = rows_bf16},
                            .dots = {[FV_Q8_0] = dots_q8_0, [FV_Q4_0] = dots_q4_0, [FV_Q4_1] = dots_q4_1},
                            .quantise = quantise};
}
