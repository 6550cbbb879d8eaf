/* test_flexprefill.c - FlexPrefill's columns, diagonals and maps of blocks from whole matrices of weights in double, and the
 * official code's blocks (tests/golden/select/flexprefill). */
#include "select_test.h"

typedef struct setting {
    double gamma, tau;
    int64_t least;
} setting;

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* Blocks that as many keys fill as cover gamma. */
static int64_t blocks_to_cover(const double *weight, int64_t n, double gamma) {
    int *order = ordered(weight, n);
    double sum = 0;
    int64_t count = 1;
    for (int64_t i = 0; i < n; i++) {
        sum += weight[order[i]];
        count += sum <= gamma;
    }
    free(order);
    return count / 128 + 1;
}

/* The best blocks, where their number may be off by a tie in what covers gamma. */
static void best_blocks(const double *weight, const double *pooled, int64_t n, int64_t blocks, const setting *set, bool map,
                        unsigned char *state) {
    int64_t least = (set->least + 127) / 128;
    int64_t few = map ? least : larger(least, blocks_to_cover(weight, n, set->gamma * (1 - tie)));
    int64_t many = map ? least : larger(least, blocks_to_cover(weight, n, set->gamma * (1 + tie)));
    unsigned char *other = malloc((size_t)blocks);
    choose_top(pooled, blocks, few, state);
    choose_top(pooled, blocks, many, other);
    for (int64_t b = 0; b < blocks; b++) {
        state[b] = state[b] == other[b] ? state[b] : EITHER;
    }
    free(other);
}

/* Softmax over blocks of the mean query of rows from .. to - 1 with the mean keys of blocks 0 .. blocks - 1. */
static void pooled_weights(const heads *x, int64_t head, int64_t from, int64_t to, int64_t blocks, double *w) {
    float *q = malloc((size_t)x->d * sizeof *q), *k = malloc((size_t)x->d * sizeof *k);
    mean_of(query_of(x, head, 0), from, to, x->d, q);
    for (int64_t b = 0; b < blocks; b++) {
        mean_of(key_of(x, head, 0), b * 128, smaller(b * 128 + 128, x->n), x->d, k);
        w[b] = dot(q, k, x->d) / sqrt((double)x->d);
    }
    softmax(w, blocks);
    free(q);
    free(k);
}

static double js_distance(const double *p, const double *q, int64_t n) {
    double sum = 0;
    for (int64_t b = 0; b < n; b++) {
        double m = (p[b] + q[b]) / 2;
        sum += 0.5 * p[b] * log(p[b] / m) + 0.5 * q[b] * log(q[b] / m);
    }
    return sqrt(sum);
}

/* All blocks of all rows ranked together: (blocks, blocks). */
static void ranked_map(const heads *x, int64_t head, int64_t blocks, double gamma, unsigned char *map) {
    double *w = calloc((size_t)(blocks * blocks), sizeof *w), sum = 0;
    for (int64_t a = 0; a < blocks; a++) {
        pooled_weights(x, head, a * 128, smaller(a * 128 + 128, x->n), a + 1, w + a * blocks);
    }
    int *order = ordered(w, blocks * blocks);
    double mass = gamma * (double)blocks;
    memset(map, OUT, (size_t)(blocks * blocks));
    for (int64_t i = 0; i < blocks * blocks; i++) {
        sum += w[order[i]];
        map[order[i]] = fabs(sum - mass) < tie * mass ? EITHER : sum <= mass ? IN : OUT;
    }
    free(order);
    free(w);
}

/* Rows' mean weights by key, and by n - 1 - distance. */
static void lines(const heads *x, int64_t head, double *column, double *diagonal) {
    double *w = malloc((size_t)x->n * sizeof *w);
    memset(column, 0, (size_t)x->n * sizeof *w);
    memset(diagonal, 0, (size_t)x->n * sizeof *w);
    for (int64_t i = x->n - 128; i < x->n; i++) {
        weights_of(x, head, i, w);
        for (int64_t j = 0; j <= i; j++) {
            column[j] += w[j] / 128;
            diagonal[x->n - 1 - (i - j)] += w[j] / 128;
        }
    }
    free(w);
}

static void expand(const heads *x, int64_t blocks, const unsigned char *column, const unsigned char *diagonal,
                   const unsigned char *map, unsigned char *expected) {
    for (int64_t p = 0; p < x->n * x->n; p++) {
        int64_t a = p / x->n / 128, b = p % x->n / 128;
        if (b <= a) {
            int one = column[b], two = diagonal[blocks - 1 - (a - b)], three = map[a * blocks + b];
            bool in = one == IN || two == IN || three == IN;
            expected[p] = in ? IN : one == EITHER || two == EITHER || three == EITHER ? EITHER : OUT;
        }
    }
}

static void covering(const void *arg, const heads *x, int64_t head, unsigned char *expected) {
    const setting *set = arg;
    int64_t n = x->n, blocks = (n + 127) / 128;
    if (n <= larger(256, (set->least + 127) / 128 * 128)) {
        memset(expected, IN, (size_t)(n * n));
        return;
    }
    double *column = malloc((size_t)n * sizeof *column), *diagonal = malloc((size_t)n * sizeof *diagonal);
    double *columns = calloc((size_t)blocks, sizeof *columns), *diagonals = calloc((size_t)blocks, sizeof *diagonals);
    double *guess = malloc((size_t)blocks * sizeof *guess);
    unsigned char *kept = calloc((size_t)(2 * blocks + blocks * blocks), 1);
    lines(x, head, column, diagonal);
    for (int64_t j = 0; j < n; j++) {
        columns[j / 128] += column[j];
        diagonals[j / 128] += diagonal[j];
    }
    pooled_weights(x, head, n - 128, n, blocks, guess);
    double distance = js_distance(guess, columns, blocks);
    bool map = distance < set->tau;
    columns[0] = diagonals[blocks - 1] = INFINITY;
    best_blocks(column, columns, n, blocks, set, map, kept);
    best_blocks(diagonal, diagonals, n, blocks, set, map, kept + blocks);
    if (map) {
        ranked_map(x, head, blocks, set->gamma, kept + 2 * blocks);
    }
    if (fabs(distance - set->tau) < 1e-5) {
        memset(kept, EITHER, (size_t)(2 * blocks));
    }
    expand(x, blocks, kept, kept + blocks, kept + 2 * blocks, expected);
    free(column);
    free(diagonal);
    free(columns);
    free(diagonals);
    free(guess);
    free(kept);
}

static void holds(fv_context *ctx, const void *arg, heads *x) {
    const setting *set = arg;
    char recipe[100];
    snprintf(recipe, sizeof recipe, "prefill=flexprefill:gamma=%g:tau=%g:min=%d:fallback=0", set->gamma, set->tau,
             (int)set->least);
    selection s = selects(ctx, recipe, x, covering, set);
    free(s.at);
}

/* A second prompt over a cache: blocks stay within the problem, and each row sees its own key. */
static void second_prompt_holds(fv_context *ctx, const char *recipe) {
    heads x = heads_structured(4, 2, 1, 900, 32);
    selection s = select_part(ctx, recipe, &x, 600, 300, 900, true);
    for (int64_t head = 0; head < 2; head++) {
        for (int64_t i = 600; i < 900; i++) {
            CHECK(s.at[(head * 900 + i) * 900 + i] && s.at[(head * 900 + i) * 900], "%s: row %lld misses itself or the first key",
                  recipe, (long long)i);
        }
    }
    CHECK(selected_pairs(&s) < 2 * (900 * 901 / 2 - 600 * 601 / 2), "%s: a second prompt visits everything", recipe);
    free(s.at);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    static const setting set[] = {{0.9, 0.1, 128}, {0.5, 0, 128}, {0.6, 1, 128}, {0.4, 0.3, 256}};
    for (int i = 0; i < 4; i++) {
        on_all_heads(ctx, heads_structured, holds, &set[i]);
    }
    heads g = heads_make(12, 2, 1, 1500, 32), r = heads_real(2, 1, 1500);
    golden_blocks_hold(ctx, "select/flexprefill/lines", "prefill=flexprefill:gamma=.6:tau=0:min=1:fallback=0", &g, 128);
    golden_blocks_hold(ctx, "select/flexprefill/map", "prefill=flexprefill:gamma=.4:tau=1:min=1:fallback=0", &g, 128);
    golden_blocks_hold(ctx, "select/flexprefill/real-lines", "prefill=flexprefill:gamma=.6:tau=0:min=1:fallback=0", &r, 128);
    golden_blocks_hold(ctx, "select/flexprefill/real-map", "prefill=flexprefill:gamma=.8:tau=1:min=1:fallback=0", &r, 128);
    golden_blocks_hold(ctx, "select/flexprefill/real-default", "prefill=flexprefill:gamma=.9:tau=.1:min=1:fallback=0", &r, 128);
    heads_free(&g);
    heads_free(&r);
    second_prompt_holds(ctx, "prefill=flexprefill:gamma=.2:tau=0:min=1:fallback=0");
    second_prompt_holds(ctx, "prefill=flexprefill:gamma=.3:tau=1:min=1:fallback=0");
    heads x = heads_structured(5, 4, 2, 1300, 32);
    dense_holds(ctx, "prefill=flexprefill:gamma=1:tau=0:fallback=0", &x);
    double some = missing_mass(ctx, "prefill=flexprefill:gamma=.2:tau=0:min=1:fallback=0", &x);
    double most = missing_mass(ctx, "prefill=flexprefill:gamma=.8:tau=0:min=1:fallback=0", &x);
    CHECK(most < 0.9 * some, "missing mass %g at .8, %g at .2", most, some);
    heads_free(&x);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
