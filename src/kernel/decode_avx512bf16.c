/* decode_avx512bf16.c - products of generated tokens with bf16 rows by bf16 dot products (vdpbf16ps).
 *
 * K's rows are pairs over the width as they lie. V's are pairs over two keys once two rows are interleaved, which leaves the
 * columns of 32 in the order 0-3 8-11 16-19 24-27 | 4-7 12-15 20-23 28-31: outputs are put into it before a leaf and back
 * after it. Queries and weights are rounded to bf16. */
#include "kernel/decode_avx512_inline.h"

enum { PAIRED = 2 * LANES, WIDEST = 4 }; /* elements of a register; registers of rows whose width the compiler knows */

static int64_t q_bytes(int d) { return fvi_round_up(d, PAIRED) * 2; }

static void pack_q(const float *q, int d, void *qt) {
    for (int c = 0; c < (int)fvi_round_up(d, PAIRED); c += LANES) {
        __m512 x = _mm512_maskz_loadu_ps(first(d - c), q + c);
        _mm256_store_si256((__m256i *)((char *)qt + 2 * c), (__m256i)_mm512_cvtneps_pbh(x));
    }
}

/* 32 elements of a row from element c on; those outside the mask are not read and 0. */
INLINE __m512i load_pairs(const unsigned char *row, int c, __mmask32 mask) {
    return mask == UINT32_MAX ? _mm512_loadu_si512(row + 2 * c) : _mm512_maskz_loadu_epi16(mask, row + 2 * c);
}

INLINE __mmask32 first_pairs(int64_t n) { return n >= PAIRED ? UINT32_MAX : n <= 0 ? 0 : (UINT32_C(1) << n) - 1; }

/* ---- qk ------------------------------------------------------------------------------------------------------------ */

INLINE void score_step(const char *q, int64_t width, const unsigned char *const key[LANES], int c, __mmask32 mask, int rows,
                       int keys, __m512 acc[LANES], const ahead *next, int64_t way) {
    __m512bh x[GROUP];
    UNROLL for (int r = 0; r < rows; r++) { x[r] = (__m512bh)_mm512_load_si512(q + r * width + 2 * c); }
    way += ask_first(next, 2 * c, 64, keys);
    int64_t stride = ask_stride(next, 64);
    UNROLL for (int j = 0; j < keys; j++, way += stride) {
        __m512bh y = (__m512bh)load_pairs(key[j], c, mask);
        ask_for(key[0], way);
        UNROLL for (int r = 0; r < rows; r++) { acc[r * keys + j] = _mm512_dpbf16_ps(acc[r * keys + j], x[r], y); }
    }
}

INLINE void score_rows(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s, int keys, const ahead *next) {
    const unsigned char *key[LANES];
    int64_t width = q_bytes(d);
    for (int j = 0; j < k->n; j += keys) {
        __m512 acc[LANES];
        point_at(k, j, keys, key);
        UNROLL for (int i = 0; i < LANES; i++) { acc[i] = _mm512_setzero_ps(); }
        int64_t way = way_ahead(next, j, keys);
        int c = 0;
        for (; c + PAIRED <= d; c += PAIRED) {
            score_step(q, width, key, c, UINT32_MAX, rows, keys, acc, next, way);
        }
        if (c < d) {
            score_step(q, width, key, c, first_pairs(d - c), rows, keys, acc, next, way);
        }
        store_scores(_mm512_mul_ps(fold16(acc, true), _mm512_set1_ps(scale)), rows, keys, s + j);
    }
}

/* Four rows that stay in registers, `steps` of each, with keys side by side: only keys are loaded. Four keys at a time; one after
 * the other they come more slowly from memory, by a tenth. */
INLINE void score_held(const char *q, int steps, const fvi_rows *k, float scale, float *s) {
    const unsigned char *key[LANES];
    __m512bh x[GROUP][WIDEST];
    ahead next = ahead_of(k, 64 * steps, AHEAD_K, 0);
    UNROLL for (int r = 0; r < GROUP; r++) {
        UNROLL for (int t = 0; t < steps; t++) { x[r][t] = (__m512bh)_mm512_load_si512(q + 64 * (r * steps + t)); }
    }
    for (int j = 0; j < k->n; j += GROUP) {
        __m512 acc[LANES];
        point_at(k, j, GROUP, key);
        int64_t way = way_ahead(&next, j, GROUP);
        UNROLL for (int i = 0; i < LANES; i++) { acc[i] = _mm512_setzero_ps(); }
        UNROLL for (int t = 0; t < steps; t++) {
            UNROLL for (int i = 0; i < GROUP; i++) {
                __m512bh y = (__m512bh)_mm512_loadu_si512(key[i] + 64 * t);
                ask_for(key[0], way + 64 * (GROUP * t + i));
                UNROLL for (int r = 0; r < GROUP; r++) { acc[r * GROUP + i] = _mm512_dpbf16_ps(acc[r * GROUP + i], x[r][t], y); }
            }
        }
        store_scores(_mm512_mul_ps(fold16(acc, true), _mm512_set1_ps(scale)), GROUP, GROUP, s + j);
    }
    clear_scores(k->n, GROUP, s);
}

static void qk(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    bool held = rows == GROUP && k->row_bytes == 2 * d;
    if (held && d == 2 * PAIRED) {
        score_held(q, 2, k, scale, s);
    } else if (held && d == WIDEST * PAIRED) {
        score_held(q, WIDEST, k, scale, s);
    } else {
        multiply_keys(q, q_bytes(d), rows, d, k, scale, s, 2, score_rows);
    }
}

/* ---- pv ------------------------------------------------------------------------------------------------------------ */

/* A row's weights as 32 pairs of bf16 in the first half of its place. */
INLINE void pair_weights(float *p) {
    __m512 a = _mm512_load_ps(p), b = _mm512_load_ps(p + 16), c = _mm512_load_ps(p + 32), d = _mm512_load_ps(p + 48);
    _mm512_store_si512(p, (__m512i)_mm512_cvtne2ps_pbh(b, a));
    _mm512_store_si512(p + LANES, (__m512i)_mm512_cvtne2ps_pbh(d, c));
}

/* Two registers of 16 columns <-> the order that interleaved rows have. A single register's partner is 0 and not stored. */
INLINE void load_outputs(const float *out, __m512 a, bool both, __m512 acc[2]) {
    __m512 x = _mm512_mul_ps(_mm512_load_ps(out), a);
    __m512 y = both ? _mm512_mul_ps(_mm512_load_ps(out + LANES), a) : _mm512_setzero_ps();
    acc[0] = _mm512_shuffle_f32x4(x, y, 0x88);
    acc[1] = _mm512_shuffle_f32x4(x, y, 0xdd);
}

INLINE void store_outputs(float *out, bool both, const __m512 acc[2]) {
    __m512 x = _mm512_shuffle_f32x4(acc[0], acc[1], 0x44), y = _mm512_shuffle_f32x4(acc[0], acc[1], 0xee);
    _mm512_store_ps(out, _mm512_shuffle_f32x4(x, x, 0xd8));
    if (both) {
        _mm512_store_ps(out + LANES, _mm512_shuffle_f32x4(y, y, 0xd8));
    }
}

/* `columns` counts registers of 16; an odd one has its pair alone. */
INLINE void value_block(const float *p, int rows, const float *alpha, const fvi_rows *v, const sweep *w, int d, int d_pad,
                        float *out, int columns, const ahead *next) {
    __m512 acc[GROUP][WIDE];
    int halves = (columns + 1) / 2;
    __mmask32 last = first_pairs(d - w->c - PAIRED * (halves - 1));
    out += w->c;
    UNROLL for (int r = 0; r < rows; r++) {
        __m512 a = _mm512_set1_ps(alpha[r]);
        UNROLL for (int i = 0; i < halves; i++) {
            load_outputs(out + (int64_t)r * d_pad + PAIRED * i, a, columns > 1, acc[r] + 2 * i);
        }
    }
    asking asks = asking_of(v, w, next, 64 * halves, 2);
    const unsigned char *row = (const unsigned char *)v->data + w->from * v->row_bytes + 2 * (int64_t)w->c;
    for (int j = 0; j < w->keys; j += 2, row += 2 * v->row_bytes) {
        __m512i a[WIDE / 2], b[WIDE / 2];
        UNROLL for (int i = 0; i < halves; i++) {
            __mmask32 mask = i + 1 < halves ? UINT32_MAX : last;
            a[i] = load_pairs(row, PAIRED * i, mask);
            b[i] = _mm512_setzero_si512();
            if (j + 1 < w->keys) {
                b[i] = load_pairs(row + v->row_bytes, PAIRED * i, mask);
            }
        }
        int64_t way = asked_at(&asks, j);
        UNROLL for (int i = 0; i < 2 * halves; i++) {
            ask_for(v->data, way + (i < halves ? 64 * i : asks.stride + 64 * (i - halves)));
        }
        UNROLL for (int i = 0; i < halves; i++) {
            __m512bh low = (__m512bh)_mm512_unpacklo_epi16(a[i], b[i]), high = (__m512bh)_mm512_unpackhi_epi16(a[i], b[i]);
            UNROLL for (int r = 0; r < rows; r++) {
                __m512bh x = (__m512bh)_mm512_set1_ps(p[r * FVI_LEAF + (w->from + j) / 2]);
                acc[r][2 * i] = _mm512_dpbf16_ps(acc[r][2 * i], x, low);
                acc[r][2 * i + 1] = _mm512_dpbf16_ps(acc[r][2 * i + 1], x, high);
            }
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int i = 0; i < halves; i++) {
            store_outputs(out + (int64_t)r * d_pad + PAIRED * i, columns > 1, acc[r] + 2 * i);
        }
    }
}

static void pv(float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out) {
    for (int r = 0; r < rows; r++) {
        pair_weights(p + r * FVI_LEAF);
    }
    multiply_weights(p, rows, alpha, v, d, d_pad, out, 2, value_block);
}

/* ---- one row and rows that lie apart ------------------------------------------------------------------------------- */

/* 16 keys of `steps` registers, one key after the other: a key's address is looked up once, and its lines lie side by side. */
INLINE void score_whole(const char *q, int steps, const void *const *key, float scale, float *s) {
    __m512bh x[WIDEST];
    __m512 acc[LANES];
    UNROLL for (int t = 0; t < steps; t++) { x[t] = (__m512bh)_mm512_load_si512(q + 64 * t); }
    UNROLL for (int i = 0; i < LANES; i++) {
        const char *row = key[i];
        acc[i] = _mm512_setzero_ps();
        UNROLL for (int t = 0; t < steps; t++) {
            acc[i] = _mm512_dpbf16_ps(acc[i], x[t], (__m512bh)_mm512_loadu_si512(row + 64 * t));
        }
    }
    _mm512_store_ps(s, _mm512_mul_ps(fold16(acc, true), _mm512_set1_ps(scale)));
}

/* Up to 16 keys of any width, the last of them again past the n-th. */
INLINE void score_some(const char *q, int d, const void *const *key, int n, float scale, float *s) {
    __m512 acc[LANES];
    UNROLL for (int i = 0; i < LANES; i++) { acc[i] = _mm512_setzero_ps(); }
    for (int c = 0; c < d; c += PAIRED) {
        __m512bh x = (__m512bh)_mm512_load_si512(q + 2 * c);
        __mmask32 mask = first_pairs(d - c);
        UNROLL for (int i = 0; i < LANES; i++) {
            acc[i] = _mm512_dpbf16_ps(acc[i], x, (__m512bh)load_pairs(key[i < n ? i : n - 1], c, mask));
        }
    }
    _mm512_store_ps(s, _mm512_mul_ps(fold16(acc, true), _mm512_set1_ps(scale)));
}

static void qk_apart(const void *qt, int d, const void *const *key, int n, float scale, float *s) {
    for (int j = 0; j < n; j += LANES) {
        switch (n - j >= LANES && d % PAIRED == 0 ? d / PAIRED : 0) {
        case 1:
            score_whole(qt, 1, key + j, scale, s + j);
            break;
        case 2:
            score_whole(qt, 2, key + j, scale, s + j);
            break;
        case 3:
            score_whole(qt, 3, key + j, scale, s + j);
            break;
        case WIDEST:
            score_whole(qt, WIDEST, key + j, scale, s + j);
            break;
        default:
            score_some(qt, d, key + j, n - j, scale, s + j);
            break;
        }
    }
    clear_scores(n, 1, s);
}

/* 32 columns each of `halves`. */
INLINE void value_apart(const float *p, float alpha, const void *const *value, int n, int c, int d, float *out, int halves,
                        bool odd) {
    __m512 acc[WIDE];
    __mmask32 last = first_pairs(d - c - PAIRED * (halves - 1));
    UNROLL for (int i = 0; i < halves; i++) { load_outputs(out + c + PAIRED * i, _mm512_set1_ps(alpha), !odd, acc + 2 * i); }
    for (int j = 0; j < n; j += 2) {
        const unsigned char *a = value[j], *b = value[j + 1 < n ? j + 1 : j];
        __m512bh x = (__m512bh)_mm512_set1_ps(p[j / 2]);
        UNROLL for (int i = 0; i < halves; i++) {
            __mmask32 mask = i + 1 < halves ? UINT32_MAX : last;
            __m512i y = load_pairs(a, c + PAIRED * i, mask), z = _mm512_setzero_si512();
            if (j + 1 < n) {
                z = load_pairs(b, c + PAIRED * i, mask);
            }
            acc[2 * i] = _mm512_dpbf16_ps(acc[2 * i], x, (__m512bh)_mm512_unpacklo_epi16(y, z));
            acc[2 * i + 1] = _mm512_dpbf16_ps(acc[2 * i + 1], x, (__m512bh)_mm512_unpackhi_epi16(y, z));
        }
    }
    UNROLL for (int i = 0; i < halves; i++) { store_outputs(out + c + PAIRED * i, !odd, acc + 2 * i); }
}

static void pv_apart(float *p, float alpha, const void *const *value, int n, int d, int d_pad, float *out) {
    pair_weights(p);
    for (int c = 0, columns; c < d_pad; c += LANES * columns) {
        columns = columns_of((d_pad - c) / LANES);
        switch (columns) {
        case 8:
            value_apart(p, alpha, value, n, c, d, out, 4, false);
            break;
        case 6:
            value_apart(p, alpha, value, n, c, d, out, 3, false);
            break;
        case 4:
            value_apart(p, alpha, value, n, c, d, out, 2, false);
            break;
        case 2:
            value_apart(p, alpha, value, n, c, d, out, 1, false);
            break;
        default:
            value_apart(p, alpha, value, n, c, d, out, 1, true);
            break;
        }
    }
}

/* Two rows, 64 keys of each, 32 columns each of `halves`: a few columns are so few chains of products that one row would wait for
 * its own sums. */
INLINE void value_two(const fvi_apart_leaf row[2], int c, int halves) {
    __m512 acc[2][WIDE];
    UNROLL for (int r = 0; r < 2; r++) {
        UNROLL for (int i = 0; i < halves; i++) {
            load_outputs(row[r].out + c + PAIRED * i, _mm512_set1_ps(row[r].alpha), true, acc[r] + 2 * i);
        }
    }
    for (int j = 0; j < FVI_LEAF; j += 2) {
        UNROLL for (int r = 0; r < 2; r++) {
            const unsigned char *a = row[r].value[j], *b = row[r].value[j + 1];
            __m512bh x = (__m512bh)_mm512_set1_ps(row[r].p[j / 2]);
            UNROLL for (int i = 0; i < halves; i++) {
                __m512i y = _mm512_loadu_si512(a + 2 * (c + PAIRED * i)), z = _mm512_loadu_si512(b + 2 * (c + PAIRED * i));
                acc[r][2 * i] = _mm512_dpbf16_ps(acc[r][2 * i], x, (__m512bh)_mm512_unpacklo_epi16(y, z));
                acc[r][2 * i + 1] = _mm512_dpbf16_ps(acc[r][2 * i + 1], x, (__m512bh)_mm512_unpackhi_epi16(y, z));
            }
        }
    }
    UNROLL for (int r = 0; r < 2; r++) {
        UNROLL for (int i = 0; i < halves; i++) { store_outputs(row[r].out + c + PAIRED * i, true, acc[r] + 2 * i); }
    }
}

static void pv_two(const fvi_apart_leaf row[2], int d, int d_pad) {
    if (d % (2 * PAIRED) != 0 || d != d_pad) {
        for (int r = 0; r < 2; r++) {
            pv_apart(row[r].p, row[r].alpha, row[r].value, FVI_LEAF, d, d_pad, row[r].out);
        }
        return;
    }
    pair_weights(row[0].p);
    pair_weights(row[1].p);
    for (int c = 0; c < d; c += 2 * PAIRED) {
        value_two(row, c, 2);
    }
}

void fvi_decode_avx512bf16(fvi_decode_ops *ops) {
    ops->k[FV_BF16] = (fvi_decode_k){"avx512bf16", q_bytes, pack_q, qk};
    ops->v[FV_BF16] = (fvi_decode_v){"avx512bf16", pv};
    ops->qk_apart[FV_BF16] = qk_apart;
    ops->pv_apart[FV_BF16] = pv_apart;
    ops->pv_two[FV_BF16] = pv_two;
}
