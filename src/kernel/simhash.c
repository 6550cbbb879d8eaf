/* simhash.c - see simhash.h. */
#include "kernel/simhash.h"

#include <math.h>

uint64_t fvi_simhash_mix(uint64_t x) {
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

void fvi_simhash_project(uint64_t seed, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) {
        uint64_t a = fvi_simhash_mix(seed ^ fvi_simhash_mix((uint64_t)i)), b = fvi_simhash_mix(a);
        double u = ((double)(a >> 11) + 1) / 9007199254740993.0;
        out[i] = (float)(sqrt(-2 * log(u)) * cos(2 * M_PI * ((double)(b >> 11) / 9007199254740992.0)));
    }
}

int64_t fvi_simhash_draw(uint64_t seed, int64_t head, int64_t first, int64_t keys, int64_t sample) {
    const uint64_t of_head = fvi_simhash_mix(fvi_simhash_mix(seed + 1) + (uint64_t)head);
    const uint64_t x = fvi_simhash_mix(fvi_simhash_mix(of_head + (uint64_t)first) + (uint64_t)sample + ((uint64_t)keys << 32));
    return (int64_t)((x >> 32) * (uint64_t)keys >> 32);
}

void fvi_simhash_rows(const float *projection, int64_t bits, int64_t d, const float *x, int64_t n, uint16_t *hash) {
    for (int64_t i = 0; i < n; i++) {
        float sum[FVI_SIMHASH_MOST] = {0};
        for (int64_t c = 0; c < d; c++) {
            for (int64_t r = 0; r < bits; r++) {
                sum[r] += x[i * d + c] * projection[c * bits + r];
            }
        }
        uint16_t sign = 0;
        for (int64_t r = 0; r < bits; r++) {
            sign |= (uint16_t)((sum[r] > 0) << r);
        }
        hash[i] = sign ^ sign >> 1;
    }
}

void fvi_simhash_sort(const uint16_t *hash, int64_t bits, int64_t first, int64_t n, int32_t *order) {
    int32_t place[(1 << FVI_SIMHASH_MOST) + 1] = {0};
    for (int64_t i = first; i < first + n; i++) {
        place[hash[i] + 1]++;
    }
    for (int64_t v = 0; v < INT64_C(1) << bits; v++) {
        place[v + 1] += place[v];
    }
    for (int64_t i = first; i < first + n; i++) {
        order[place[hash[i]]++] = (int32_t)i;
    }
}
