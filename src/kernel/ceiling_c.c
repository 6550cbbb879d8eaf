/* ceiling_c.c - ceilings in portable C: multiply-adds of four lanes, a chain of products, a read of memory. */
#include "kernel/ceiling_read_inline.h"

#include <string.h>

typedef float lanes __attribute__((vector_size(16)));

enum { CHAINS = 12, MULTIPLY = 3 }; /* MULTIPLY: cycles of a 64-bit product */

static void fma_f32(int64_t steps, const float *x, float *sink) {
    lanes a, b, acc[CHAINS];
    memcpy(&a, x, sizeof a);
    memcpy(&b, x + 4, sizeof b);
    FVI_UNROLL
    for (int i = 0; i < CHAINS; i++) {
        acc[i] = a + (float)i;
    }
    for (int64_t s = 0; s < steps; s++) {
        FVI_UNROLL
        for (int i = 0; i < CHAINS; i++) {
            acc[i] = acc[i] * a + b;
        }
    }
    FVI_UNROLL
    for (int i = 1; i < CHAINS; i++) {
        acc[0] += acc[i];
    }
    memcpy(sink, &acc[0], sizeof acc[0]);
}

/* A product every MULTIPLY cycles: each waits for the one before. Not additions: some processors fold a chain of them away. */
static void multiply_chain(int64_t steps, const float *x, float *sink) {
    uint64_t a = 1 + (x[0] > 0), b = 3 + 2 * (uint64_t)(x[1] > 0);
    for (int64_t s = 0; s < steps; s++) {
        for (int i = 0; i < 16; i++) {
            a *= b;
            __asm__ volatile("" : "+r"(a), "+r"(b));
        }
    }
    sink[0] = (float)a;
}

void fvi_ceiling_c(fvi_ceiling_ops *ops) {
    *ops = (fvi_ceiling_ops){.fma_f32 = {fma_f32, 2.0 * 4 * CHAINS}, .clock = {multiply_chain, 16.0 * MULTIPLY}};
    fill_reads(ops);
}
