/* lowbit_avx512vnni.c - lowbit.h by vpdpbusd: eight rows against 32 keys stay in 16 registers.
 *
 * Products are all the time there is. With heads of a model, over the edge and the first five eighths of the numbers three of
 * four eights of rows have only negative sums; of those that go on to the end few are left, and only of their rows the pairs are
 * taken one by one. Where more than two of five go on, it is faster not to stop on the way: every sixteenth half of the keys is
 * asked with the stop all the same, to see whether that is still so. */
#include "kernel/avx512_inline.h"
#include "kernel/lowbit.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

enum {
    ROWS = FVI_LOWBIT_ROWS,
    PARTS = 2,
    SUMS = PARTS * ROWS,
    STEP = 4 * FVI_LOWBIT_KEYS,
    PASSED = 1 << ROWS,
    MEMORY = 64,
    AGAIN = 16
};

/* Half of the keys. */
typedef struct half {
    const uint8_t *kt;
    const float *scale, *added;
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

/* Four bytes of eight rows with those of 32 keys. */
INLINE void add_step(__m512i sum[SUMS], const uint8_t *kt, const int8_t *q) {
    const __m512i k0 = _mm512_load_si512(kt), k1 = _mm512_load_si512(kt + 64);
    UNROLL
    for (int r = 0; r < ROWS; r++) {
        const __m512i four = broadcast(q + 4 * r);
        add_products(&sum[PARTS * r], k0, four);
        add_products(&sum[PARTS * r + 1], k1, four);
    }
}

INLINE _Bool all_negative(const __m512i sum[SUMS]) {
    __m512i negative = sum[0];
    UNROLL
    for (int i = 1; i < SUMS; i++) {
        negative = _mm512_and_si512(negative, sum[i]);
    }
    return _mm512_movepi32_mask(negative) == 0xffff;
}

INLINE unsigned not_negative(const __m512i sum[SUMS]) {
    unsigned may = 0;
    UNROLL
    for (int r = 0; r < ROWS; r++) {
        may |= (unsigned)(_mm512_movepi32_mask(_mm512_and_si512(sum[PARTS * r], sum[PARTS * r + 1])) != 0xffff) << r;
    }
    return may;
}

/* Which of rows at .. at + 7 may be above with one of the keys, and PASSED if that took the last numbers. A function of its own:
 * what is live around the loops would push sums out of registers. */
static __attribute__((noinline)) unsigned eight_rows(const fvi_lowbit_rows *rows, int at, const uint8_t *kt) {
    const int64_t width = rows->width, early = fvi_lowbit_early(width);
    const int8_t *q = rows->q + at * (width + 8), *end = q + ROWS * (early + 4);
    const uint8_t *edge = kt;
    __m512i sum[SUMS];
    UNROLL
    for (int i = 0; i < SUMS; i++) {
        sum[i] = _mm512_set1_epi32(rows->start[at + i / PARTS]);
    }
    for (; q < end; q += 4 * ROWS, kt += STEP) {
        add_step(sum, kt, q);
    }
    if (all_negative(sum)) {
        return 0;
    }
    end = q + ROWS * (width - early + 4);
    UNROLL
    for (int i = 0; i < SUMS; i++) {
        sum[i] = _mm512_add_epi32(sum[i], _mm512_set1_epi32(rows->late[at + i / PARTS]));
    }
    add_step(sum, edge, q);
    for (q += 4 * ROWS; q < end; q += 4 * ROWS, kt += STEP) {
        add_step(sum, kt, q);
    }
    return PASSED | not_negative(sum);
}

/* The same by all numbers at once: the lengths in the edge are left out, and the bytes that take them back are stepped over. */
static __attribute__((noinline)) unsigned eight_whole_rows(const fvi_lowbit_rows *rows, int at, const uint8_t *kt) {
    const int64_t width = rows->width, early = fvi_lowbit_early(width);
    const int8_t *q = rows->q + at * (width + 8), *end = q + ROWS * (early + 4);
    const __m512i k0 = _mm512_load_si512(kt), k1 = _mm512_load_si512(kt + 64), factors = _mm512_set1_epi32(0xffff);
    __m512i sum[SUMS];
    UNROLL
    for (int r = 0; r < ROWS; r++) {
        const __m512i edge = _mm512_and_si512(broadcast(q + 4 * r), factors);
        sum[PARTS * r] = _mm512_add_epi32(_mm512_set1_epi32(rows->start[at + r]), _mm512_set1_epi32(rows->late[at + r]));
        sum[PARTS * r + 1] = sum[PARTS * r];
        add_products(&sum[PARTS * r], k0, edge);
        add_products(&sum[PARTS * r + 1], k1, edge);
    }
    for (q += 4 * ROWS, kt += STEP; q < end; q += 4 * ROWS, kt += STEP) {
        add_step(sum, kt, q);
    }
    end = q + ROWS * (width - early + 4);
    for (q += 4 * ROWS; q < end; q += 4 * ROWS, kt += STEP) {
        add_step(sum, kt, q);
    }
    return all_negative(sum) ? 0 : not_negative(sum);
}

/* Whether row r is above with one of the keys. The second operand of a maximum is the answer where either is NaN. */
static bool exactly(const fvi_lowbit_rows *rows, int r, const half *h) {
    const __m512 per_factor = _mm512_set1_ps(1 / (float)fvi_lowbit_factor(rows->width));
    const __m512 per = _mm512_set1_ps(rows->per_scale[r]), limit = _mm512_set1_ps(rows->limit[r]);
    __m512i sum[PARTS] = {_mm512_set1_epi32(rows->zero[r]), _mm512_set1_epi32(rows->zero[r])};
    for (int c = 0; c < rows->width; c += 4) {
        const __m512i q = broadcast(rows->q + fvi_lowbit_at(r, c, rows->width));
        const uint8_t *kt = h->kt + (c + 4) * FVI_LOWBIT_KEYS;
        add_products(&sum[0], _mm512_load_si512(kt), q);
        add_products(&sum[1], _mm512_load_si512(kt + 64), q);
    }
    __m512 most = _mm512_set1_ps(-INFINITY);
    for (int p = 0; p < PARTS; p++) {
        __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[p]), per_factor);
        __m512 x = _mm512_fmsub_ps(_mm512_load_ps(h->added + LANES * p), per, limit);
        most = _mm512_max_ps(_mm512_fmadd_ps(product, _mm512_load_ps(h->scale + LANES * p), x), most);
    }
    return _mm512_cmp_ps_mask(most, _mm512_setzero_ps(), _CMP_GT_OQ) != 0;
}

static bool any_exactly(const fvi_lowbit_rows *rows, int at, unsigned may, const half *h) {
    for (; may != 0; may &= may - 1) {
        if (exactly(rows, at + __builtin_ctz(may), h)) {
            return true;
        }
    }
    return false;
}

static bool above_half(const fvi_lowbit_rows *rows, const half *h, fvi_lowbit_hint *hint) {
    const int eights = (rows->n + ROWS - 1) / ROWS;
    const bool whole = 5 * hint->passed > 2 * hint->asked && ++hint->whole % AGAIN != 0;
    int passed = 0, asked = 0;
    bool found = false;
    for (int e = hint->lead < eights ? hint->lead : 0; asked < eights && !found; e = e + 1 < eights ? e + 1 : 0, asked++) {
        const unsigned may = whole ? eight_whole_rows(rows, ROWS * e, h->kt) : eight_rows(rows, ROWS * e, h->kt);
        passed += (may & PASSED) != 0;
        found = any_exactly(rows, ROWS * e, may & (PASSED - 1), h);
        hint->lead = found ? e : hint->lead;
    }
    if (!whole) {
        const int kept = hint->asked > MEMORY ? 2 : 1;
        hint->asked = hint->asked / kept + asked;
        hint->passed = hint->passed / kept + passed;
    }
    return found;
}

static unsigned above(const fvi_lowbit_rows *rows, const uint8_t *kt, const float *scale, const float *added, unsigned halves,
                      fvi_lowbit_hint *hint) {
    unsigned found = 0;
    for (int i = 0; i < 2; i++) {
        const int from = i * FVI_LOWBIT_PART;
        const half h = {.kt = kt + 4 * from, .scale = scale + from, .added = added + from};
        found |= halves >> i & 1 && above_half(rows, &h, hint) ? 1u << i : 0;
    }
    return found;
}

/* The second operand of a maximum is the answer where either is NaN; what is not at most 7.5 is 0. */
static float digits(const float *x, int64_t d, int8_t *out) {
    __m512 most = _mm512_setzero_ps();
    for (int64_t c = 0; c < d; c += LANES) {
        most = _mm512_max_ps(_mm512_abs_ps(_mm512_maskz_loadu_ps(first(d - c), x + c)), most);
    }
    const float all = _mm512_reduce_max_ps(most);
    const __m512 factor = _mm512_set1_ps(all > 0 ? 7 / all : 0);
    for (int64_t c = 0; c < d; c += LANES) {
        __m512 moved = _mm512_mul_ps(_mm512_maskz_loadu_ps(first(d - c), x + c), factor);
        __mmask16 there = _mm512_cmp_ps_mask(_mm512_abs_ps(moved), _mm512_set1_ps(7.5f), _CMP_LE_OQ);
        __m512i whole = _mm512_maskz_cvt_roundps_epi32(there, moved, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm512_mask_cvtepi32_storeu_epi8(out + c, first(fvi_lowbit_width(d) - c), whole);
    }
    return all / 7;
}

void fvi_lowbit_avx512vnni(fvi_lowbit_ops *ops) { *ops = (fvi_lowbit_ops){.digits = digits, .above = above}; }
