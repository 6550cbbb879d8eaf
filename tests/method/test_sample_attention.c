/* test_sample_attention.c - SampleAttention's columns and window from whole rows of weights in double. */
#include "select_test.h"

typedef struct setting {
    double alpha, rows, window;
} setting;

/* Of a prompt of rows from .. n - 1 over n keys. */
static void rows_from(const setting *set, const heads *x, int64_t head, int64_t from, unsigned char *expected) {
    int64_t n = x->n, window = (int64_t)ceil(set->window * (double)n);
    int64_t step = (int64_t)fmax(1, fmin(round(1 / set->rows), (double)((n - from) / 64)));
    double *mass = calloc((size_t)n, sizeof *mass), *w = malloc((size_t)n * sizeof *w);
    unsigned char *state = calloc((size_t)n, 1);
    int64_t sampled = 0;
    for (int64_t i = n - 1; i >= from; i -= step, sampled++) {
        weights_of(x, head, i, w);
        for (int64_t j = 0; j <= i; j++) {
            mass[j] += w[j];
        }
    }
    choose_mass(mass, n, 0, set->alpha * (double)sampled, state);
    for (int64_t i = from; i < n; i++) {
        for (int64_t j = 0; j <= i; j++) {
            bool near = i / 64 * 64 - j < window || j >= i / 64 * 64;
            expected[i * n + j] = near ? IN : state[j];
        }
    }
    free(mass);
    free(w);
    free(state);
}

static void columns_and_window(const void *arg, const heads *x, int64_t head, unsigned char *expected) {
    rows_from(arg, x, head, 0, expected);
}

static void holds(fv_context *ctx, const void *arg, heads *x) {
    const setting *set = arg;
    char recipe[120];
    snprintf(recipe, sizeof recipe, "prefill=sample-attention:alpha=%g:rows=%g:window=%g:fallback=0", set->alpha, set->rows,
             set->window);
    selection s = selects(ctx, recipe, x, columns_and_window, set);
    free(s.at);
}

/* A second prompt over a cache samples its own rows, no fewer than 64. */
static void second_prompt_holds(fv_context *ctx) {
    const setting set = {0.6, 0.001, 0.05};
    const char *recipe = "prefill=sample-attention:alpha=0.6:rows=0.001:window=0.05:fallback=0";
    heads x = heads_structured(4, 2, 1, 900, 32);
    selection s = select_part(ctx, recipe, &x, 600, 300, 900, true);
    unsigned char *expected = calloc(900, 900);
    for (int64_t head = 0; head < 2; head++) {
        int64_t differ = 0;
        rows_from(&set, &x, head, 600, expected);
        for (int64_t i = 600 * 900; i < 900 * 900; i++) {
            unsigned char at = s.at[head * 900 * 900 + i];
            differ += (expected[i] == IN && !at) || (expected[i] == OUT && at);
        }
        CHECK(differ == 0, "a second prompt's head %lld selects %lld pairs otherwise", (long long)head, (long long)differ);
    }
    free(expected);
    free(s.at);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    static const setting set[] = {{0.95, 0.05, 0.08}, {0.5, 0.125, 0.1}, {0.7, 1, 0}, {0.3, 0.01, 0.3}};
    for (int i = 0; i < 4; i++) {
        on_all_heads(ctx, heads_structured, holds, &set[i]);
    }
    second_prompt_holds(ctx);
    heads x = heads_structured(5, 4, 2, 900, 32);
    dense_holds(ctx, "prefill=sample-attention:alpha=1:fallback=0", &x);
    dense_holds(ctx, "prefill=sample-attention:alpha=0:window=1:fallback=0", &x);
    double some = missing_mass(ctx, "prefill=sample-attention:alpha=.2:window=.05:fallback=0", &x);
    double most = missing_mass(ctx, "prefill=sample-attention:alpha=.8:window=.2:fallback=0", &x);
    CHECK(most < 0.9 * some, "missing mass %g at alpha .8, %g at .2", most, some);
    heads_free(&x);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
