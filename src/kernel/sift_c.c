/* sift_c.c - sift.h in portable C, and the choice of a level. */
#include "kernel/sift.h"

#include <math.h>

static void largest(const float *s, int rows, const uint64_t *seen, float *most) {
    for (int r = 0; r < rows; r++, s += 64) {
        float top = -INFINITY;
        for (uint64_t left = seen[r]; left != 0; left &= left - 1) {
            int j = __builtin_ctzll(left);
            top = s[j] > top ? s[j] : top;
        }
        most[r] = top;
    }
}

static void above(const float *s, int rows, const float *theta, uint64_t *seen) {
    for (int r = 0; r < rows; r++, s += 64) {
        uint64_t bits = 0;
        for (int j = 0; j < 64; j++) {
            bits |= (uint64_t)(s[j] > theta[r]) << j;
        }
        seen[r] &= bits;
    }
}

static void weigh(float *s, int rows, const int32_t *own, const int32_t *block, const float *weight, uint64_t in,
                  uint64_t *seen) {
    for (int r = 0; r < rows; r++, s += 64) {
        uint64_t visits = 0;
        for (int j = 0; j < 64; j++) {
            const float add = block[j] == own[r] ? 0 : weight[j];
            s[j] += in >> j & 1 ? add : 0;
            visits |= (uint64_t)(add != -INFINITY) << j;
        }
        seen[r] &= ~in | visits;
    }
}

void fvi_sift_c(fvi_sift_ops *ops) { *ops = (fvi_sift_ops){.largest = largest, .above = above, .weigh = weigh}; }

void fvi_sift_init(const fvi_cpu *cpu, fvi_sift_ops *ops) {
    fvi_sift_c(ops);
#if defined(__x86_64__)
    if (cpu->avx512) {
        fvi_sift_avx512(ops);
    }
#else
    (void)cpu;
#endif
}
