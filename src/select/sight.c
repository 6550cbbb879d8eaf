/* sight.c - see sight.h. */
#include "select/sight.h"

#include "kernel/convert.h"

#include <string.h>

enum { CHUNK = 64 };

static size_t query_bytes(int64_t rows, int64_t d_k) {
    return (size_t)fvi_round_up(rows * fvi_tile_half_width(d_k) * (int64_t)sizeof(float), 64);
}

size_t fvi_look_bytes(int64_t rows, int64_t d_k, int64_t d_v) {
    return query_bytes(rows, d_k) + (size_t)fvi_tile_k_bytes(d_k) + (size_t)((d_k + d_v) * FVI_LEAF) * sizeof(float);
}

fvi_look fvi_look_open(const fvi_sight *sight, const float *q, int64_t rows, void *memory) {
    uint8_t *at = memory;
    fvi_look look = {.sight = sight, .rows = rows, .qt = at};
    look.kt = at + query_bytes(rows, sight->d_k);
    look.room = (uint8_t *)look.kt + fvi_tile_k_bytes(sight->d_k);
    sight->ops->pack_q(q, (int)rows, (int)sight->d_k, look.qt);
    return look;
}

int fvi_look_leaf(fvi_look *look, int64_t leaf) { return look->sight->pack(look->sight, leaf, look->room, look->kt); }

void fvi_look_rows(const fvi_look *look, int64_t first, int64_t n, float scale, float *s) {
    const fvi_sight *sight = look->sight;
    const uint8_t *qt = (const uint8_t *)look->qt + first * fvi_tile_q_bytes(sight->ops, sight->d_k);
    sight->ops->qk(qt, (int)n, (int)sight->d_k, look->kt, scale, s);
}

int fvi_look_scores(fvi_look *look, int64_t leaf, float scale, float *s) {
    int n = fvi_look_leaf(look, leaf);
    fvi_look_rows(look, 0, look->rows, scale, s);
    return n;
}

void fvi_sight_pack_rows(const fvi_sight *sight, const float *rows, int64_t n, int64_t d, void *room, void *kt) {
    if (!sight->ops->half) {
        sight->ops->pack_k[FV_F32](rows, d * (int64_t)sizeof(float), (int)n, (int)d, kt);
        return;
    }
    fvi_convert_to_bf16(n * d, rows, room);
    sight->ops->pack_k[FV_BF16](room, d * (int64_t)sizeof(uint16_t), (int)n, (int)d, kt);
}

void fvi_look_keys(fvi_look *look, const int32_t *key, int n, float scale, float *s) {
    const fvi_sight *sight = look->sight;
    sight->pack_keys(sight, key, n, look->room, look->kt);
    sight->ops->qk(look->qt, (int)look->rows, (int)sight->d_k, look->kt, scale, s);
}

void fvi_sight_means(const fvi_sight *sight, fvi_side side, int64_t block, float *row, float *out) {
    int64_t n = side == FVI_SIDE_Q ? sight->n_q : sight->n_kv, d = side == FVI_SIDE_V ? sight->d_v : sight->d_k;
    for (int64_t b = 0; b * block < n; b++, out += d) {
        int64_t end = fvi_min((b + 1) * block, n);
        memset(out, 0, (size_t)d * sizeof(float));
        for (int64_t from = b * block, k; from < end; from += k) {
            k = fvi_min(CHUNK, end - from);
            sight->rows(sight, side, from, k, row);
            for (int64_t i = 0; i < k; i++) {
                for (int64_t c = 0; c < d; c++) {
                    out[c] += row[i * d + c];
                }
            }
        }
        for (int64_t c = 0; c < d; c++) {
            out[c] /= (float)(end - b * block);
        }
    }
}
