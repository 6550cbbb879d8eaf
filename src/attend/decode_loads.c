/* decode_loads.c - how evenly decodes of uneven lengths lie on workers: whole pieces (Sanovar et al., Lean Attention, 2024), or
 * whole heads. */
#include "attend/plan.h"
#include "fovea/experimental.h"

#include <string.h>

int64_t fv_decode_piece(void) { return FVI_PIECE; }

static int least_loaded(const int64_t *load, int workers) {
    int best = 0;
    for (int w = 1; w < workers; w++) {
        best = load[w] < load[best] ? w : best;
    }
    return best;
}

fv_status fv_decode_loads(fv_context *ctx, const int32_t *lengths, int64_t b, int64_t h_kv, int64_t piece, int workers,
                          int64_t *load) {
    if (b < 1 || b > 1 << 20 || h_kv < 1 || h_kv > 1 << 16 || piece < 0 || workers < 1 || workers > 256) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "fv_decode_loads: b is %lld, h_kv %lld, piece %lld, workers %d; b must be 1..2^20, h_kv 1..65536, piece "
                        "not negative and workers 1..256",
                        (long long)b, (long long)h_kv, (long long)piece, workers);
    }
    memset(load, 0, (size_t)workers * sizeof *load);
    for (int64_t s = 0; s < b; s++) {
        if (lengths[s] < 0) {
            return fvi_fail(ctx, FV_ERR_ARGUMENT, "fv_decode_loads: lengths[%lld] is %d; it must not be negative", (long long)s,
                            lengths[s]);
        }
        int64_t unit = piece > 0 ? piece : fvi_max(1, lengths[s]);
        for (int64_t h = 0; h < h_kv; h++) {
            for (int64_t from = 0; from < lengths[s]; from += unit) {
                load[least_loaded(load, workers)] += fvi_min(unit, lengths[s] - from);
            }
        }
    }
    return FV_OK;
}
