/* gna_forecast.c - what generalized neighborhood attention visits, tile by tile, and how much faster than dense it will be.
 *
 * Hassani et al.: Generalized Neighborhood Attention, 2025, section 4: its simulator counts the tiles of queries x keys that a
 * kernel visits; dense tiles over visited ones bound the speed-up from above, and tightly where no tile needs a mask. Deviation:
 * the paper's kernels cut keys into boxes as well, ours put runs of keys side by side, so the tiles counted are ours; and since
 * here a mask costs as much as a product, kinds of leaves have costs of their own. */
#include "attend/plan.h"
#include "fovea/experimental.h"
#include "method/method.h"
#include "select/neighborhood.h"

/* The executor's leaves of one tile's index. */
static void count_tile(const fvi_index *index, int64_t rows, int64_t n, fv_gna_forecast *f) {
    int64_t columns = 0, segments = 0;
    for (int64_t b = 0; b < index->blocks; b++) {
        int64_t keys = fvi_count_bits(index->key[b]);
        bool apart = fvi_index_apart(index, b);
        if (keys > FVI_BLOCK_KEYS) {
            bool whole = keys == FVI_BLOCK && !apart && (b + 1) * FVI_BLOCK <= n;
            f->whole_leaves += whole;
            f->masked_leaves += !whole;
            f->looks += apart ? rows : 0;
            f->visited_pairs += (uint64_t)(rows * fvi_min(FVI_BLOCK, n - b * FVI_BLOCK));
        } else if (keys > 0) {
            segments += apart + (apart && columns % FVI_LEAF + keys > FVI_LEAF); /* one that goes on in the next leaf */
            columns += keys;
            f->visited_pairs += (uint64_t)(rows * keys);
        }
    }
    f->column_leaves += fvi_ceil_div(columns, FVI_LEAF);
    f->looks += rows * segments;
}

static uint64_t exact_pairs(const fvi_na *na) {
    uint64_t pairs = 1;
    for (int k = 0; k < FVI_NA_AXES; k++) {
        uint64_t along = 0;
        for (int64_t x = 0; x < na->axis[k].size; x++) {
            fvi_na_reach reach = fvi_na_sees(&na->axis[k], x);
            along += (uint64_t)((reach.last - reach.first) / na->axis[k].dilation + 1);
        }
        pairs *= along;
    }
    return pairs;
}

/* Memory of a forecast: a head's state, a tile's index and its scratch. */
typedef struct room {
    size_t state, words, apart, bytes;
} room;

static room room_for(int64_t n) {
    fvi_extent extent = {.n_q = n, .n_kv = n};
    int64_t blocks = fvi_ceil_div(n, FVI_BLOCK);
    room r = {.state = (size_t)fvi_round_up((int64_t)fvi_na_head_bytes(NULL, &extent), 64)};
    r.words = r.state + (size_t)blocks * sizeof(uint64_t);
    r.apart = r.words + (size_t)fvi_ceil_div(blocks, 64) * sizeof(uint64_t);
    r.bytes = r.apart + fvi_na_scratch_bytes(NULL, &extent);
    return r;
}

static void walk_tiles(const fvi_na *na, int64_t n, const room *r, uint8_t *memory, fv_gna_forecast *f) {
    fvi_index index = {
        .blocks = fvi_ceil_div(n, FVI_BLOCK), .key = (uint64_t *)(memory + r->state), .apart = (uint64_t *)(memory + r->words)};
    fvi_sight sight = {.n_q = n, .n_kv = n};
    fvi_select select = {.sight = &sight, .head_state = memory, .scratch = memory + r->apart};
    fvi_na_prepare(na, &select);
    for (int64_t first = 0; first < n; first += FVI_NA_TILE) {
        fvi_query_tile tile = {.row = fvi_na_order(memory) + first, .rows = fvi_min(FVI_NA_TILE, n - first), .n_kv = n};
        fvi_index_clear(&index);
        fvi_na_tile(&select, &tile, &index);
        count_tile(&index, tile.rows, n, f);
    }
}

/* Fitted on an AMD EPYC with avx512bf16, one thread, bf16, width 64. */
fv_gna_costs fv_gna_costs_default(void) {
    return (fv_gna_costs){.tile = 1.5, .whole = 1.08, .masked = 1.5, .column = 1.3, .look = 0.005};
}

fv_status fv_gna_predict(fv_context *ctx, const fv_gna *problem, const fv_gna_costs *costs, fv_gna_forecast *out) {
    fvi_na na;
    int64_t n;
    *out = (fv_gna_forecast){0};
    fv_status status = fvi_na_of_gna(ctx, problem, &na, &n);
    if (status != FV_OK) {
        return status;
    }
    room r = room_for(n);
    uint8_t *memory = fvi_alloc(ctx, r.bytes, 1);
    if (memory == NULL) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for a forecast (%zu bytes)", r.bytes);
    }
    const fv_gna_costs c = costs == NULL ? fv_gna_costs_default() : *costs;
    walk_tiles(&na, n, &r, memory, out);
    fvi_release(ctx, memory, r.bytes, 1);
    out->tiles = fvi_ceil_div(n, FVI_NA_TILE);
    out->dense_leaves = out->tiles * fvi_ceil_div(n, FVI_LEAF);
    out->exact_pairs = exact_pairs(&na);
    const double leaves = (double)(out->whole_leaves + out->masked_leaves + out->column_leaves);
    out->pair_bound = (double)n * (double)n / (double)out->exact_pairs;
    out->tile_bound = (double)out->dense_leaves / leaves;
    out->speedup = (double)out->dense_leaves /
                   (c.tile * (double)out->tiles + c.whole * (double)out->whole_leaves + c.masked * (double)out->masked_leaves +
                    c.column * (double)out->column_leaves + c.look * (double)out->looks);
    return FV_OK;
}
