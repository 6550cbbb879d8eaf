/* decode_quant_avx512vnni.c - queries times quantised K by dot products of bytes (vpdpbusd), K read where it lies.
 *
 * 64 bytes of 16 keys are turned in registers so that a lane is a key: v[w] holds the w-th four bytes of each. That costs 4
 * shuffles a key and 64 bytes, once for all rows; in return nothing is folded across lanes, and 16 keys' scales are one load.
 * Products follow at once, from the registers: shuffles and products go to different ports, and overlap where they alternate.
 * vpdpbusd wants one side unsigned. It is K: q8_0 with its sign bit turned is k + 128, a nibble is k + 8; so each sum begins at
 * -128 or -8 times the sum of Q's block, a number of the row alone, and comes out exact. */
#include "kernel/avx512_inline.h"
#include "kernel/decode_quant_inline.h"

enum { GROUP = 4 };

/* With the sums of blocks as what their products begin at. */
static void pack_offsets(const float *q, int d, int offset, void *qt) {
    decode_pack_q(q, d, qt);
    int32_t *sum = (int32_t *)((unsigned char *)qt + d + d / FVI_QUANT_BLOCK * (int)sizeof(float));
    for (int i = 0; i < d / FVI_QUANT_BLOCK; i++) {
        sum[i] *= -offset;
    }
}

static void pack_q8_0(const float *q, int d, void *qt) { pack_offsets(q, d, 128, qt); }
static void pack_q4_0(const float *q, int d, void *qt) { pack_offsets(q, d, 8, qt); }

/* `words` words of up to 16 keys, the line of the next leaf that corresponds to each asked for meanwhile. */
INLINE void turn(const unsigned char *rows, int64_t row_bytes, int n, int words, uint8_t flip_byte, const char *next,
                 __m512i v[LANES]) {
    __m512 t[LANES];
    const __m512i flip = _mm512_set1_epi8((char)flip_byte);
    UNROLL for (int j = 0; j < LANES; j++) {
        const unsigned char *row = rows + j * row_bytes;
        __m512i x = j >= n           ? _mm512_setzero_si512()
                    : words >= LANES ? _mm512_loadu_si512(row)
                                     : _mm512_maskz_loadu_epi32(first(words), row);
        _mm_prefetch((const char *)((uintptr_t)next + (uintptr_t)j * 64), _MM_HINT_T0);
        t[j] = _mm512_castsi512_ps(flip_byte != 0 ? _mm512_xor_si512(x, flip) : x);
    }
    transpose16(t);
    UNROLL for (int w = 0; w < LANES; w++) { v[w] = _mm512_castps_si512(t[w]); }
}

INLINE __m512i load_q(const int8_t *q) {
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm512_set1_epi32(four);
}

/* One block, number i, of up to 4 rows with 16 keys. Two sums a row, since a sum's products are a chain. */
INLINE void block_q8_0(const decode_query *q, int rows, int i, const __m512i *v, __m512i sum[GROUP][2]) {
    UNROLL for (int w = 0; w < 8; w++) {
        UNROLL for (int r = 0; r < rows; r++) {
            sum[r][w % 2] = _mm512_dpbusd_epi32(sum[r][w % 2], v[w], load_q(q[r].q + i * FVI_QUANT_BLOCK + 4 * w));
        }
    }
}

INLINE void block_q4_0(const decode_query *q, int rows, int i, const __m512i *v, __m512i sum[GROUP][2]) {
    const __m512i low = _mm512_set1_epi8(15);
    UNROLL for (int w = 0; w < 4; w++) {
        __m512i x = _mm512_and_si512(v[w], low), y = _mm512_and_si512(_mm512_srli_epi16(v[w], 4), low);
        UNROLL for (int r = 0; r < rows; r++) {
            const int8_t *at = q[r].q + i * FVI_QUANT_BLOCK + 4 * w;
            sum[r][0] = _mm512_dpbusd_epi32(sum[r][0], x, load_q(at));
            sum[r][1] = _mm512_dpbusd_epi32(sum[r][1], y, load_q(at + FVI_QUANT_BLOCK / 2));
        }
    }
}

/* Where a run of words stands: keys j .. j + 15 of the leaf, blocks i .. i + blocks - 1. */
typedef struct place {
    const uint16_t *scale; /* of key j in block i */
    int i, d;
    __mmask16 keys; /* that exist */
    float by;       /* the last blocks' scores are multiplied with it */
} place;

/* Up to 4 rows, a constant as `blocks` is; s holds the chains of blocks between runs. */
INLINE void score_blocks(const void *qt, int rows, const place *at, const __m512i v[LANES], int blocks, float *s,
                         fv_dtype dtype) {
    decode_query q[GROUP];
    __m512 acc[GROUP];
    UNROLL for (int r = 0; r < rows; r++) {
        q[r] = decode_query_at(qt, r, at->d);
        acc[r] = at->i == 0 ? _mm512_setzero_ps() : _mm512_load_ps(s + r * FVI_LEAF);
    }
    UNROLL for (int b = 0; b < blocks; b++) {
        __m512i sum[GROUP][2];
        int i = at->i + b;
        UNROLL for (int r = 0; r < rows; r++) {
            sum[r][0] = _mm512_set1_epi32(q[r].sum[i]);
            sum[r][1] = _mm512_setzero_si512();
        }
        if (dtype == FV_Q8_0) {
            block_q8_0(q, rows, i, v + 8 * b, sum);
        } else {
            block_q4_0(q, rows, i, v + 4 * b, sum);
        }
        __m512 by = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(at->keys, at->scale + b * FVI_LEAF));
        UNROLL for (int r = 0; r < rows; r++) {
            __m512 both = _mm512_mul_ps(by, _mm512_set1_ps(q[r].scale[i]));
            acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(sum[r][0], sum[r][1])), both, acc[r]);
        }
    }
    bool last = (at->i + blocks) * FVI_QUANT_BLOCK >= at->d;
    UNROLL for (int r = 0; r < rows; r++) {
        _mm512_store_ps(s + r * FVI_LEAF, last ? _mm512_maskz_mul_ps(at->keys, acc[r], _mm512_set1_ps(at->by)) : acc[r]);
    }
}

INLINE void score_rows(const void *qt, int rows, const place *at, const __m512i v[LANES], int blocks, float *s, fv_dtype dtype) {
    const char *q = qt;
    for (; rows >= GROUP; rows -= GROUP, q += GROUP * decode_q_bytes(at->d), s += GROUP * FVI_LEAF) {
        score_blocks(q, GROUP, at, v, blocks, s, dtype);
    }
    switch (rows) {
    case 1:
        score_blocks(q, 1, at, v, blocks, s, dtype);
        break;
    case 2:
        score_blocks(q, 2, at, v, blocks, s, dtype);
        break;
    case 3:
        score_blocks(q, 3, at, v, blocks, s, dtype);
        break;
    default:
        break;
    }
}

/* A run of fewer blocks has them one by one. */
INLINE void score_some(const void *qt, int rows, place at, __m512i v[LANES], int blocks, float *s, fv_dtype dtype) {
    int words = dtype == FV_Q8_0 ? 8 : 4;
    for (int b = 0; b < blocks; b++, at.i++, at.scale += FVI_LEAF) {
        score_rows(qt, rows, &at, v, 1, s, dtype);
        UNROLL for (int w = 0; w + words < LANES; w++) { v[w] = v[w + words]; }
    }
}

/* The next leaf's integers are asked for as this one's are turned. `whole`: 64 keys of whole lines; a constant, as `rows` is
 * where it is one. */
INLINE void multiply_keys(const void *qt, int rows, int d, const fvi_rows *k, float scale, float *s, bool whole, fv_dtype dtype) {
    const int most = dtype == FV_Q8_0 ? 2 : 4, words = LANES / most, n = whole ? FVI_LEAF : k->n;
    const uint8_t flip = dtype == FV_Q8_0 ? 0x80 : 0;
    const char *next = k->next != NULL ? k->next : k->data;
    for (int j = 0; j < n; j += LANES) {
        const unsigned char *row = (const unsigned char *)k->data + j * k->row_bytes;
        place at = {.d = d, .keys = whole ? 0xffff : first(n - j), .by = scale};
        if (whole && k->row_bytes > 64) {
            decode_read_on(row, LANES * k->row_bytes);
        }
        for (; at.i * FVI_QUANT_BLOCK < d; at.i += most, row += 64, next = (const char *)((uintptr_t)next + 1024)) {
            __m512i v[LANES];
            int blocks = whole ? most : (int)fvi_min(most, d / FVI_QUANT_BLOCK - at.i);
            at.scale = k->scale + at.i * FVI_LEAF + j;
            turn(row, k->row_bytes, whole ? LANES : n - j, blocks * words, flip, next, v);
            if (whole) {
                score_rows(qt, rows, &at, v, most, s + j, dtype);
            } else {
                score_some(qt, rows, at, v, blocks, s + j, dtype);
            }
        }
    }
    decode_end_leaf(k, d);
    for (int j = (int)fvi_round_up(n, LANES); j < FVI_LEAF; j += LANES) {
        for (int r = 0; r < rows; r++) {
            _mm512_store_ps(s + r * FVI_LEAF + j, _mm512_setzero_ps());
        }
    }
}

/* Apart, so that compilers do not merge it with the common case. */
static __attribute__((noinline)) void any_q8_0(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    multiply_keys(q, rows, d, k, scale, s, false, FV_Q8_0);
}
static __attribute__((noinline)) void any_q4_0(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    multiply_keys(q, rows, d, k, scale, s, false, FV_Q4_0);
}

static void qk_q8_0(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    if (rows == GROUP && k->n == FVI_LEAF && d % 64 == 0) {
        multiply_keys(q, GROUP, d, k, scale, s, true, FV_Q8_0);
    } else {
        any_q8_0(q, rows, d, k, scale, s);
    }
}
static void qk_q4_0(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    if (rows == GROUP && k->n == FVI_LEAF && d % 128 == 0) {
        multiply_keys(q, GROUP, d, k, scale, s, true, FV_Q4_0);
    } else {
        any_q4_0(q, rows, d, k, scale, s);
    }
}

void fvi_decode_quant_avx512vnni(fvi_decode_ops *ops) {
    ops->k[FV_Q8_0] = (fvi_decode_k){"avx512vnni", decode_q_bytes, pack_q8_0, qk_q8_0};
    ops->k[FV_Q4_0] = (fvi_decode_k){"avx512vnni", decode_q_bytes, pack_q4_0, qk_q4_0};
}
