/* tile.c - picks the rung of the attention tile. */
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
