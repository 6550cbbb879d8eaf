/* test_s2.c - S2-Attention's shards, as the paper has them but with the code's sign, and as the code's masks have them.
 */
#include "npy_golden.h"
#include "pattern_test.h"

typedef struct pattern {
    int64_t block, local, stride, offset, dense_heads, dense_every;
} pattern;

static bool s2_sees(const void *arg, const where *w, int64_t i, int64_t j) {
    const pattern *p = arg;
    int64_t head = w->head / (w->h_q / w->h_kv), step = p->stride / w->h_q > 1 ? p->stride / w->h_q : 1;
    int64_t from = i / p->block, to = j / p->block, apart = from > to ? from - to : to - from;
    if (head >= w->h_kv - p->dense_heads || (p->dense_every > 0 && w->layer % p->dense_every == p->dense_every - 1)) {
        return true;
    }
    if (!w->causal) {
        return apart < p->local || (apart - p->local + 1) % p->stride == 0;
    }
    return apart < p->local || (to + head * step + p->offset) % p->stride == 0;
}

static void s2_holds(fv_context *ctx, pattern p) {
    char recipe[160];
    snprintf(recipe, sizeof recipe,
             "prefill=s2-attention:block=%d:local=%d:stride=%d:offset=%d:dense_heads=%d:dense_every=%d:fallback=0", (int)p.block,
             (int)p.local, (int)p.stride, (int)p.offset, (int)p.dense_heads, (int)p.dense_every);
    pattern_holds(ctx, recipe, 2, true, s2_sees, &p);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    s2_holds(ctx, (pattern){.block = 64, .local = 4, .stride = 4});
    s2_holds(ctx, (pattern){.block = 64, .local = 1, .stride = 3, .offset = 1});
    s2_holds(ctx, (pattern){.block = 16, .local = 2, .stride = 16});
    s2_holds(ctx, (pattern){.block = 50, .local = 2, .stride = 3, .dense_heads = 1});
    s2_holds(ctx, (pattern){.block = 100, .local = 1, .stride = 2, .dense_every = 2});
    static const struct {
        const char *name, *recipe;
        int64_t h_q, h_kv;
        bool causal;
    } golden[] = {
        {"select/s2-attention/mha", "prefill=s2-attention:block=16:local=2:stride=4:fallback=0", 4, 4, true},
        {"select/s2-attention/gqa", "prefill=s2-attention:block=16:local=1:stride=8:offset=1:fallback=0", 4, 2, true},
        {"select/s2-attention/dense", "prefill=s2-attention:block=32:local=1:stride=3:dense_heads=1:fallback=0", 4, 4, true},
        {"select/s2-attention/both", "prefill=s2-attention:block=16:local=2:stride=3:fallback=0", 4, 4, false},
    };
    for (size_t k = 0; k < sizeof golden / sizeof *golden; k++) {
        heads x = heads_make(1, golden[k].h_q, golden[k].h_kv, 200, 32);
        selection s = select_all(ctx, golden[k].recipe, &x, golden[k].causal);
        golden_bits_hold(golden[k].name, golden[k].recipe, s.at, s.h * s.n * s.n);
        free(s.at);
        heads_free(&x);
    }
    heads x = heads_make(3, 4, 2, 500, 32);
    dense_holds(ctx, "prefill=s2-attention:stride=1:local=1:fallback=0", &x);
    dense_holds(ctx, "prefill=s2-attention:local=8:fallback=0", &x);
    dense_holds(ctx, "prefill=s2-attention:dense_every=1:fallback=0", &x);
    heads_free(&x);
    nested_hold(ctx,
                (const char *const[]){"prefill=s2-attention:block=16:local=1:stride=4:fallback=0",
                                      "prefill=s2-attention:block=16:local=4:stride=4:fallback=0",
                                      "prefill=s2-attention:block=16:local=4:stride=2:fallback=0"},
                3, 0);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
