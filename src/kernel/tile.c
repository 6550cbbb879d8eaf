/* tile.c - picks the rungs of the attention tile. */
#include "kernel/tile.h"

void fvi_tile_init(const fvi_cpu *cpu, fvi_tile_ops *ops) {
    fvi_tile_c(ops);
#if defined(__x86_64__)
    if (cpu->avx2) {
        fvi_tile_avx2(ops);
    }
    if (cpu->avx512) {
        fvi_tile_avx512(ops);
    }
#else
    (void)cpu;
#endif
}

bool fvi_tile_init_half(const fvi_cpu *cpu, fvi_tile_ops *ops) {
    *ops = (fvi_tile_ops){.half = true};
#if defined(__x86_64__)
    if (cpu->avx512_bf16) {
        fvi_tile_avx512bf16(ops);
    }
    if (cpu->avx512_bf16 && cpu->amx_bf16) {
        fvi_tile_amx(ops);
        fvi_tile_amx_fold(ops);
    }
#else
    (void)cpu;
#endif
    return ops->qk != NULL;
}
