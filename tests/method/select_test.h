/* select_test.h - what tests of selectors that rank scores share: heads with structure, exact attention in double, and choices
 * that know where a ranking is too close to call in f32. Shares nothing with src/. */
#ifndef FOVEA_SELECT_TEST_H
#define FOVEA_SELECT_TEST_H

#include "heads_test.h"
#include "index_test.h"

enum { OUT = 0, IN = 1, EITHER = 2 };

static const double tie = 1e-5; /* relative; never looser */

/* Random heads with two sinks, keys that match their neighbours' queries, and two needles that late queries look for. */
static inline heads heads_structured(uint64_t seed, int64_t h_q, int64_t h_kv, int64_t n, int64_t d) {
    heads x = heads_make(seed, h_q, h_kv, n, d);
    for (int64_t h = 0; h < h_q; h++) {
        int64_t kv = h / (h_q / h_kv);
        for (int64_t i = 0; i < n * d; i++) {
            int64_t row = i / d, c = i % d;
            float *q = &x.q[h * n * d + i], *k = &x.k[kv * n * d + i];
            float place = 1.5f * sinf((float)row / (20.0f + 3.0f * (float)c) + (float)c);
            bool first = h % (h_q / h_kv) == 0;
            *q = 0.5f * *q + place + (c == 0 ? 2.5f : 0.0f) + (c == 1 && row > n / 2 ? 4.0f : 0.0f);
            if (first) {
                *k = 0.5f * *k + place + (c == 0 && row < 2 ? 9.0f : 0.0f) + (c == 1 && row % (n / 2 + 1) == n / 5 ? 9.0f : 0.0f);
            }
        }
    }
    return x;
}

static inline double dot(const float *a, const float *b, int64_t d) {
    double sum = 0;
    for (int64_t c = 0; c < d; c++) {
        sum += (double)a[c] * (double)b[c];
    }
    return sum;
}

static inline const float *query_of(const heads *x, int64_t head, int64_t i) { return x->q + (head * x->n + i) * x->d; }
static inline const float *key_of(const heads *x, int64_t head, int64_t j) {
    return x->k + (head / (x->h_q / x->h_kv) * x->n + j) * x->d;
}

/* x (n) = softmax of x. */
static inline void softmax(double *x, int64_t n) {
    double top = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        top = fmax(top, x[i]);
    }
    for (int64_t i = 0; i < n; i++) {
        x[i] = exp(x[i] - top);
        sum += x[i];
    }
    for (int64_t i = 0; i < n; i++) {
        x[i] /= sum;
    }
}

/* w (n) = causal attention weights of query i; 0 for later keys. */
static inline void weights_of(const heads *x, int64_t head, int64_t i, double *w) {
    memset(w, 0, (size_t)x->n * sizeof *w);
    for (int64_t j = 0; j <= i; j++) {
        w[j] = dot(query_of(x, head, i), key_of(x, head, j), x->d) / sqrt((double)x->d);
    }
    softmax(w, i + 1);
}

/* mean (d) of rows from .. to - 1. */
static inline void mean_of(const float *rows, int64_t from, int64_t to, int64_t d, float *mean) {
    for (int64_t c = 0; c < d; c++) {
        double sum = 0;
        for (int64_t i = from; i < to; i++) {
            sum += (double)rows[i * d + c];
        }
        mean[c] = (float)(sum / (double)(to - from));
    }
}

static const double *compared;
static inline int by_score(const void *a, const void *b) {
    int i = *(const int *)a, j = *(const int *)b;
    return compared[i] > compared[j] ? -1 : compared[i] < compared[j] ? 1 : i - j;
}
/* 0 .. n-1 by descending score, ties by number; to be freed. */
static inline int *ordered(const double *score, int64_t n) {
    int *order = malloc((size_t)(n + 1) * sizeof *order);
    for (int64_t i = 0; i < n; i++) {
        order[i] = (int)i;
    }
    compared = score;
    qsort(order, (size_t)n, sizeof *order, by_score);
    return order;
}

/* state (n): the `count` highest scores are in, the others out; those too close to the last one, either, where that matters. */
static inline void choose_top(const double *score, int64_t n, int64_t count, unsigned char *state) {
    int *order = ordered(score, n);
    double largest = 0;
    for (int64_t i = 0; i < n; i++) {
        state[order[i]] = i < count ? IN : OUT;
        largest = isfinite(score[i]) ? fmax(largest, fabs(score[i])) : largest;
    }
    bool close = count > 0 && count < n && fabs(score[order[count - 1]] - score[order[count]]) < tie * largest;
    for (int64_t i = 0; i < n && close; i++) {
        if (fabs(score[i] - score[order[count]]) < tie * largest) {
            state[i] = EITHER;
        }
    }
    free(order);
}

/* Adds the highest of those that are out, until `held` and they have at least `mass`, the one that crosses included. */
static inline void choose_mass(const double *score, int64_t n, double held, double mass, unsigned char *state) {
    int *order = ordered(score, n);
    for (int64_t i = 0; i < n; i++) {
        int at = order[i];
        if (state[at] != OUT) {
            continue;
        }
        state[at] = fabs(held - mass) < tie * mass ? EITHER : held < mass ? IN : OUT;
        held += score[at];
        for (int64_t k = i + 1; k < n && state[at] != OUT; k++) { /* equals of the last one */
            if (state[order[k]] == OUT && held >= mass && score[order[k]] > score[at] * (1 - tie)) {
                state[order[k]] = state[at] = EITHER;
            }
        }
    }
    free(order);
}

/* Fills what each row of a head may visit: (n, n) of OUT, IN, EITHER; causality is not its business. */
typedef void reference(const void *arg, const heads *x, int64_t head, unsigned char *expected);

/* The recipe's selection is what the reference says, and the run weighs it. Free with free(selection.at). */
static inline selection selects(fv_context *ctx, const char *recipe, heads *x, reference *expects, const void *arg) {
    selection s = select_all(ctx, recipe, x, true);
    unsigned char *expected = malloc((size_t)(x->n * x->n));
    int64_t wrong = 0, either = 0, seen = 0;
    for (int64_t head = 0; head < x->h_q; head++) {
        memset(expected, OUT, (size_t)(x->n * x->n));
        expects(arg, x, head, expected);
        for (int64_t p = 0; p < x->n * x->n; p++) {
            int64_t i = p / x->n, j = p % x->n;
            int right = j <= i ? expected[p] : OUT, is = s.at[head * x->n * x->n + p];
            seen += is;
            either += right == EITHER;
            if (right != EITHER && right != is && wrong++ == 0) {
                printf("  head %lld, row %lld, key %lld: visited %d, expected %d\n", (long long)head, (long long)i, (long long)j,
                       is, right);
            }
        }
    }
    free(expected);
    CHECK(wrong == 0, "%s, n %lld, d %lld: %lld pairs are not the reference's", recipe, (long long)x->n, (long long)x->d,
          (long long)wrong);
    CHECK(either * 10 <= seen, "%s, n %lld: %lld of %lld pairs are ties", recipe, (long long)x->n, (long long)either,
          (long long)seen);
    run_holds(ctx, recipe, x, &s, x->n > 300 ? 37 : 1);
    return s;
}

/* The recipe visits the blocks of `block` keys that tests/golden/NAME.npy says: bytes (heads, query blocks, key blocks), not all.
 */
static inline void golden_blocks_hold(fv_context *ctx, const char *name, const char *recipe, const heads *x, int64_t block) {
    npy_array golden = npy_golden(name);
    selection s = select_all(ctx, recipe, x, true);
    int64_t blocks = (x->n + block - 1) / block, differ = 0, kept = 0, all = x->h_q * blocks * blocks;
    CHECK(golden.rank == 3 && golden.shape[0] * golden.shape[1] * golden.shape[2] == all, "%s has another shape", name);
    for (int64_t p = 0; golden.data != NULL && p < all; p++) {
        int64_t head = p / blocks / blocks, a = p / blocks % blocks, b = p % blocks;
        int64_t last = a * block + block < x->n ? a * block + block - 1 : x->n - 1;
        differ += (b <= a && s.at[(head * x->n + last) * x->n + b * block]) != golden.data[p];
        kept += golden.data[p];
    }
    CHECK(differ == 0, "%s: %lld blocks differ from the official code's", recipe, (long long)differ);
    CHECK(kept < x->h_q * blocks * (blocks + 1) / 2, "%s: the official code keeps everything", recipe);
    free(golden.data);
    free(s.at);
}

#endif
