/* ceiling_avx2.c - fourteen chains of 256-bit fused multiply-adds, in assembly as in ceiling_chains.h; 16 registers hold no more.
 */
#include "kernel/ceiling_read_inline.h"

enum { CHAINS = 14 };

static void fma_f32(int64_t steps, const float *x, float *sink) {
    __asm__ volatile("vmovups (%[from]), %%ymm0\n\t"
                     "vmovups (%[from]), %%ymm1\n\t"
                     ".irp r,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\t"
                     "vmovups (%[from]), %%ymm\\r\n\t"
                     ".endr\n"
                     "1:\n\t"
                     ".irp r,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\t"
                     "vfmadd231ps %%ymm0, %%ymm1, %%ymm\\r\n\t"
                     ".endr\n\t"
                     "dec %[left]\n\t"
                     "jnz 1b\n\t"
                     "vmovups %%ymm2, (%[to])\n\t"
                     "vzeroupper"
                     : [left] "+r"(steps)
                     : [from] "r"(x), [to] "r"(sink)
                     : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
                       "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

void fvi_ceiling_avx2(fvi_ceiling_ops *ops) {
    ops->fma_f32 = (fvi_ceiling_op){fma_f32, 2.0 * 8 * CHAINS};
    fill_reads(ops);
}
