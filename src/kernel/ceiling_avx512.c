/* ceiling_avx512.c - chains of 512-bit fused multiply-adds; reading by 512-bit loads. */
#include "kernel/ceiling_chains.h"
#include "kernel/ceiling_read_inline.h"

static void fma_f32(int64_t steps, const float *x, float *sink) { FVI_CHAINS_RUN("vfmadd231ps", steps, x, sink); }

void fvi_ceiling_avx512(fvi_ceiling_ops *ops) {
    ops->fma_f32 = (fvi_ceiling_op){fma_f32, 2.0 * 16 * FVI_CHAINS};
    fill_reads(ops);
}
