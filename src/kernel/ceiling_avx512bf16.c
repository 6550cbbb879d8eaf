/* ceiling_avx512bf16.c - chains of vdpbf16ps: each adds two products of bf16 to each of 16 floats. */
#include "kernel/ceiling.h"
#include "kernel/ceiling_chains.h"

static void dot_bf16(int64_t steps, const float *x, float *sink) { FVI_CHAINS_RUN("vdpbf16ps", steps, x, sink); }

void fvi_ceiling_avx512bf16(fvi_ceiling_ops *ops) { ops->dot_bf16 = (fvi_ceiling_op){dot_bf16, 4.0 * 16 * FVI_CHAINS}; }
