/* rows_avx2.c - f32 to f16 by the processor's own conversion, the same bits as the portable loop. */
#include "cache/rows.h"

#include <immintrin.h>

void fvi_row_f16_from_f32_avx2(void *to, const void *from, int64_t n) {
    uint16_t *y = to;
    const float *x = from;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        _mm_storeu_si128((__m128i *)(y + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
    }
    for (; i < n; i++) {
        y[i] = fvi_f32_to_f16(x[i]);
    }
}
