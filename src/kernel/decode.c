/* decode.c - picks the rungs of the products of generated tokens. */
#include "kernel/decode.h"

void fvi_decode_init(const fvi_cpu *cpu, fvi_decode_ops *ops) {
    *ops = (fvi_decode_ops){0};
    fvi_decode_c(ops);
#if defined(__x86_64__)
    if (cpu->avx2) {
        fvi_decode_avx2(ops);
    }
    if (cpu->avx512) {
        fvi_decode_avx512(ops);
    }
    if (cpu->avx512_bf16) {
        fvi_decode_avx512bf16(ops);
    }
#else
    (void)cpu;
#endif
}
