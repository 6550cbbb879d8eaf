/* decode.c - picks the rungs of the products of generated tokens. */
#include "kernel/decode.h"

void fvi_decode_init(const fvi_cpu *cpu, fvi_decode_ops *ops) {
    *ops = (fvi_decode_ops){0};
    fvi_decode_c(ops);
    fvi_decode_quant_c(ops);
#if defined(__x86_64__)
    if (cpu->avx2) {
        fvi_decode_avx2(ops);
        fvi_decode_quant_avx2(ops);
    }
    if (cpu->avx512) {
        fvi_decode_avx512(ops);
        fvi_decode_quant_avx512(ops);
    }
    if (cpu->avx512_bf16) {
        fvi_decode_avx512bf16(ops);
        fvi_decode_quant_avx512bf16(ops);
    }
    if (cpu->avx512_vnni) {
        fvi_decode_quant_avx512vnni(ops);
    }
#else
    (void)cpu;
#endif
}
