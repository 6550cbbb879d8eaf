/* test_boundary.c - the training of DHSA's predictor: labels against sums over a whole attention matrix, the loss and its
 * gradient against differences, Adam on a bowl, and the choice of places against one that sorts. */
#include "select/boundary_train.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static double number(uint64_t *seed) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(*seed >> 11) * 0x1p-53;
}

/* Random causal attention (N, N); each place's ratio from the rows that come after its second window's last key, that key's own
 * row among them. */
static void test_labels(void **state) {
    (void)state;
    enum { N = 40, W = 4, BAND = 8 };
    double a[N][N] = {{0}}, column[N] = {0}, band[N * BAND] = {0}, ratio[N];
    uint64_t seed = 3;
    for (int i = 0; i < N; i++) {
        double sum = 0;
        for (int j = 0; j <= i; j++) {
            a[i][j] = exp(6 * number(&seed));
            sum += a[i][j];
        }
        for (int j = 0; j <= i; j++) {
            a[i][j] /= sum;
            column[j] += a[i][j];
            if (i - j < BAND) {
                band[j * BAND + i - j] = a[i][j];
            }
        }
    }
    fvi_boundary_ratios(column, band, N, ratio);
    for (int p = 0; p < N; p++) {
        double before = 0, after = 0;
        for (int i = p + W - 1; i < N; i++) {
            for (int k = 0; k < W && p >= W && p + W <= N; k++) {
                before += a[i][p - 1 - k];
                after += a[i][p + k];
            }
        }
        const double larger = before > after ? before : after, smaller = before > after ? after : before;
        const double expected = p < 2 * W || p > N - 2 * W ? 0 : (larger + 1e-6) / (smaller + 1e-6);
        assert_true(fabs(ratio[p] - expected) <= 1e-9 * (1 + expected));
    }
}

/* The paper's loss, as its code states it. */
static double focal(double logit, bool boundary) {
    const double p = 1 / (1 + exp(-logit)), right = boundary ? p : 1 - p;
    return -(boundary ? 1.3 : 1) * (1 - right) * (1 - right) * log(right);
}

static void test_loss(void **state) {
    (void)state;
    for (int i = 0; i < 28; i++) {
        const double z = -5 + 0.37 * i;
        for (int y = 0; y < 2; y++) {
            double slope, unused;
            const double loss = fvi_boundary_loss(z, y, &slope), h = 1e-5;
            assert_true(fabs(loss - focal(z, y)) < 1e-12 * (1 + loss));
            const double by = (fvi_boundary_loss(z + h, y, &unused) - fvi_boundary_loss(z - h, y, &unused)) / (2 * h);
            assert_true(fabs(by - slope) < 1e-8);
        }
    }
}

/* The network in double, with no loop of the library's. */
static double logit_of(const double *w, const float *left, const float *right, int d) {
    enum { H = FVI_BOUNDARY_HIDDEN };
    const int width = 4 * d + 1;
    double logit = w[width * H + 2 * H], lr = 0, ll = 0, rr = 0;
    for (int i = 0; i < d; i++) {
        lr += (double)left[i] * right[i];
        ll += (double)left[i] * left[i];
        rr += (double)right[i] * right[i];
    }
    for (int h = 0; h < H; h++) {
        double unit = w[width * H + h] + lr / sqrt(ll * rr) * w[4 * d * H + h];
        for (int i = 0; i < d; i++) {
            unit += left[i] * w[i * H + h] + right[i] * w[(d + i) * H + h] +
                    fabs((double)left[i] - right[i]) * w[(2 * d + i) * H + h] +
                    (double)left[i] * right[i] * w[(3 * d + i) * H + h];
        }
        logit += unit > 0 ? unit * w[width * H + H + h] : 0;
    }
    return logit;
}

static void test_gradient(void **state) {
    (void)state;
    enum { D = 6, N = (4 * D + 1) * FVI_BOUNDARY_HIDDEN + 2 * FVI_BOUNDARY_HIDDEN + 1 };
    double w[N], gradient[N];
    float left[D], right[D], x[FVI_BOUNDARY_PLACES * (4 * D + 1)] = {0}, f[N], logit[FVI_BOUNDARY_PLACES];
    assert_int_equal(fvi_boundary_weights(D), N);
    uint64_t seed = 17;
    for (int round = 0; round < 6; round++) {
        const bool boundary = round % 2;
        for (int i = 0; i < N; i++) {
            f[i] = (float)(number(&seed) - 0.5);
            w[i] = (double)f[i];
            gradient[i] = 1; /* it is added to */
        }
        for (int i = 0; i < D; i++) {
            left[i] = (float)(4 * number(&seed) - 2);
            right[i] = (float)(4 * number(&seed) - 2);
        }
        fvi_boundary_features(left, right, D, x + 2 * (4 * D + 1)); /* third of the places */
        fvi_boundary_logits(f, x, D, logit);
        assert_true(fabs(logit[2] - logit_of(w, left, right, D)) < 1e-5);
        const double loss = fvi_boundary_gradient(w, x + 2 * (4 * D + 1), D, boundary, gradient);
        assert_true(fabs(loss - focal(logit_of(w, left, right, D), boundary)) < 1e-6);
        for (int i = 0; i < N; i++) {
            const double h = 1e-6, kept = w[i];
            w[i] = kept + h;
            const double up = focal(logit_of(w, left, right, D), boundary);
            w[i] = kept - h;
            const double down = focal(logit_of(w, left, right, D), boundary);
            w[i] = kept;
            if (fabs((up - down) / (2 * h) - (gradient[i] - 1)) > 1e-5) {
                fail_msg("round %d, weight %d: gradient %g, difference %g", round, i, gradient[i] - 1, (up - down) / (2 * h));
            }
        }
    }
}

/* Steps of Adam, whose first is one rate long for every weight, find the bottom of a bowl. */
static void test_steps(void **state) {
    (void)state;
    double w[3] = {1, -0.5, 0.2}, g[3], first[3] = {0}, second[3] = {0};
    for (int step = 1; step <= 4000; step++) {
        for (int i = 0; i < 3; i++) {
            g[i] = 2 * (i + 1) * (w[i] - 0.3);
        }
        const double before = w[1];
        fvi_boundary_step(w, g, first, second, 3, step);
        assert_true(step > 1 || fabs(fabs(w[1] - before) - 1e-3) < 1e-9);
        assert_true(g[0] == 0 && g[2] == 0);
    }
    for (int i = 0; i < 3; i++) {
        assert_true(fabs(w[i] - 0.3) < 1e-3);
    }
}

typedef struct place {
    float logit;
    int at;
} place;

static int by_logit(const void *a, const void *b) {
    const place *x = a, *y = b;
    return x->logit != y->logit ? (x->logit < y->logit ? 1 : -1) : x->at - y->at;
}

static void test_pick(void **state) {
    (void)state;
    enum { N = 100 };
    uint64_t seed = 11;
    for (int round = 0; round < 50; round++) {
        float logit[N];
        place sorted[N];
        bool taken[N] = {false};
        int32_t chosen[N];
        const int most = round % 12, apart = round % 9;
        for (int i = 0; i < N; i++) {
            logit[i] = number(&seed) < 0.2 ? -INFINITY : floorf((float)(20 * number(&seed))); /* many equal ones */
            sorted[i] = (place){logit[i], i};
        }
        qsort(sorted, N, sizeof *sorted, by_logit);
        int count = 0;
        for (int i = 0; i < N && count < most && !isinf(sorted[i].logit); i++) {
            bool near = false;
            for (int j = -apart; j <= apart; j++) {
                near = near || (sorted[i].at + j >= 0 && sorted[i].at + j < N && taken[sorted[i].at + j]);
            }
            taken[sorted[i].at] = !near || taken[sorted[i].at];
            count += !near;
        }
        assert_int_equal(fvi_boundary_pick(logit, N, most, apart, chosen), count);
        for (int i = 0, k = 0; i < N; i++) {
            if (taken[i]) {
                assert_int_equal(chosen[k++], i);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_labels), cmocka_unit_test(test_loss),
                                       cmocka_unit_test(test_gradient), cmocka_unit_test(test_steps),
                                       cmocka_unit_test(test_pick)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
