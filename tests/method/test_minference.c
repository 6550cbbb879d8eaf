/* test_minference.c - MInference's three patterns from whole matrices of weights in double, profiles of them, and the official
 * code's columns, diagonals and blocks (tests/golden/select/minference). */
#include "select_test.h"

typedef struct setting {
    int kind;
    int64_t first, second;
} setting;

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* What a block of 64 queries visits, by key and by distance. */
static void expand_lines(int64_t n, const unsigned char *column, const unsigned char *diagonal, unsigned char *expected) {
    for (int64_t first = 0; first < n; first += 64) {
        for (int64_t j = 0; j < smaller(n, first + 64); j++) {
            int state = column[j];
            for (int64_t i = larger(first, j); i < first + 64 && state != IN; i++) { /* rows that the block would have, too */
                if (i - j < n && diagonal[i - j] != OUT) {
                    state = diagonal[i - j];
                }
            }
            for (int64_t i = first; i < smaller(n, first + 64); i++) {
                expected[i * n + j] = (unsigned char)state;
            }
        }
    }
}

static void vertical_slash(const setting *set, const heads *x, int64_t head, unsigned char *expected) {
    int64_t n = x->n;
    double *column = calloc((size_t)n, sizeof *column), *diagonal = calloc((size_t)n, sizeof *diagonal);
    double *w = malloc((size_t)n * sizeof *w);
    unsigned char *state = malloc((size_t)(2 * n));
    for (int64_t i = larger(0, n - 64); i < n; i++) {
        weights_of(x, head, i, w);
        for (int64_t j = 0; j <= i; j++) {
            column[j] += w[j];
            diagonal[i - j] += w[j];
        }
    }
    for (int64_t j = 0; j < n; j++) {
        column[j] = j < 30 ? INFINITY : column[j];
        diagonal[j] = j < 100 ? INFINITY : diagonal[j];
    }
    choose_top(column, n, smaller(n, larger(set->first, 30)), state);
    choose_top(diagonal, n, smaller(n, larger(set->second, 50)), state + n);
    expand_lines(n, state, state + n, expected);
    free(column);
    free(diagonal);
    free(w);
    free(state);
}

static void block_sparse(const setting *set, const heads *x, int64_t head, unsigned char *expected) {
    int64_t n = x->n, blocks = (n + 63) / 64;
    float *q = malloc((size_t)x->d * sizeof *q), *k = malloc((size_t)x->d * sizeof *k);
    double *score = malloc((size_t)blocks * sizeof *score);
    unsigned char *state = malloc((size_t)blocks);
    for (int64_t a = 0; a < blocks; a++) {
        mean_of(query_of(x, head, 0), a * 64, smaller(n, a * 64 + 64), x->d, q);
        for (int64_t b = 0; b <= a; b++) {
            int64_t keys = smaller(64, n - b * 64);
            mean_of(key_of(x, head, 0), b * 64, b * 64 + keys, x->d, k);
            score[b] = dot(q, k, x->d) * (double)keys / 64;
        }
        choose_top(score, a + 1, set->first, state);
        for (int64_t i = a * 64; i < smaller(n, a * 64 + 64); i++) {
            for (int64_t j = 0; j <= i; j++) {
                expected[i * n + j] = state[j / 64];
            }
        }
    }
    free(q);
    free(k);
    free(score);
    free(state);
}

static void by_pattern(const void *arg, const heads *x, int64_t head, unsigned char *expected) {
    const setting *set = arg;
    if (set->kind == 0) {
        vertical_slash(set, x, head, expected);
    } else if (set->kind == 1) {
        block_sparse(set, x, head, expected);
    } else {
        for (int64_t p = 0; p < x->n * x->n; p++) {
            int64_t i = p / x->n, j = p % x->n;
            expected[p] = j < set->first || i - j < set->second ? IN : OUT;
        }
    }
}

static void recipe_of(setting set, char *recipe, size_t size) {
    static const char *const form[] = {"prefill=minference:kind=0:vertical=%d:slash=%d:fallback=0",
                                       "prefill=minference:kind=1:blocks=%d:fallback=0",
                                       "prefill=minference:kind=2:init=%d:local=%d:fallback=0"};
    snprintf(recipe, size, form[set.kind], (int)set.first, (int)set.second);
}

static void holds(fv_context *ctx, const void *set, heads *x) {
    char recipe[120];
    recipe_of(*(const setting *)set, recipe, sizeof recipe);
    selection s = selects(ctx, recipe, x, by_pattern, set);
    free(s.at);
}

/* The code's columns and diagonals, bytes (heads, 2, n): by key and by distance. */
static void golden_lines_hold(fv_context *ctx, const char *name, const char *recipe, const heads *x) {
    npy_array golden = npy_golden(name);
    selection s = select_all(ctx, recipe, x, true);
    unsigned char *expected = calloc((size_t)(x->n * x->n), 1);
    int64_t differ = 0;
    CHECK(golden.rank == 3 && golden.shape[0] == 2 && golden.shape[1] == 2 && golden.shape[2] == x->n, "%s has another shape",
          name);
    for (int64_t head = 0; head < 2 && golden.data != NULL; head++) {
        expand_lines(x->n, golden.data + 2 * head * x->n, golden.data + (2 * head + 1) * x->n, expected);
        for (int64_t p = 0; p < x->n * x->n; p++) {
            differ += p % x->n <= p / x->n && expected[p] != s.at[head * x->n * x->n + p];
        }
    }
    CHECK(differ == 0, "%s: %lld pairs differ from those of the official code's columns and diagonals", recipe,
          (long long)differ);
    free(expected);
    free(golden.data);
    free(s.at);
}

/* Heads of a profile have the patterns that it gives them; numbers beyond reason are no harm. */
static void profile_holds(fv_context *ctx) {
    static const double number[4][3] = {{0, 40, 120}, {1, 3, 0}, {2, 20, 90}, {-7, 1e300, -1e300}};
    static const setting set[4] = {{0, 40, 120}, {1, 3, 0}, {2, 20, 90}, {0, 700, 0}};
    heads x = heads_structured(3, 4, 2, 700, 32);
    fv_profile *profile = NULL;
    CHECK(fv_profile_create(ctx, "minference", 1, 4, &profile) == FV_OK, "%s", fv_message(ctx));
    for (int head = 0; head < 4; head++) {
        fv_profile_set(profile, 0, head, number[head], 3);
    }
    selection mixed = {4, x.n, calloc((size_t)(4 * x.n), (size_t)x.n), 0};
    prepared p = prepare(ctx, "prefill=minference:fallback=0", &x, x.n, true);
    CHECK(fv_recipe_attach(p.recipe, FV_PREFILL, profile) == FV_OK, "%s", fv_message(ctx));
    prepared q = {.recipe = p.recipe};
    plan_prepared(ctx, &q, "a profile of minference", &x);
    fv_run run = part_run(&x, 0, x.n, x.n);
    CHECK(fv_plan_index(q.plan, &run, q.workspace, q.bytes, take_tile, &mixed) == FV_OK, "%s", fv_message(ctx));
    for (int head = 0; head < 4; head++) {
        char recipe[120];
        recipe_of(set[head], recipe, sizeof recipe);
        selection s = select_all(ctx, recipe, &x, true);
        int64_t at = head * x.n * x.n;
        CHECK(memcmp(s.at + at, mixed.at + at, (size_t)(x.n * x.n)) == 0, "head %d of the profile is not %s", head, recipe);
        free(s.at);
    }
    free(mixed.at);
    free(q.workspace);
    fv_plan_destroy(q.plan);
    prepared_free(&p);
    heads_free(&x);
}

static void second_prompt_holds(fv_context *ctx) {
    heads x = heads_structured(4, 2, 1, 900, 32);
    selection s = select_part(ctx, "prefill=minference:vertical=40:slash=120:fallback=0", &x, 600, 300, 900, true);
    selection whole = select_all(ctx, "prefill=minference:vertical=40:slash=120:fallback=0", &x, true);
    for (int64_t head = 0; head < 2; head++) { /* the last rows decide: nothing else of a prompt does */
        int64_t at = (head * 900 + 600) * 900;
        CHECK(memcmp(s.at + at, whole.at + at, 300 * 900) == 0, "a second prompt's head %lld selects otherwise", (long long)head);
    }
    free(s.at);
    free(whole.at);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    /* two threads on every machine, so that tiles are folded side by side: see test_dilated.c */
    const fv_context_options two = {.threads = 2};
    if (fv_context_create(&two, &ctx) != FV_OK) {
        return 1;
    }
    static const setting set[] = {{0, 40, 120}, {0, 100, 300}, {0, 0, 0}, {1, 3, 0}, {1, 8, 0}, {2, 20, 90}, {2, 0, 1}};
    for (int i = 0; i < 7; i++) {
        on_all_heads(ctx, heads_structured, holds, &set[i]);
    }
    heads g = heads_make(13, 2, 1, 1500, 32), r = heads_real(2, 1, 1500);
    golden_lines_hold(ctx, "select/minference/lines", "prefill=minference:vertical=40:slash=120:fallback=0", &g);
    golden_lines_hold(ctx, "select/minference/real-lines", "prefill=minference:vertical=60:slash=150:fallback=0", &r);
    golden_blocks_hold(ctx, "select/minference/blocks", "prefill=minference:kind=1:blocks=10:fallback=0", &g, 64);
    golden_blocks_hold(ctx, "select/minference/real-blocks", "prefill=minference:kind=1:blocks=7:fallback=0", &r, 64);
    heads_free(&g);
    heads_free(&r);
    profile_holds(ctx);
    second_prompt_holds(ctx);
    heads x = heads_structured(5, 4, 2, 1300, 32);
    dense_holds(ctx, "prefill=minference:vertical=1300:slash=50:fallback=0", &x);
    dense_holds(ctx, "prefill=minference:vertical=0:slash=1300:fallback=0", &x);
    dense_holds(ctx, "prefill=minference:kind=1:blocks=21:fallback=0", &x);
    double some = missing_mass(ctx, "prefill=minference:vertical=60:slash=100:fallback=0", &x);
    double most = missing_mass(ctx, "prefill=minference:vertical=240:slash=400:fallback=0", &x);
    CHECK(most < 0.9 * some, "missing mass %g at four times %g's budget", most, some);
    heads_free(&x);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
