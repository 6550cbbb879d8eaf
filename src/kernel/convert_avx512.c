/* convert_avx512.c - convert.h at level avx512. */
#include "kernel/convert_inline.h"

#include <immintrin.h>

/* Compilers make little of nibbles. Byte i of q holds elements i and i + 16; `middle` is taken off each. */
static inline __attribute__((always_inline)) void from_nibbles(const uint8_t *q, int middle, float scale, float least,
                                                               float *out) {
    __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)q));
    __m512i part[2] = {_mm512_and_si512(both, _mm512_set1_epi32(15)), _mm512_srli_epi32(both, 4)};
    for (int i = 0; i < 2; i++) {
        __m512 value = _mm512_cvtepi32_ps(_mm512_sub_epi32(part[i], _mm512_set1_epi32(middle)));
        value = _mm512_mul_ps(value, _mm512_set1_ps(scale));
        value = middle == 0 ? _mm512_add_ps(value, _mm512_set1_ps(least)) : value;
        _mm512_storeu_ps(out + 16 * i, value);
    }
}

static void from_q4_0(const fvi_block_q4_0 *row, int64_t n, float *out) {
    for (int64_t b = 0; b < n / FVI_BLOCK; b++) {
        from_nibbles(row[b].q, 8, fvi_convert_f16(row[b].scale), 0, out + b * FVI_BLOCK);
    }
}

static void from_q4_1(const fvi_block_q4_1 *row, int64_t n, float *out) {
    for (int64_t b = 0; b < n / FVI_BLOCK; b++) {
        from_nibbles(row[b].q, 0, fvi_convert_f16(row[b].scale), fvi_convert_f16(row[b].least), out + b * FVI_BLOCK);
    }
}

static bool to_f32(fv_dtype dtype, const void *row, int64_t n, float *out) {
    if (dtype == FV_Q4_0) {
        from_q4_0(row, n, out);
        return true;
    }
    if (dtype == FV_Q4_1) {
        from_q4_1(row, n, out);
        return true;
    }
    return convert_to_f32(dtype, row, n, out);
}

static void to_bf16(int64_t n, const float *x, uint16_t *out) { convert_to_bf16(n, x, out); }

/* 16 rows of 16 pairs become 16 pairs of 16 rows. */
static inline __attribute__((always_inline)) void turn(__m512i *v) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) { /* v[i + c]: in each quarter column c of rows i to i + 3 */
        v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int c = 0; c < 4; c++) { /* t: quarters 0 and 2, or 1 and 3, of rows 0 to 7 and of rows 8 to 15 */
        t[c] = _mm512_shuffle_i32x4(v[c], v[c + 4], 0x88);
        t[c + 4] = _mm512_shuffle_i32x4(v[c], v[c + 4], 0xdd);
        t[c + 8] = _mm512_shuffle_i32x4(v[c + 8], v[c + 12], 0x88);
        t[c + 12] = _mm512_shuffle_i32x4(v[c + 8], v[c + 12], 0xdd);
    }
    for (int c = 0; c < 4; c++) {
        v[c] = _mm512_shuffle_i32x4(t[c], t[c + 8], 0x88);
        v[c + 8] = _mm512_shuffle_i32x4(t[c], t[c + 8], 0xdd);
        v[c + 4] = _mm512_shuffle_i32x4(t[c + 4], t[c + 12], 0x88);
        v[c + 12] = _mm512_shuffle_i32x4(t[c + 4], t[c + 12], 0xdd);
    }
}

static void pack(int64_t n, int64_t k, const uint16_t *w, uint16_t *out) {
    for (int64_t i = 0; i < n; i += 64) {
        for (int64_t j = 0; j < k; j += 32, out += 2048) {
            const __mmask32 columns = k - j >= 32 ? 0xffffffff : (1u << (k - j)) - 1;
            for (int64_t part = 0; part < 64; part += 16) {
                __m512i v[16];
                for (int r = 0; r < 16; r++) {
                    const int64_t row = i + part + r;
                    v[r] = row < n ? _mm512_maskz_loadu_epi16(columns, w + row * k + j) : _mm512_setzero_si512();
                }
                turn(v);
                for (int pair = 0; pair < 16; pair++) {
                    _mm512_store_si512(out + 128 * pair + 2 * part, v[pair]);
                }
            }
        }
    }
}

void fvi_convert_avx512(fvi_convert_ops *ops) { *ops = (fvi_convert_ops){.to_f32 = to_f32, .to_bf16 = to_bf16, .pack = pack}; }
