/* matvec_avx512vnni.c - products with quantised weights by vpdpbusd, two blocks of a row at a time.
 *
 * vpdpbusd multiplies unsigned bytes with signed ones. Nibbles are unsigned as they are; the bytes of Q8_0 are moved up by 128,
 * and what that adds to a sum, 128 times the sum of x, is what the sum starts from. Rows are taken one after
 * the other, as in matvec_avx512.c: several at a time save loads of x, but slow the read of W that the time goes to. */
#include "kernel/convert.h"
#include "kernel/matvec.h"

#include <immintrin.h>

enum { AHEAD = 8192 };

#define INLINE static inline __attribute__((always_inline))

/* Of one block, and of two: the second in the upper half. */
INLINE __m256 scale_of(const uint16_t *h) { return _mm256_cvtph_ps(_mm_set1_epi16((short)*h)); }
INLINE __m512 scales_of(const uint16_t *h0, const uint16_t *h1) {
    __m256i low = _mm256_set1_epi16((short)*h0);
    return _mm512_cvtph_ps(_mm256_mask_set1_epi16(low, 0xff00, (short)*h1));
}

INLINE __m512i halves(const void *q0, const void *q1) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256(q0)), _mm256_loadu_si256(q1), 1);
}

/* Byte i of q gives elements i and i + 16 of its block. */
INLINE __m256i nibbles(const uint8_t *q) {
    __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)q));
    return _mm256_and_si256(_mm256_srlv_epi64(twice, _mm256_set_epi64x(4, 4, 0, 0)), _mm256_set1_epi8(15));
}
INLINE __m512i nibbles_2(const uint8_t *q0, const uint8_t *q1) {
    __m512i low = _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)q0));
    __m512i both = _mm512_mask_broadcast_i32x4(low, 0xff00, _mm_loadu_si128((const void *)q1));
    __m512i shift = _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0);
    return _mm512_and_si512(_mm512_srlv_epi64(both, shift), _mm512_set1_epi8(15));
}

/* ---- what two blocks, and what a row's last odd block, add to the row's lanes ---- */

INLINE __m512 pair_q8_0(const void *at, const fvi_matvec_x *x) {
    const fvi_block_q8_0 *b = at;
    __m512i w = _mm512_xor_si512(halves(b[0].q, b[1].q), _mm512_set1_epi8(-128));
    __m512i lane = _mm512_dpbusd_epi32(_mm512_load_si512(x->start), w, _mm512_load_si512(x->q));
    __m512 scale = _mm512_mul_ps(scales_of(&b[0].scale, &b[1].scale), _mm512_load_ps(x->scale));
    return _mm512_mul_ps(scale, _mm512_cvtepi32_ps(lane));
}

INLINE __m256 last_q8_0(const void *at, const fvi_matvec_x *x) {
    const fvi_block_q8_0 *b = at;
    __m256i w = _mm256_xor_si256(_mm256_loadu_si256((const void *)b->q), _mm256_set1_epi8(-128));
    __m256i lane = _mm256_dpbusd_epi32(_mm256_load_si256((const void *)x->start), w, _mm256_load_si256((const void *)x->q));
    __m256 scale = _mm256_mul_ps(scale_of(&b->scale), _mm256_load_ps(x->scale));
    return _mm256_mul_ps(scale, _mm256_cvtepi32_ps(lane));
}

INLINE __m512 pair_q4_0(const void *at, const fvi_matvec_x *x) {
    const fvi_block_q4_0 *b = at;
    __m512i start = _mm512_srai_epi32(_mm512_load_si512(x->start), 4);
    __m512i lane = _mm512_dpbusd_epi32(start, nibbles_2(b[0].q, b[1].q), _mm512_load_si512(x->q));
    __m512 scale = _mm512_mul_ps(scales_of(&b[0].scale, &b[1].scale), _mm512_load_ps(x->scale));
    return _mm512_mul_ps(scale, _mm512_cvtepi32_ps(lane));
}

INLINE __m256 last_q4_0(const void *at, const fvi_matvec_x *x) {
    const fvi_block_q4_0 *b = at;
    __m256i start = _mm256_srai_epi32(_mm256_load_si256((const void *)x->start), 4);
    __m256i lane = _mm256_dpbusd_epi32(start, nibbles(b->q), _mm256_load_si256((const void *)x->q));
    __m256 scale = _mm256_mul_ps(scale_of(&b->scale), _mm256_load_ps(x->scale));
    return _mm256_mul_ps(scale, _mm256_cvtepi32_ps(lane));
}

/* scale and least lie side by side: one load fetches both, and every other lane is one of them. */
INLINE __m512 pair_q4_1(const void *at, const fvi_matvec_x *x) {
    const fvi_block_q4_1 *b = at;
    int32_t head0, head1;
    memcpy(&head0, &b[0], sizeof head0);
    memcpy(&head1, &b[1], sizeof head1);
    __m512 head = _mm512_cvtph_ps(_mm256_mask_set1_epi32(_mm256_set1_epi32(head0), 0xf0, head1));
    __m512i lane = _mm512_dpbusd_epi32(_mm512_setzero_si512(), nibbles_2(b[0].q, b[1].q), _mm512_load_si512(x->q));
    __m512 scale = _mm512_mul_ps(_mm512_moveldup_ps(head), _mm512_load_ps(x->scale));
    __m512 least = _mm512_mul_ps(_mm512_movehdup_ps(head), _mm512_load_ps(x->mass));
    return _mm512_add_ps(_mm512_mul_ps(scale, _mm512_cvtepi32_ps(lane)), least);
}

INLINE __m256 last_q4_1(const void *at, const fvi_matvec_x *x) {
    const fvi_block_q4_1 *b = at;
    __m256i lane = _mm256_dpbusd_epi32(_mm256_setzero_si256(), nibbles(b->q), _mm256_load_si256((const void *)x->q));
    __m256 scale = _mm256_mul_ps(scale_of(&b->scale), _mm256_load_ps(x->scale));
    __m256 least = _mm256_mul_ps(scale_of(&b->least), _mm256_load_ps(x->mass));
    return _mm256_add_ps(_mm256_mul_ps(scale, _mm256_cvtepi32_ps(lane)), least);
}

/* ---- rows ---- */

typedef __m512 (*pair_of)(const void *at, const fvi_matvec_x *x);
typedef __m256 (*last_of)(const void *at, const fvi_matvec_x *x);

INLINE void quant_dots(const void *w, int64_t rows, size_t bytes, int64_t n_in, const fvi_matvec_x *x, float *y, pair_of pair,
                       last_of last) {
    const char *block = w;
    for (int64_t r = 0; r < rows; r++) {
        __m512 sum = _mm512_setzero_ps();
        int64_t p = 0;
        for (; p < n_in / 64; p++, block += 2 * bytes) {
            _mm_prefetch((const void *)((uintptr_t)block + AHEAD), _MM_HINT_T0); /* may lie beyond W: never faults */
            sum = _mm512_add_ps(sum, pair(block, x + p));
        }
        if (n_in % 64 != 0) {
            sum = _mm512_insertf32x8(sum, _mm256_add_ps(_mm512_castps512_ps256(sum), last(block, x + p)), 0);
            block += bytes;
        }
        y[r] = _mm512_reduce_add_ps(sum);
    }
}

static void dots_q8_0(const void *w, int64_t rows, int64_t n_in, const fvi_matvec_x *x, float *y) {
    quant_dots(w, rows, sizeof(fvi_block_q8_0), n_in, x, y, pair_q8_0, last_q8_0);
}
static void dots_q4_0(const void *w, int64_t rows, int64_t n_in, const fvi_matvec_x *x, float *y) {
    quant_dots(w, rows, sizeof(fvi_block_q4_0), n_in, x, y, pair_q4_0, last_q4_0);
}
static void dots_q4_1(const void *w, int64_t rows, int64_t n_in, const fvi_matvec_x *x, float *y) {
    quant_dots(w, rows, sizeof(fvi_block_q4_1), n_in, x, y, pair_q4_1, last_q4_1);
}

void fvi_matvec_avx512vnni(fvi_matvec_ops *ops) {
    ops->dots[FV_Q8_0] = dots_q8_0;
    ops->dots[FV_Q4_0] = dots_q4_0;
    ops->dots[FV_Q4_1] = dots_q4_1;
}
