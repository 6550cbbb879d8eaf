/* test_xattention.c - antidiagonal scores against sums over the antidiagonals of every stride x stride square, in double; and
 * the official code's blocks (tests/golden/select/xattention). */
#include "select_test.h"

typedef struct setting {
    int64_t stride;
    double threshold;
} setting;

static bool there(const heads *x, int64_t row) { return row < x->n; }

/* Sum of the scores on the antidiagonal of the square of query group a and key group b. */
static double antidiagonal(const heads *x, int64_t head, int64_t stride, int64_t a, int64_t b) {
    double sum = 0;
    for (int64_t r = 0; r < stride; r++) {
        int64_t i = a * stride + stride - 1 - r, j = b * stride + r;
        sum += there(x, i) && there(x, j) ? dot(query_of(x, head, i), key_of(x, head, j), x->d) : 0;
    }
    return sum / sqrt((double)x->d) / (double)stride;
}

static void block_masses(const heads *x, int64_t head, int64_t stride, int64_t block, double *mass) {
    int64_t per = 128 / stride, groups = (x->n + stride - 1) / stride;
    double *w = malloc((size_t)groups * sizeof *w);
    for (int64_t a = block * per; a < (block + 1) * per && a < groups; a++) {
        for (int64_t b = 0; b <= a; b++) {
            w[b] = antidiagonal(x, head, stride, a, b);
        }
        softmax(w, a + 1);
        for (int64_t b = 0; b <= a; b++) {
            mass[b / per] += w[b];
        }
    }
    free(w);
}

static void heaviest(const void *arg, const heads *x, int64_t head, unsigned char *expected) {
    const setting *set = arg;
    int64_t blocks = (x->n + 127) / 128;
    double *mass = malloc((size_t)blocks * sizeof *mass);
    unsigned char *state = malloc((size_t)blocks);
    for (int64_t a = 0; a < blocks; a++) {
        memset(mass, 0, (size_t)blocks * sizeof *mass);
        memset(state, OUT, (size_t)blocks);
        block_masses(x, head, set->stride, a, mass);
        double total = 0;
        for (int64_t b = 0; b <= a; b++) {
            total += mass[b];
        }
        state[0] = state[a] = IN;
        choose_mass(mass, a + 1, mass[0] + (a > 0 ? mass[a] : 0), set->threshold * total, state);
        for (int64_t i = a * 128; i < x->n && i < a * 128 + 128; i++) {
            for (int64_t j = 0; j <= i; j++) {
                expected[i * x->n + j] = state[j / 128];
            }
        }
    }
    free(mass);
    free(state);
}

static void holds(fv_context *ctx, const void *arg, heads *x) {
    const setting *set = arg;
    char recipe[100];
    snprintf(recipe, sizeof recipe, "prefill=xattention:stride=%d:threshold=%g:fallback=0", (int)set->stride, set->threshold);
    selection s = selects(ctx, recipe, x, heaviest, set);
    chunks_hold(ctx, recipe, x, &s, 128);
    chunks_hold(ctx, recipe, x, &s, 384);
    free(s.at);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    static const setting set[] = {{8, 0.9}, {16, 0.7}, {2, 0.5}, {64, 0.8}, {128, 0.6}};
    for (int i = 0; i < 5; i++) {
        on_all_heads(ctx, heads_structured, holds, &set[i]);
    }
    heads g = heads_make(11, 2, 2, 1500, 32), r = heads_real(2, 1, 1500);
    golden_blocks_hold(ctx, "select/xattention/stride8", "prefill=xattention:stride=8:threshold=.35:fallback=0", &g, 128);
    golden_blocks_hold(ctx, "select/xattention/stride16", "prefill=xattention:stride=16:threshold=.35:fallback=0", &g, 128);
    golden_blocks_hold(ctx, "select/xattention/real-stride8", "prefill=xattention:stride=8:threshold=.7:fallback=0", &r, 128);
    golden_blocks_hold(ctx, "select/xattention/real-stride16", "prefill=xattention:stride=16:threshold=.9:fallback=0", &r, 128);
    heads_free(&g);
    heads_free(&r);
    heads x = heads_structured(5, 4, 2, 900, 32);
    dense_holds(ctx, "prefill=xattention:threshold=1:fallback=0", &x);
    double half = missing_mass(ctx, "prefill=xattention:threshold=.4:fallback=0", &x);
    double most = missing_mass(ctx, "prefill=xattention:threshold=.95:fallback=0", &x);
    CHECK(most < 0.5 * half, "missing mass %g at .95, %g at .4", most, half);
    heads_free(&x);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
