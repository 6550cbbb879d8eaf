/* ceiling_amx.c - tdpbf16ps alone: six accumulator tiles, each its own chain, a tile of rows and one of columns, all eight that
 * there are. A product takes 16 cycles of the multiplier and is ready after 52: four chains would do. */
#include "kernel/ceiling.h"

#include <immintrin.h>
#include <string.h>

enum { ACCUMULATORS = 6, ROWS = 16, COLUMNS = 16, DEPTH = 32 };

/* The operand of ldtilecfg: all tiles 16 rows of 64 bytes. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t column_bytes[16];
    uint8_t rows[16];
} tile_config;

static void amx_bf16(int64_t steps, const float *x, float *sink) {
    tile_config config;
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (int t = 0; t < 8; t++) {
        config.column_bytes[t] = 64;
        config.rows[t] = ROWS;
    }
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_loadd(6, x, 0);
    _tile_loadd(7, x, 0);
    for (int64_t s = 0; s < steps; s++) {
        _tile_dpbf16ps(0, 6, 7);
        _tile_dpbf16ps(1, 6, 7);
        _tile_dpbf16ps(2, 6, 7);
        _tile_dpbf16ps(3, 6, 7);
        _tile_dpbf16ps(4, 6, 7);
        _tile_dpbf16ps(5, 6, 7);
    }
    float out[ROWS * COLUMNS];
    _tile_stored(0, out, COLUMNS * sizeof *out);
    _tile_release();
    memcpy(sink, out, COLUMNS * sizeof *out);
}

void fvi_ceiling_amx(fvi_ceiling_ops *ops) {
    ops->amx_bf16 = (fvi_ceiling_op){amx_bf16, 2.0 * ROWS * COLUMNS * DEPTH * ACCUMULATORS};
}
