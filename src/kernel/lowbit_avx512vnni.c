/* lowbit_avx512vnni.c - lowbit.h by vpdpbusd: eight rows against 32 keys stay in 16 registers.
 *
 * Products are all the time there is, so that rows are first asked in integers: where the largest scale and the largest `added`
 * of the 32 keys would not lift a row's largest product above its threshold, no pair is above. Only where that fails for one of
 * eight rows are their pairs taken one by one. */
#include "kernel/avx512_inline.h"
#include "kernel/lowbit.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

enum { ROWS = FVI_LOWBIT_ROWS, PARTS = 2, AT_ONCE = 64, FAR = 1 << 20 };

/* Half of the keys, and what some rows' sums begin with. */
typedef struct half {
    const uint8_t *kt;
    const float *scale, *added;
    _Alignas(64) int32_t start[AT_ONCE]; /* sums from here are negative where nothing can be above */
} half;

INLINE __m512i broadcast(const int8_t *q) {
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm512_set1_epi32(four);
}

/* sum += products of bytes. gcc 12 gives each result of the intrinsic a register of its own and moves it back: more moves than
 * products. */
INLINE void add_products(__m512i *sum, __m512i keys, __m512i q) {
    __asm__("vpdpbusd %[q], %[keys], %[sum]" : [sum] "+v"(*sum) : [keys] "v"(keys), [q] "v"(q));
}

/* Products above this may be of a pair that is above: (limit - largest added / row's scale) / largest scale, a little less for
 * the roundings of the pairs' own arithmetic. Below 0 a smaller scale would be the larger: any product may. NaN: no pair is
 * above, or any product may. */
INLINE __m512i most_without(__m512 limit, __m512 per_scale, __m512 scale, __m512 added) {
    const __m512 far = _mm512_set1_ps(FAR);
    __m512 x = _mm512_div_ps(_mm512_fnmadd_ps(added, per_scale, limit), scale);
    x = _mm512_fnmadd_ps(x, _mm512_set1_ps(1e-5f), _mm512_sub_ps(x, _mm512_set1_ps(1e-3f)));
    __mmask16 positive = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GE_OQ);
    x = _mm512_mask_blend_ps(positive, _mm512_sub_ps(_mm512_setzero_ps(), far), _mm512_min_ps(x, far));
    return _mm512_cvt_roundps_epi32(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}

/* The largest of 32, NaN left out. */
INLINE __m512 most_of(const float *x) {
    const __m512 least = _mm512_set1_ps(-INFINITY); /* the second operand is the answer where the first is NaN */
    __m512 a = _mm512_max_ps(_mm512_load_ps(x), least), b = _mm512_max_ps(_mm512_load_ps(x + LANES), least);
    return _mm512_set1_ps(_mm512_reduce_max_ps(_mm512_max_ps(a, b)));
}

static void begin(const fvi_lowbit_rows *rows, int at, half *h) {
    const __m512 scale = most_of(h->scale), added = most_of(h->added);
    const int n = (int)fvi_min(AT_ONCE, fvi_round_up(rows->n - at, ROWS));
    for (int r = 0; r < n; r += 16) {
        const __mmask16 there = first(n - r);
        __m512 limit = _mm512_maskz_loadu_ps(there, rows->limit + at + r);
        __m512 per = _mm512_maskz_loadu_ps(there, rows->per_scale + at + r);
        __m512i sum = _mm512_maskz_loadu_epi32(there, rows->start + at + r);
        __m512i first_above = _mm512_add_epi32(most_without(limit, per, scale, added), _mm512_set1_epi32(1));
        _mm512_store_si512(h->start + r, _mm512_sub_epi32(sum, first_above));
    }
}

/* Whether a pair is above; sums are those of eight_rows. The second operand of a maximum is the answer where either is NaN. */
static __attribute__((noinline)) bool exactly(const fvi_lowbit_rows *rows, int at, const half *h, const int32_t *start,
                                              const __m512i sum[PARTS * ROWS]) {
    __m512 most = _mm512_set1_ps(-INFINITY);
    for (int r = 0; r < ROWS; r++) {
        const __m512i back = _mm512_set1_epi32(rows->start[at + r] - start[r]);
        const __m512 per = _mm512_set1_ps(rows->per_scale[at + r]), limit = _mm512_set1_ps(rows->limit[at + r]);
        for (int p = 0; p < PARTS; p++) {
            __m512 product = _mm512_cvtepi32_ps(_mm512_add_epi32(sum[PARTS * r + p], back));
            __m512 x = _mm512_fmsub_ps(_mm512_load_ps(h->added + LANES * p), per, limit);
            most = _mm512_max_ps(_mm512_fmadd_ps(product, _mm512_load_ps(h->scale + LANES * p), x), most);
        }
    }
    return _mm512_cmp_ps_mask(most, _mm512_setzero_ps(), _CMP_GT_OQ) != 0;
}

/* Whether one of rows at .. at + 7 is above with one of the keys; `start` is theirs. A function of its own: what is live around
 * the loop would push sums out of registers. */
static __attribute__((noinline)) bool eight_rows(const fvi_lowbit_rows *rows, int at, const half *h, const int32_t *start) {
    __m512i sum[PARTS * ROWS];
    UNROLL
    for (int i = 0; i < PARTS * ROWS; i++) {
        sum[i] = _mm512_set1_epi32(start[i / PARTS]);
    }
    const int8_t *q = rows->q + at * rows->width, *end = q + ROWS * rows->width;
    for (const uint8_t *kt = h->kt; q < end; q += 4 * ROWS, kt += 4 * FVI_LOWBIT_KEYS) {
        const __m512i k0 = _mm512_load_si512(kt), k1 = _mm512_load_si512(kt + 64);
        UNROLL
        for (int r = 0; r < ROWS; r++) {
            const __m512i four = broadcast(q + 4 * r);
            add_products(&sum[PARTS * r], k0, four);
            add_products(&sum[PARTS * r + 1], k1, four);
        }
    }
    __m512i negative = sum[0];
    UNROLL
    for (int i = 1; i < PARTS * ROWS; i++) {
        negative = _mm512_and_si512(negative, sum[i]);
    }
    if (_mm512_movepi32_mask(negative) == 0xffff) {
        return false;
    }
    __m512i kept[PARTS * ROWS]; /* a copy, so that the sums themselves need no address */
    UNROLL
    for (int i = 0; i < PARTS * ROWS; i++) {
        kept[i] = sum[i];
    }
    return exactly(rows, at, h, start, kept);
}

static bool above_half(const fvi_lowbit_rows *rows, half *h) {
    for (int at = 0; at < rows->n; at += AT_ONCE) {
        begin(rows, at, h);
        for (int r = 0; r < fvi_min(AT_ONCE, rows->n - at); r += ROWS) {
            if (eight_rows(rows, at + r, h, h->start + r)) {
                return true;
            }
        }
    }
    return false;
}

static unsigned above(const fvi_lowbit_rows *rows, const uint8_t *kt, const float *scale, const float *added, unsigned halves) {
    unsigned found = 0;
    for (int i = 0; i < 2; i++) {
        const int from = i * FVI_LOWBIT_PART;
        half h = {.kt = kt + 4 * from, .scale = scale + from, .added = added + from};
        found |= halves >> i & 1 && above_half(rows, &h) ? 1u << i : 0;
    }
    return found;
}

void fvi_lowbit_avx512vnni(fvi_lowbit_ops *ops) { ops->above = above; }
