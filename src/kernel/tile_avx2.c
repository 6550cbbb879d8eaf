/* tile_avx2.c - the attention tile for AVX2 and FMA.
 *
 * The microkernel is 6 rows by 16 columns in 12 accumulators; one or two rows take 32 columns at once, which gives them as many
 * chains in flight. soften works on 8 rows together, as in tile_avx512.c. */
#include "kernel/tile.h"

#include "kernel/avx2_inline.h"

enum { ROWS = 6, NARROW = 2, WIDE = 4 };

/* ---- packing ------------------------------------------------------------------------------------------------------- */

/* v[row] lane column -> v[column] lane row: pairs of rows, fours of rows, then halves of registers. */
INLINE void transpose8(__m256 v[LANES]) {
    __m256 t[LANES];
    UNROLL for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
    UNROLL for (int i = 0; i < LANES; i += 4) {
        v[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        v[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        v[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        v[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    UNROLL for (int e = 0; e < 4; e++) {
        __m256 a = v[e], b = v[4 + e];
        v[e] = _mm256_permute2f128_ps(a, b, 0x20);
        v[4 + e] = _mm256_permute2f128_ps(a, b, 0x31);
    }
}

INLINE void pack_k_block(const unsigned char *k, int64_t row_bytes, int n, int d, float *kt, fv_dtype dtype) {
    __m256 v[LANES];
    UNROLL for (int j = 0; j < LANES; j++) { v[j] = j < n ? widen(k + j * row_bytes, d, dtype) : _mm256_setzero_ps(); }
    transpose8(v);
    UNROLL for (int c = 0; c < LANES; c++) {
        if (c < d) {
            _mm256_store_ps(kt + c * FVI_LEAF, v[c]);
        }
    }
}

INLINE void pack_k(const void *k, int64_t row_bytes, int n, int d, float *kt, fv_dtype dtype) {
    int64_t size = dtype == FV_F32 ? 4 : 2;
    for (int j = 0; j < FVI_LEAF; j += LANES) {
        const unsigned char *rows = (const unsigned char *)k + j * row_bytes;
        for (int c = 0; c < d; c += LANES) {
            float *to = kt + c * FVI_LEAF + j;
            if (n - j >= LANES && d - c >= LANES) {
                pack_k_block(rows + c * size, row_bytes, LANES, LANES, to, dtype);
            } else {
                pack_k_block(rows + c * size, row_bytes, n - j, d - c, to, dtype);
            }
        }
    }
}

INLINE void pack_v(const void *v, int64_t row_bytes, int n, int d, float *vt, fv_dtype dtype) {
    int64_t d_pad = fvi_tile_pad(d), size = dtype == FV_F32 ? 4 : 2;
    for (int j = 0; j < FVI_LEAF; j++, vt += d_pad) {
        const unsigned char *row = (const unsigned char *)v + j * row_bytes;
        for (int64_t c = 0; c < d_pad; c += LANES) {
            _mm256_store_ps(vt + c, j < n && c < d ? widen(row + c * size, d - c, dtype) : _mm256_setzero_ps());
        }
    }
}

static void pack_k_f32(const void *k, int64_t row_bytes, int n, int d, void *kt) { pack_k(k, row_bytes, n, d, kt, FV_F32); }
static void pack_k_f16(const void *k, int64_t row_bytes, int n, int d, void *kt) { pack_k(k, row_bytes, n, d, kt, FV_F16); }
static void pack_k_bf16(const void *k, int64_t row_bytes, int n, int d, void *kt) { pack_k(k, row_bytes, n, d, kt, FV_BF16); }
static void pack_v_f32(const void *v, int64_t row_bytes, int n, int d, void *vt) { pack_v(v, row_bytes, n, d, vt, FV_F32); }
static void pack_v_f16(const void *v, int64_t row_bytes, int n, int d, void *vt) { pack_v(v, row_bytes, n, d, vt, FV_F16); }
static void pack_v_bf16(const void *v, int64_t row_bytes, int n, int d, void *vt) { pack_v(v, row_bytes, n, d, vt, FV_BF16); }

static void pack_q(const float *q, int rows, int d, void *qt) { memcpy(qt, q, (size_t)rows * (size_t)d * sizeof *q); }

/* ---- the microkernel ----------------------------------------------------------------------------------------------- */

/* acc[r][i] += sum over t of a[r * a_stride + t] * b[t * b_stride + 8 i ..]; rows and columns are constants where inlined. */
INLINE void accumulate(const float *a, int64_t a_stride, const float *b, int64_t b_stride, int steps, int rows, int columns,
                       __m256 acc[ROWS][WIDE]) {
    for (int t = 0; t < steps; t++, b += b_stride) {
        __m256 x[WIDE];
        UNROLL for (int i = 0; i < columns; i++) { x[i] = _mm256_load_ps(b + LANES * i); }
        UNROLL for (int r = 0; r < rows; r++) {
            __m256 y = _mm256_broadcast_ss(a + r * a_stride + t);
            UNROLL for (int i = 0; i < columns; i++) { acc[r][i] = _mm256_fmadd_ps(y, x[i], acc[r][i]); }
        }
    }
}

INLINE void qk_rows(const float *q, int rows, int columns, int d, const float *kt, float scale, float *s) {
    const __m256 by = _mm256_set1_ps(scale);
    for (int j = 0; j < FVI_LEAF; j += LANES * columns) {
        __m256 acc[ROWS][WIDE];
        UNROLL for (int r = 0; r < rows; r++) {
            UNROLL for (int i = 0; i < columns; i++) { acc[r][i] = _mm256_setzero_ps(); }
        }
        accumulate(q, d, kt + j, FVI_LEAF, d, rows, columns, acc);
        UNROLL for (int r = 0; r < rows; r++) {
            UNROLL for (int i = 0; i < columns; i++) {
                _mm256_store_ps(s + r * FVI_LEAF + j + LANES * i, _mm256_mul_ps(acc[r][i], by));
            }
        }
    }
}

static void qk(const void *qt, int rows, int d, const void *packed, float scale, float *s) {
    const float *q = qt, *kt = packed;
    for (; rows >= ROWS; rows -= ROWS, q += (int64_t)ROWS * d, s += ROWS * FVI_LEAF) {
        qk_rows(q, ROWS, NARROW, d, kt, scale, s);
    }
    switch (rows) {
    case 1:
        qk_rows(q, 1, WIDE, d, kt, scale, s);
        break;
    case 2:
        qk_rows(q, 2, WIDE, d, kt, scale, s);
        break;
    case 3:
        qk_rows(q, 3, NARROW, d, kt, scale, s);
        break;
    case 4:
        qk_rows(q, 4, NARROW, d, kt, scale, s);
        break;
    case 5:
        qk_rows(q, 5, NARROW, d, kt, scale, s);
        break;
    default:
        break;
    }
}

INLINE void pv_block(const float *p, const float *alpha, const float *vt, int d_pad, float *out, int rows, int columns) {
    __m256 acc[ROWS][WIDE];
    UNROLL for (int r = 0; r < rows; r++) {
        __m256 a = _mm256_broadcast_ss(alpha + r);
        UNROLL for (int i = 0; i < columns; i++) {
            acc[r][i] = _mm256_mul_ps(_mm256_load_ps(out + (int64_t)r * d_pad + LANES * i), a);
        }
    }
    accumulate(p, FVI_LEAF, vt, d_pad, FVI_LEAF, rows, columns, acc);
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int i = 0; i < columns; i++) { _mm256_store_ps(out + (int64_t)r * d_pad + LANES * i, acc[r][i]); }
    }
}

INLINE void pv_rows(const float *p, int rows, int columns, const float *alpha, const float *vt, int d_pad, float *out) {
    int c = 0;
    for (; c + LANES * columns <= d_pad; c += LANES * columns) {
        pv_block(p, alpha, vt + c, d_pad, out + c, rows, columns);
    }
    if (c < d_pad) {
        pv_block(p, alpha, vt + c, d_pad, out + c, rows, NARROW);
    }
}

static void pv(const float *p, int rows, const float *alpha, const void *packed, int d_pad, float *out) {
    const float *vt = packed;
    for (; rows >= ROWS; rows -= ROWS, p += ROWS * FVI_LEAF, alpha += ROWS, out += (int64_t)ROWS * d_pad) {
        pv_rows(p, ROWS, NARROW, alpha, vt, d_pad, out);
    }
    switch (rows) {
    case 1:
        pv_rows(p, 1, WIDE, alpha, vt, d_pad, out);
        break;
    case 2:
        pv_rows(p, 2, WIDE, alpha, vt, d_pad, out);
        break;
    case 3:
        pv_rows(p, 3, NARROW, alpha, vt, d_pad, out);
        break;
    case 4:
        pv_rows(p, 4, NARROW, alpha, vt, d_pad, out);
        break;
    case 5:
        pv_rows(p, 5, NARROW, alpha, vt, d_pad, out);
        break;
    default:
        break;
    }
}

/* ---- soften -------------------------------------------------------------------------------------------------------- */

/* 2^x for x <= 0 or NaN: x = n + f with |f| <= 1/2, n by adding 1.5 * 2^23 + 127, which leaves the bits of 2^n at the low end;
 * 2^f = 1 + f q(f), minimax in relative error, 2^-28. */
INLINE __m256 exp2_negative(__m256 x) {
    const __m256 magic = _mm256_set1_ps(0x1.8p23f + 127.0f);
    __m256 normal = _mm256_cmp_ps(x, _mm256_set1_ps(-126), _CMP_NLT_UQ);
    __m256 t = _mm256_add_ps(x, magic), f = _mm256_sub_ps(x, _mm256_sub_ps(t, magic));
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(0x1.416b50p-13f), f, _mm256_set1_ps(0x1.5f082ep-10f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0x1.3b2de0p-7f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0x1.c6af7cp-5f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0x1.ebfbdcp-3f));
    p = _mm256_mul_ps(_mm256_fmadd_ps(p, f, _mm256_set1_ps(0x1.62e430p-1f)), f);
    __m256 scale = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t), 23));
    return _mm256_and_ps(normal, _mm256_fmadd_ps(p, scale, scale));
}

/* ((v0 + v1) + (v2 + v3)) + ((v4 + v5) + (v6 + v7)), by lanes; fold8 does the rest. */
INLINE __m256 fold_row(const __m256 v[FVI_LEAF / LANES], bool add) {
    return fold(fold(fold(v[0], v[1], add), fold(v[2], v[3], add), add), fold(fold(v[4], v[5], add), fold(v[6], v[7], add), add),
                add);
}

INLINE __m256 max64(const float *s) {
    __m256 v[FVI_LEAF / LANES];
    UNROLL for (int i = 0; i < FVI_LEAF / LANES; i++) { v[i] = _mm256_load_ps(s + LANES * i); }
    return fold_row(v, false);
}

/* The weights of a row in place of its scores; their sum by lanes. */
INLINE __m256 weigh64(float *s, __m256 ref) {
    __m256 v[FVI_LEAF / LANES];
    UNROLL for (int i = 0; i < FVI_LEAF / LANES; i++) {
        v[i] = exp2_negative(_mm256_sub_ps(_mm256_load_ps(s + LANES * i), ref));
        _mm256_store_ps(s + LANES * i, v[i]);
    }
    return fold_row(v, true);
}

static void soften8(float *s, int rows, float *m, float *sum, float *alpha) {
    const __m256 hidden = _mm256_set1_ps(-__builtin_inff());
    __m256 part[LANES];
    float ref[LANES] __attribute__((aligned(32)));
    __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(rows), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    for (int r = 0; r < LANES; r++) {
        part[r] = r < rows ? max64(s + r * FVI_LEAF) : hidden;
    }
    __m256 old = _mm256_blendv_ps(hidden, _mm256_maskload_ps(m, mask), _mm256_castsi256_ps(mask));
    __m256 top = _mm256_max_ps(fold8(part, false), old);
    __m256 zeroed = _mm256_and_ps(top, _mm256_cmp_ps(top, hidden, _CMP_NEQ_UQ));
    __m256 correction = exp2_negative(_mm256_sub_ps(old, zeroed));
    _mm256_store_ps(ref, zeroed);
    for (int r = 0; r < LANES; r++) {
        part[r] = r < rows ? weigh64(s + r * FVI_LEAF, _mm256_set1_ps(ref[r])) : _mm256_setzero_ps();
    }
    __m256 total = _mm256_fmadd_ps(_mm256_maskload_ps(sum, mask), correction, fold8(part, true));
    _mm256_maskstore_ps(m, mask, top);
    _mm256_maskstore_ps(alpha, mask, correction);
    _mm256_maskstore_ps(sum, mask, total);
}

static void soften(float *s, int rows, float *m, float *sum, float *alpha) {
    for (int r = 0; r < rows; r += LANES) {
        soften8(s + r * FVI_LEAF, rows - r < LANES ? rows - r : LANES, m + r, sum + r, alpha + r);
    }
}

void fvi_tile_avx2(fvi_tile_ops *ops) {
    *ops = (fvi_tile_ops){
        .name = "avx2",
        .row_block = ROWS,
        .pack_q = pack_q,
        .pack_k = {pack_k_f32, pack_k_f16, pack_k_bf16},
        .pack_v = {pack_v_f32, pack_v_f16, pack_v_bf16},
        .qk = qk,
        .soften = soften,
        .pv = pv,
    };
}
