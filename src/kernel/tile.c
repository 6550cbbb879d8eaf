/* tile.c - picks the rung of the attention tile. */
#include "kernel/tile.h"

void fvi_tile_init(const fvi_cpu *cpu, fvi_tile_ops *ops) {
    fvi_tile_c(ops);
    (void)cpu;
}
