/* test_power.c - PowerAttention's set by the rule of blocks of its Algorithm 1, and what section 3.3 promises: a key n blocks
 * away is reached in as many layers as n has bits. (The official code was not to be had.) */
#include "pattern_test.h"

typedef struct pattern {
    int64_t block, window, sinks;
} pattern;

static bool power_of_two(int64_t x) {
    while (x > 1 && x % 2 == 0) {
        x /= 2;
    }
    return x == 1;
}

static bool power_sees(const void *arg, const where *w, int64_t i, int64_t j) {
    const pattern *p = arg;
    (void)w;
    int64_t x = i / p->block > j / p->block ? i / p->block - j / p->block : j / p->block - i / p->block;
    return x < p->window || power_of_two(x) || j < p->sinks * p->block;
}

static void power_holds(fv_context *ctx, pattern p) {
    char recipe[120];
    snprintf(recipe, sizeof recipe, "prefill=power-attention:block=%d:window=%d:sinks=%d:fallback=0", (int)p.block, (int)p.window,
             (int)p.sinks);
    pattern_holds(ctx, recipe, 1, true, power_sees, &p);
}

/* Layers until row i's output depends on key j, along what one layer selects. */
static void reach_holds(fv_context *ctx) {
    enum { N = 512, BLOCK = 4 };
    heads x = heads_make(9, 1, 1, N, 32);
    selection s = select_all(ctx, "prefill=power-attention:block=4:window=1:sinks=0:fallback=0", &x, true);
    unsigned char reached[N] = {0};
    reached[N - 1] = 1;
    for (int layer = 1; layer <= 7; layer++) {
        unsigned char next[N] = {0};
        for (int64_t p = 0; p < N * N; p++) {
            next[p % N] |= reached[p / N] & s.at[p];
        }
        memcpy(reached, next, sizeof next);
        for (int64_t j = 0; j < N; j++) {
            int64_t away = (N - 1) / BLOCK - j / BLOCK;
            CHECK(reached[j] == (__builtin_popcountll((uint64_t)away) <= layer), "%d layers, %lld blocks away: reached %d", layer,
                  (long long)away, reached[j]);
        }
    }
    free(s.at);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    power_holds(ctx, (pattern){256, 5, 1});
    power_holds(ctx, (pattern){64, 1, 0});
    power_holds(ctx, (pattern){16, 3, 2});
    power_holds(ctx, (pattern){1, 1, 4});
    power_holds(ctx, (pattern){50, 1, 1});
    reach_holds(ctx);
    heads x = heads_make(3, 4, 2, 500, 32);
    dense_holds(ctx, "prefill=power-attention:block=64:window=8:fallback=0", &x);
    heads_free(&x);
    nested_hold(ctx,
                (const char *const[]){"prefill=power-attention:block=16:window=1:sinks=0:fallback=0",
                                      "prefill=power-attention:block=16:window=8:sinks=0:fallback=0",
                                      "prefill=power-attention:block=16:window=8:sinks=1:fallback=0",
                                      "prefill=power-attention:block=16:window=32:sinks=2:fallback=0"},
                4, 0);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
