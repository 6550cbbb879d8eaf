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

void fvi_sift_c(fvi_sift_ops *ops) { *ops = (fvi_sift_ops){.largest = largest, .above = above}; }

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
