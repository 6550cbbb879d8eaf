/* decode_quant_avx512vnni.c - queries times quantised K by dot products of bytes (vpdpbusd), K read where it lies.
 *
 * A leaf is turned in registers so that a lane is a key: kt[w][j] holds the w-th four bytes of key j. That costs 4 shuffles a
 * key and 16 bytes, once for all rows; in return nothing is folded across lanes, and 16 keys' scales are one load. vpdpbusd wants
 * one side unsigned. It is K: q8_0 with its sign bit turned is k + 128, a nibble is k + 8; so each sum begins at -128 or -8 times
 * the sum of Q's block, a number of the row alone, and comes out exact. */
#include "kernel/avx512_inline.h"
#include "kernel/decode_quant_inline.h"

enum { WORDS = FVI_QUANT_BLOCK / 4, KEYS = 2 * LANES, GROUP = 4 };

static void pack_q(const float *q, int d, void *qt) { decode_pack_q(q, d, qt); }

/* Parts from .. to - 1 of 64 of the next leaf: its integers, and the scales behind them. Asked for bit by bit: a burst would wait
 * for the few places that the processor keeps for what is under way. */
INLINE void ask_parts(const fvi_rows *k, int d, int from, int to) {
    int64_t lines = k->row_bytes + 2 * d / FVI_QUANT_BLOCK;
    for (int64_t i = lines * from / FVI_LEAF; k->next != NULL && i < lines * to / FVI_LEAF; i++) {
        _mm_prefetch((const char *)((uintptr_t)k->next + (uintptr_t)i * 64), _MM_HINT_T0);
    }
}

/* Words at .. at + words - 1 of up to 16 keys. */
INLINE void turn_block(const unsigned char *rows, int64_t row_bytes, int n, int words, __m512i flip, uint32_t *kt) {
    __m512 v[LANES];
    __mmask16 mask = first(words);
    UNROLL for (int j = 0; j < LANES; j++) {
        const unsigned char *row = rows + j * row_bytes;
        __m512i x = j >= n           ? _mm512_setzero_si512()
                    : words >= LANES ? _mm512_loadu_si512(row)
                                     : _mm512_maskz_loadu_epi32(mask, row);
        v[j] = _mm512_castsi512_ps(_mm512_xor_si512(x, flip));
    }
    transpose16(v);
    UNROLL for (int w = 0; w < LANES; w++) {
        if (w < words) {
            _mm512_store_ps((float *)(kt + w * FVI_LEAF), v[w]);
        }
    }
}

/* Asks for half of the next leaf. */
INLINE void turn(const fvi_rows *k, int d, int bytes, uint8_t flip_byte, uint32_t *kt) {
    const __m512i flip = _mm512_set1_epi8((char)flip_byte);
    for (int j = 0; j < k->n; j += LANES) {
        const unsigned char *rows = (const unsigned char *)k->data + j * k->row_bytes;
        for (int at = 0; at < bytes; at += 64) {
            ask_parts(k, d, (j + LANES * at / bytes) / 2, (j + LANES * (at + 64 < bytes ? at + 64 : bytes) / bytes) / 2);
            uint32_t *to = kt + at / 4 * FVI_LEAF + j;
            if (k->n - j >= LANES && bytes - at >= 64) {
                turn_block(rows + at, k->row_bytes, LANES, LANES, flip, to);
            } else {
                turn_block(rows + at, k->row_bytes, k->n - j, (bytes - at) / 4, flip, to);
            }
        }
    }
}

INLINE __m512i load_q(const int8_t *q) {
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm512_set1_epi32(four);
}

/* One block of up to 4 rows with 32 keys. */
INLINE void block_q8_0(const decode_query *q, int rows, int i, const uint32_t *kt, __m512i sum[GROUP][2]) {
    UNROLL for (int r = 0; r < rows; r++) { sum[r][0] = sum[r][1] = _mm512_set1_epi32(-128 * q[r].sum[i]); }
    kt += (int64_t)i * WORDS * FVI_LEAF;
    UNROLL for (int w = 0; w < WORDS; w++) {
        __m512i a = _mm512_load_si512(kt + w * FVI_LEAF), b = _mm512_load_si512(kt + w * FVI_LEAF + LANES);
        UNROLL for (int r = 0; r < rows; r++) {
            __m512i y = load_q(q[r].q + i * FVI_QUANT_BLOCK + 4 * w);
            sum[r][0] = _mm512_dpbusd_epi32(sum[r][0], a, y);
            sum[r][1] = _mm512_dpbusd_epi32(sum[r][1], b, y);
        }
    }
}

INLINE void block_q4_0(const decode_query *q, int rows, int i, const uint32_t *kt, __m512i sum[GROUP][2]) {
    const __m512i low = _mm512_set1_epi8(15);
    UNROLL for (int r = 0; r < rows; r++) { sum[r][0] = sum[r][1] = _mm512_set1_epi32(-8 * q[r].sum[i]); }
    kt += (int64_t)i * WORDS / 2 * FVI_LEAF;
    UNROLL for (int w = 0; w < WORDS / 2; w++) {
        __m512i a = _mm512_load_si512(kt + w * FVI_LEAF), b = _mm512_load_si512(kt + w * FVI_LEAF + LANES);
        __m512i a_high = _mm512_and_si512(_mm512_srli_epi16(a, 4), low), b_high = _mm512_and_si512(_mm512_srli_epi16(b, 4), low);
        a = _mm512_and_si512(a, low);
        b = _mm512_and_si512(b, low);
        UNROLL for (int r = 0; r < rows; r++) {
            const int8_t *at = q[r].q + i * FVI_QUANT_BLOCK + 4 * w;
            __m512i y = load_q(at), z = load_q(at + FVI_QUANT_BLOCK / 2);
            sum[r][0] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum[r][0], a, y), a_high, z);
            sum[r][1] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum[r][1], b, y), b_high, z);
        }
    }
}

INLINE void score_keys(const decode_query *q, int rows, int d, const fvi_rows *k, int j, const uint32_t *kt, float scale,
                       float *s, bool ask, fv_dtype dtype) {
    __m512 acc[GROUP][2];
    __m512i sum[GROUP][2];
    __mmask16 mask[2] = {first(k->n - j), first(k->n - j - LANES)};
    UNROLL for (int r = 0; r < rows; r++) { acc[r][0] = acc[r][1] = _mm512_setzero_ps(); }
    for (int i = 0; i < d / FVI_QUANT_BLOCK; i++) {
        if (dtype == FV_Q8_0) {
            block_q8_0(q, rows, i, kt + j, sum);
        } else {
            block_q4_0(q, rows, i, kt + j, sum);
        }
        if (ask) {
            int blocks = d / FVI_QUANT_BLOCK;
            ask_parts(k, d, (FVI_LEAF + j + KEYS * i / blocks) / 2, (FVI_LEAF + j + KEYS * (i + 1) / blocks) / 2);
        }
        UNROLL for (int half = 0; half < 2; half++) {
            __m512 by = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask[half], k->scale + i * FVI_LEAF + j + half * LANES));
            UNROLL for (int r = 0; r < rows; r++) {
                __m512 both = _mm512_mul_ps(by, _mm512_set1_ps(q[r].scale[i]));
                acc[r][half] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][half]), both, acc[r][half]);
            }
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int half = 0; half < 2; half++) {
            __m512 x = _mm512_maskz_mul_ps(mask[half], acc[r][half], _mm512_set1_ps(scale));
            _mm512_store_ps(s + r * FVI_LEAF + j + half * LANES, x);
        }
    }
}

/* Up to 4 rows, a constant, with the leaf. */
INLINE void score_rows(const void *qt, int row, int rows, int d, const fvi_rows *k, const uint32_t *kt, float scale, float *s,
                       fv_dtype dtype) {
    decode_query q[GROUP];
    UNROLL for (int r = 0; r < rows; r++) { q[r] = decode_query_at(qt, row + r, d); }
    s += row * FVI_LEAF;
    for (int j = 0; j < FVI_LEAF; j += KEYS) {
        if (j < k->n) {
            score_keys(q, rows, d, k, j, kt, scale, s, row == 0, dtype);
        } else {
            for (int r = 0; r < rows; r++) {
                memset(s + r * FVI_LEAF + j, 0, KEYS * sizeof *s);
            }
        }
    }
}

INLINE void qk(const void *qt, int rows, int d, const fvi_rows *k, float scale, float *s, fv_dtype dtype) {
    uint32_t kt[256 / 4 * FVI_LEAF] __attribute__((aligned(64)));
    int row = 0;
    turn(k, d, (int)fvi_quant_row_bytes(dtype, d), dtype == FV_Q8_0 ? 0x80 : 0, kt);
    for (; row + GROUP <= rows; row += GROUP) {
        score_rows(qt, row, 4, d, k, kt, scale, s, dtype);
    }
    switch (rows - row) {
    case 1:
        score_rows(qt, row, 1, d, k, kt, scale, s, dtype);
        break;
    case 2:
        score_rows(qt, row, 2, d, k, kt, scale, s, dtype);
        break;
    case 3:
        score_rows(qt, row, 3, d, k, kt, scale, s, dtype);
        break;
    default:
        break;
    }
}

static void qk_q8_0(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    qk(q, rows, d, k, scale, s, FV_Q8_0);
}
static void qk_q4_0(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    qk(q, rows, d, k, scale, s, FV_Q4_0);
}

void fvi_decode_quant_avx512vnni(fvi_decode_ops *ops) {
    ops->k[FV_Q8_0] = (fvi_decode_k){"avx512vnni", decode_q_bytes, pack_q, qk_q8_0};
    ops->k[FV_Q4_0] = (fvi_decode_k){"avx512vnni", decode_q_bytes, pack_q, qk_q4_0};
}
