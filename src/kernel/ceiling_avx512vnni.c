/* ceiling_avx512vnni.c - chains of vpdpbusd: each adds four products of bytes to each of 16 integers. */
#include "kernel/ceiling.h"
#include "kernel/ceiling_chains.h"

static void dot_int8(int64_t steps, const float *x, float *sink) { FVI_CHAINS_RUN("vpdpbusd", steps, x, sink); }

void fvi_ceiling_avx512vnni(fvi_ceiling_ops *ops) { ops->dot_int8 = (fvi_ceiling_op){dot_int8, 8.0 * 16 * FVI_CHAINS}; }
