/* quant.c - picks the rungs of quant.h. */
#include "kernel/quant.h"

void fvi_quant_init(const fvi_cpu *cpu, fvi_quant_ops *ops) {
    fvi_quant_c(ops);
#if defined(__x86_64__)
    if (cpu->avx2) {
        fvi_quant_avx2(ops);
    }
    if (cpu->avx512) {
        fvi_quant_avx512(ops);
    }
    if (cpu->avx512_bf16) {
        fvi_quant_avx512bf16(ops);
    }
#else
    (void)cpu;
#endif
}
