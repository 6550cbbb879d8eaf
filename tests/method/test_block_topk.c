/* test_block_topk.c - the block top-k yardstick and the oracle: their sets against means and masses in double. */
#include "select_test.h"

static void expand(const unsigned char *state, int64_t n, int64_t block, unsigned char *expected) {
    for (int64_t i = block * 64; i < n && i < block * 64 + 64; i++) {
        for (int64_t j = 0; j < n && j / 64 <= block; j++) {
            expected[i * n + j] = state[j / 64];
        }
    }
}

static int64_t end_of(int64_t block, int64_t n) { return block * 64 + 64 < n ? block * 64 + 64 : n; }

typedef struct budget {
    int64_t blocks;
    double density, mass;
} budget;

static int64_t count_of(const budget *b, int64_t visible) {
    int64_t count = (int64_t)ceil(b->density * (double)visible);
    return count > b->blocks ? count : b->blocks;
}

static void top_blocks(const void *arg, const heads *x, int64_t head, unsigned char *expected) {
    int64_t blocks = (x->n + 63) / 64;
    float *q = malloc((size_t)x->d * sizeof *q), *k = malloc((size_t)x->d * sizeof *k);
    double *score = malloc((size_t)blocks * sizeof *score);
    unsigned char *state = malloc((size_t)blocks);
    for (int64_t a = 0; a < blocks; a++) {
        mean_of(query_of(x, head, 0), a * 64, end_of(a, x->n), x->d, q);
        for (int64_t b = 0; b <= a; b++) {
            mean_of(key_of(x, head, 0), b * 64, end_of(b, x->n), x->d, k);
            score[b] = b == 0 || b == a ? INFINITY : dot(q, k, x->d);
        }
        choose_top(score, a + 1, count_of(arg, a + 1), state);
        expand(state, x->n, a, expected);
    }
    free(q);
    free(k);
    free(score);
    free(state);
}

static void heaviest_blocks(const void *arg, const heads *x, int64_t head, unsigned char *expected) {
    const budget *set = arg;
    int64_t blocks = (x->n + 63) / 64;
    double *mass = malloc((size_t)blocks * sizeof *mass), *w = malloc((size_t)x->n * sizeof *w);
    unsigned char *state = malloc((size_t)blocks);
    for (int64_t a = 0; a < blocks; a++) {
        memset(mass, 0, (size_t)blocks * sizeof *mass);
        memset(state, OUT, (size_t)blocks);
        for (int64_t i = a * 64; i < end_of(a, x->n); i++) {
            weights_of(x, head, i, w);
            for (int64_t j = 0; j <= i; j++) {
                mass[j / 64] += w[j];
            }
        }
        if (set->density > 0) {
            choose_top(mass, a + 1, count_of(set, a + 1), state);
        } else {
            choose_mass(mass, a + 1, 0, set->mass * (double)(end_of(a, x->n) - a * 64), state);
        }
        expand(state, x->n, a, expected);
    }
    free(mass);
    free(w);
    free(state);
}

typedef struct setting {
    const char *recipe;
    budget b;
    reference *expects;
} setting;

static void holds(fv_context *ctx, const void *arg, heads *x) {
    const setting *set = arg;
    selection s = selects(ctx, set->recipe, x, set->expects, &set->b);
    chunks_hold(ctx, set->recipe, x, &s, 128);
    free(s.at);
}

static void budgets_hold(fv_context *ctx, const char *small, const char *large, const char *all) {
    heads x = heads_structured(5, 4, 2, 900, 32);
    double little = missing_mass(ctx, large, &x), much = missing_mass(ctx, small, &x);
    CHECK(little < 0.9 * much, "%s misses %g, %s %g", large, little, small, much);
    dense_holds(ctx, all, &x);
    heads_free(&x);
}

/* The oracle keeps what it says, and of all choices of so many blocks the heaviest. */
static void oracle_keeps(fv_context *ctx) {
    heads x = heads_structured(6, 4, 2, 900, 32);
    double missing = missing_mass(ctx, "prefill=oracle:mass=0.9:fallback=0", &x);
    CHECK(missing > 0 && missing <= 0.1, "the oracle of 0.9 misses %g", missing);
    double best = missing_mass(ctx, "prefill=oracle:density=0.3:fallback=0", &x);
    double means = missing_mass(ctx, "prefill=block-topk:blocks=2:density=0.3:fallback=0", &x);
    CHECK(best < means, "the oracle misses %g, means of blocks %g", best, means);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    static const setting set[] = {{"prefill=block-topk:blocks=4:fallback=0", {4, 0, 0}, top_blocks},
                                  {"prefill=block-topk:blocks=2:density=0.5:fallback=0", {2, 0.5, 0}, top_blocks},
                                  {"prefill=oracle:density=0.3:fallback=0", {0, 0.3, 0}, heaviest_blocks},
                                  {"prefill=oracle:mass=0.8:fallback=0", {0, 0, 0.8}, heaviest_blocks}};
    for (int i = 0; i < 4; i++) {
        on_all_heads(ctx, heads_structured, holds, &set[i]);
    }
    budgets_hold(ctx, "prefill=block-topk:blocks=2:fallback=0", "prefill=block-topk:blocks=8:fallback=0",
                 "prefill=block-topk:blocks=15:fallback=0");
    budgets_hold(ctx, "prefill=oracle:density=.1:fallback=0", "prefill=oracle:density=.4:fallback=0",
                 "prefill=oracle:mass=1:fallback=0");
    oracle_keeps(ctx);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
