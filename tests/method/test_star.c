/* test_star.c - Star Attention's two phases as one mask; and phase 1 as hosts do it, each with its anchor, block by block. */
#include "npy_golden.h"
#include "pattern_test.h"

typedef struct pattern {
    int64_t block, anchor, query;
} pattern;

static bool star_sees(const void *arg, const where *w, int64_t i, int64_t j) {
    const pattern *p = arg;
    int64_t context = w->n > p->query ? w->n - p->query : 0, block = p->block;
    if (block == 0) {
        block = context / 4 > 0 ? context / 4 : 1;
    }
    int64_t anchor = p->anchor == 0 || p->anchor > block ? block : p->anchor;
    return i >= context || j < anchor || i / block == j / block;
}

static void star_holds(fv_context *ctx, pattern p) {
    char recipe[120];
    snprintf(recipe, sizeof recipe, "prefill=star-attention:block=%d:anchor=%d:query=%d:fallback=0", (int)p.block, (int)p.anchor,
             (int)p.query);
    pattern_holds(ctx, recipe, 1, false, star_sees, &p);
}

/* A host's part: rows of block b over the anchor's keys and the block's own, dense. Must be what the mask gives. */
static void hosts_hold(fv_context *ctx) {
    enum { N = 600, BLOCK = 150, ANCHOR = 40, D = 32 };
    heads x = heads_make(21, 4, 2, N, D);
    heads_run(ctx, "prefill=star-attention:block=150:anchor=40:query=0:fallback=0", &x);
    for (int64_t first = BLOCK; first < N; first += BLOCK) {
        heads host = heads_make(1, 4, 2, ANCHOR + BLOCK, D);
        for (int64_t h = 0; h < 4; h++) {
            for (int64_t r = 0; r < ANCHOR + BLOCK; r++) {
                int64_t from = r < ANCHOR ? r : first + r - ANCHOR;
                memcpy(host.q + (h * host.n + r) * D, x.q + (h * N + from) * D, D * sizeof(float));
                if (h < 2) {
                    memcpy(host.k + (h * host.n + r) * D, x.k + (h * N + from) * D, D * sizeof(float));
                    memcpy(host.v + (h * host.n + r) * D, x.v + (h * N + from) * D, D * sizeof(float));
                }
            }
        }
        heads_run(ctx, "", &host);
        double worst = 0;
        for (int64_t h = 0; h < 4; h++) {
            for (int64_t c = 0; c < BLOCK * D; c++) {
                worst = fmax(worst, fabs(host.out[(h * host.n + ANCHOR) * D + c] - x.out[(h * N + first) * D + c]));
            }
        }
        CHECK(worst < 2e-6, "the host of block %lld is off by %g", (long long)(first / BLOCK), worst);
        heads_free(&host);
    }
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    star_holds(ctx, (pattern){0, 0, 64});
    star_holds(ctx, (pattern){0, 0, 0});
    star_holds(ctx, (pattern){64, 64, 10});
    star_holds(ctx, (pattern){100, 30, 1});
    star_holds(ctx, (pattern){37, 200, 130});
    star_holds(ctx, (pattern){5, 1, 3});
    hosts_hold(ctx);
    static const char *const golden[][2] = {
        {"select/star-attention/quarter", "prefill=star-attention:query=0:fallback=0"},
        {"select/star-attention/anchor", "prefill=star-attention:block=60:anchor=20:query=0:fallback=0"},
    };
    heads one = heads_make(1, 1, 1, 240, 32);
    for (int k = 0; k < 2; k++) {
        selection s = select_all(ctx, golden[k][1], &one, true);
        golden_bits_hold(golden[k][0], golden[k][1], s.at, s.h * s.n * s.n);
        free(s.at);
    }
    heads_free(&one);
    heads x = heads_make(3, 4, 2, 500, 32);
    dense_holds(ctx, "prefill=star-attention:query=500:fallback=0", &x);
    dense_holds(ctx, "prefill=star-attention:block=500:query=0:fallback=0", &x);
    heads_free(&x);
    nested_hold(ctx,
                (const char *const[]){"prefill=star-attention:block=64:anchor=16:query=0:fallback=0",
                                      "prefill=star-attention:block=64:anchor=64:query=32:fallback=0",
                                      "prefill=star-attention:block=128:anchor=64:query=32:fallback=0",
                                      "prefill=star-attention:block=256:anchor=256:query=128:fallback=0"},
                4, 0);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
