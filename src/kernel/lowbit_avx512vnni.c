/* lowbit_avx512vnni.c - lowbit.h by vpdpbusd: four rows against 64 keys stay in 16 registers. */
#include "kernel/avx512_inline.h"
#include "kernel/lowbit.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

enum { ROWS = 4, PARTS = 4 };

INLINE __m512i broadcast(const int8_t *q) {
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm512_set1_epi32(four);
}

/* The second operand of a maximum is the answer where either is NaN. */
INLINE void some_rows(const fvi_lowbit_rows *rows, int at, int n, const uint8_t *kt, const float *scale, const float *added,
                      __m512 most[PARTS]) {
    __m512i dot[ROWS][PARTS];
    UNROLL
    for (int r = 0; r < n; r++) {
        UNROLL
        for (int p = 0; p < PARTS; p++) {
            dot[r][p] = _mm512_set1_epi32(rows->start[at + r]);
        }
    }
    const int8_t *q = rows->q + at * rows->width;
    for (int g = 0; g < rows->width; g += 4, kt += 4 * FVI_LOWBIT_KEYS) {
        __m512i k[PARTS];
        UNROLL
        for (int p = 0; p < PARTS; p++) {
            k[p] = _mm512_load_si512(kt + 64 * p);
        }
        UNROLL
        for (int r = 0; r < n; r++) {
            __m512i four = broadcast(q + r * rows->width + g);
            UNROLL
            for (int p = 0; p < PARTS; p++) {
                dot[r][p] = _mm512_dpbusd_epi32(dot[r][p], k[p], four);
            }
        }
    }
    UNROLL
    for (int p = 0; p < PARTS; p++) {
        __m512 s = _mm512_load_ps(scale + 16 * p), a = _mm512_load_ps(added + 16 * p);
        UNROLL
        for (int r = 0; r < n; r++) {
            __m512 x = _mm512_fmsub_ps(a, _mm512_set1_ps(rows->per_scale[at + r]), _mm512_set1_ps(rows->limit[at + r]));
            most[p] = _mm512_max_ps(_mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][p]), s, x), most[p]);
        }
    }
}

/* Functions of their own: what is live around the loop would push sums out of registers. */
static __attribute__((noinline)) void four_rows(const fvi_lowbit_rows *rows, int at, const uint8_t *kt, const float *scale,
                                                const float *added, __m512 most[PARTS]) {
    some_rows(rows, at, ROWS, kt, scale, added, most);
}

static __attribute__((noinline)) void one_row(const fvi_lowbit_rows *rows, int at, const uint8_t *kt, const float *scale,
                                              const float *added, __m512 most[PARTS]) {
    some_rows(rows, at, 1, kt, scale, added, most);
}

static void excess(const fvi_lowbit_rows *rows, const uint8_t *kt, const float *scale, const float *added, float most[2]) {
    __m512 top[PARTS];
    UNROLL
    for (int p = 0; p < PARTS; p++) {
        top[p] = _mm512_set1_ps(-INFINITY);
    }
    int first = 0;
    for (; first + ROWS <= rows->n; first += ROWS) {
        four_rows(rows, first, kt, scale, added, top);
    }
    for (; first < rows->n; first++) {
        one_row(rows, first, kt, scale, added, top);
    }
    most[0] = _mm512_reduce_max_ps(_mm512_max_ps(top[0], top[1]));
    most[1] = _mm512_reduce_max_ps(_mm512_max_ps(top[2], top[3]));
}

void fvi_lowbit_avx512vnni(fvi_lowbit_ops *ops) { ops->excess = excess; }
