/* test_row_topk.c - each row's k largest scores, against sorting them in double. */
#include "heads_test.h"
#include "index_test.h"

/* Whether row i of the head takes key j: 1 or 0, and -1 where it is too near the k-th score to tell. `score` has the row's, `kth`
 * is the k-th largest of more than k. */
static int takes(const double *score, int64_t n, int64_t k, double kth, int64_t j) {
    int64_t before = 0, near = 0;
    const double margin = 1e-4 * fmax(1, fmax(fabs(kth), fabs(score[j])));
    if (n <= k || fabs(score[j] - kth) > margin) {
        return n <= k || score[j] > kth;
    }
    for (int64_t l = 0; l < n; l++) {
        bool tie = l != j && score[l] != score[j] && fabs(score[l] - score[j]) < 1e-5 * fmax(1, fabs(score[j]));
        before += !tie && (score[l] > score[j] || (score[l] == score[j] && l < j));
        near += tie;
    }
    return before >= k ? 0 : before + near < k ? 1 : -1;
}

static int descending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static double kth_of(const double *score, int64_t n, int64_t k) {
    double *sorted = malloc((size_t)n * sizeof *sorted), kth = 0;
    memcpy(sorted, score, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, descending);
    kth = n > k ? sorted[k - 1] : 0;
    free(sorted);
    return kth;
}

static void holds(fv_context *ctx, const void *arg, heads *x) {
    const int64_t k = *(const int64_t *)arg;
    char recipe[80];
    snprintf(recipe, sizeof recipe, "prefill=row-topk:k=%d:fallback=0", (int)k);
    selection s = select_all(ctx, recipe, x, true);
    double *score = malloc((size_t)x->n * sizeof *score);
    int64_t unclear = 0;
    for (int64_t r = 0; r < x->h_q * x->n; r++) {
        int64_t head = r / x->n, i = r % x->n, kv = head / (x->h_q / x->h_kv), taken = 0;
        for (int64_t j = 0; j <= i; j++) {
            score[j] = 0;
            for (int64_t c = 0; c < x->d; c++) {
                score[j] += (double)x->q[r * x->d + c] * x->k[(kv * x->n + j) * x->d + c];
            }
        }
        double kth = kth_of(score, i + 1, k);
        for (int64_t j = 0; j < x->n; j++) {
            int want = j <= i ? takes(score, i + 1, k, kth, j) : 0;
            taken += s.at[r * x->n + j];
            unclear += want < 0;
            CHECK(want < 0 || s.at[r * x->n + j] == want, "%s, n %lld: row %lld and key %lld of head %lld", recipe,
                  (long long)x->n, (long long)i, (long long)j, (long long)head);
        }
        CHECK(taken == (i + 1 < k ? i + 1 : k), "%s: row %lld takes %lld keys", recipe, (long long)i, (long long)taken);
    }
    CHECK(unclear < x->h_q * x->n / 5 + 5, "%s: %lld pairs cannot be told", recipe, (long long)unclear);
    run_holds(ctx, recipe, x, &s, x->n > 300 ? 37 : 1);
    chunks_hold(ctx, recipe, x, &s, 64);
    free(score);
    free(s.at);
}

/* Some keys are equal: the earlier is taken. */
static heads repeated(uint64_t seed, int64_t h_q, int64_t h_kv, int64_t n, int64_t d) {
    heads x = heads_make(seed, h_q, h_kv, n, d);
    for (int64_t r = 1; r < h_kv * n; r += 3) {
        memcpy(x.k + r * d, x.k + (r - 1) * d, (size_t)d * sizeof(float));
    }
    return x;
}

/* An index that takes all keys is cut to what its tile can see: the blocks up to its own. */
static int reaches_own_block(void *user, const fv_index_tile *t) {
    int64_t *wrong = user;
    for (int64_t b = 0; b < (t->n_kv + 63) / 64; b++) {
        *wrong += t->key[b] != (b <= (t->offset + t->first) / 64 ? UINT64_MAX : 0);
    }
    return 0;
}

static void trims(fv_context *ctx, const heads *x) {
    const char *recipe = "prefill=row-topk:k=500:fallback=0";
    prepared p = prepare(ctx, recipe, x, x->n, true);
    fv_run run = part_run(x, 0, x->n, x->n);
    int64_t wrong = 0;
    CHECK(fv_plan_index(p.plan, &run, p.workspace, p.bytes, reaches_own_block, &wrong) == FV_OK, "%s", fv_message(ctx));
    CHECK(wrong == 0, "%s: %lld words of the index are not what tiles can see", recipe, (long long)wrong);
    prepared_free(&p);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    static const int64_t k[] = {1, 20, 300};
    for (int i = 0; i < 3; i++) {
        on_all_heads(ctx, repeated, holds, &k[i]);
    }
    heads x = heads_make(9, 4, 2, 500, 32);
    dense_holds(ctx, "prefill=row-topk:k=500:fallback=0", &x);
    trims(ctx, &x);
    double last = 1;
    for (int budget = 4; budget <= 256; budget *= 4) {
        char recipe[80];
        snprintf(recipe, sizeof recipe, "prefill=row-topk:k=%d:fallback=0", budget);
        double missing = missing_mass(ctx, recipe, &x);
        CHECK(missing < last, "%s misses %g, a quarter of it %g", recipe, missing, last);
        last = missing;
    }
    heads_free(&x);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
