/* test_gali.c - interpolated logits against the formula in double, positions against the official code's, and the noise itself.
 */
#include "heads_test.h"

static void rotated(const float *x, int64_t d, double position, double base, bool interleaved, double *out) {
    for (int64_t j = 0; j < d / 2; j++) {
        int64_t a = interleaved ? 2 * j : j, b = interleaved ? 2 * j + 1 : j + d / 2;
        double angle = position * pow(base, -2.0 * (double)j / (double)d);
        out[a] = (double)x[a] * cos(angle) - (double)x[b] * sin(angle);
        out[b] = (double)x[b] * cos(angle) + (double)x[a] * sin(angle);
    }
}

static double dot(const double *a, const double *b, int64_t d) {
    double s = 0;
    for (int64_t c = 0; c < d; c++) {
        s += a[c] * b[c];
    }
    return s;
}

/* One row without noise, its chunk's positions at hand. */
static void row_of(const fv_gali *g, const heads *x, int64_t head, int64_t i, const double *p, double *out, double *lse) {
    const int64_t d = x->d, kv = head / (x->h_q / x->h_kv);
    double *score = malloc((size_t)(i + 1) * sizeof *score), q[256], high[256], low[256], sum = 0, top = -INFINITY;
    rotated(x->q + (head * x->n + i) * d, d, ceil(p[i]), g->rope_base, g->interleaved, q);
    for (int64_t j = 0; j <= i; j++) {
        rotated(x->k + (kv * x->n + j) * d, d, ceil(p[j]), g->rope_base, g->interleaved, high);
        rotated(x->k + (kv * x->n + j) * d, d, floor(p[j]), g->rope_base, g->interleaved, low);
        double near = dot(q, high, d), far = dot(q, low, d), part = fmod(ceil(p[i]) - p[j], 1);
        score[j] = (near + (far - near) * part) / sqrt((double)d);
        top = fmax(top, score[j]);
    }
    memset(out, 0, (size_t)d * sizeof *out);
    for (int64_t j = 0; j <= i; j++) {
        double w = exp(score[j] - top);
        sum += w;
        for (int64_t c = 0; c < d; c++) {
            out[c] += w * (double)x->v[(kv * x->n + j) * d + c];
        }
    }
    for (int64_t c = 0; c < d; c++) {
        out[c] /= sum;
    }
    *lse = top + log(sum);
    free(score);
}

/* Shapes of g are those of x. */
static void formula_holds(fv_context *ctx, fv_gali g, const heads *x) {
    g.h_q = x->h_q;
    g.h_kv = x->h_kv;
    g.n = x->n;
    g.d_k = g.d_v = x->d;
    fv_status status = fv_gali_attention(ctx, &g, x->q, x->k, x->v, x->out, x->lse);
    CHECK(status == FV_OK, "%s", fv_message(ctx));
    const int64_t n = x->n, d = x->d;
    double *p = malloc((size_t)(n + 1) * sizeof *p), out[256], lse, worst = 0;
    for (int64_t first = 0, end; first < n; first = end) {
        end = first == 0 ? g.trained : first + g.chunk;
        end = end < n ? end : n;
        fv_gali_positions(ctx, g.trained, g.local, end, p);
        for (int64_t h = 0; h < x->h_q; h++) {
            for (int64_t i = first; i < end; i += i % 5 == 0 ? 1 : 4) {
                row_of(&g, x, h, i, p, out, &lse);
                worst = fmax(worst, fabs(lse - (double)x->lse[h * n + i]));
                for (int64_t c = 0; c < d; c++) {
                    worst = fmax(worst, fabs(out[c] - (double)x->out[(h * n + i) * d + c]));
                }
            }
        }
    }
    CHECK(worst < 5e-5, "n %lld of %lld trained: off by %g", (long long)n, (long long)g.trained, worst);
    free(p);
}

static void formula_holds_everywhere(fv_context *ctx) {
    static const struct {
        fv_gali g;
        int64_t n, h_kv, d;
    } set[] = {{{.trained = 64, .local = 16, .chunk = 32, .rope_base = 1e4}, 1, 2, 32},
               {{.trained = 64, .local = 16, .chunk = 32, .rope_base = 1e4}, 65, 2, 32},
               {{.trained = 63, .local = 10, .chunk = 37, .rope_base = 1e4, .interleaved = true}, 200, 4, 64},
               {{.trained = 128, .local = 32, .chunk = 100, .rope_base = 1e4}, 500, 2, 64}};
    for (int k = 0; k < 4; k++) {
        heads x = heads_make((uint64_t)set[k].n, 4, set[k].h_kv, set[k].n, set[k].d);
        formula_holds(ctx, set[k].g, &x);
        heads_free(&x);
    }
    heads x = heads_real(4, 2, 400); /* turned back to what the model had before its positions */
    for (int64_t r = 0; r < 6 * x.n; r++) {
        float *row = r < 4 * x.n ? x.q + r * x.d : x.k + (r - 4 * x.n) * x.d;
        double turned[REAL_D];
        rotated(row, x.d, -(double)(r % x.n), 1e6, true, turned);
        for (int c = 0; c < REAL_D; c++) {
            row[c] = (float)turned[c];
        }
    }
    formula_holds(ctx, (fv_gali){.trained = 150, .local = 40, .chunk = 100, .rope_base = 1e6, .interleaved = true}, &x);
    heads_free(&x);
}

/* Within the trained length, and with keys that are turned here instead, it is plain attention. */
static void trained_is_plain(fv_context *ctx) {
    heads x = heads_make(4, 4, 2, 200, 64);
    fv_gali g = {.h_q = 4,
                 .h_kv = 2,
                 .n = 200,
                 .d_k = 64,
                 .d_v = 64,
                 .trained = 200,
                 .local = 8,
                 .chunk = 50,
                 .rope_base = 500,
                 .noise = 1,
                 .seed = 3};
    float *out = numbers(&(uint64_t){1}, 4 * 200 * 64, 1);
    CHECK(fv_gali_attention(ctx, &g, x.q, x.k, x.v, out, NULL) == FV_OK, "%s", fv_message(ctx));
    double turned[64], worst = 0;
    for (int64_t r = 0; r < 6 * 200; r++) {
        float *row = r < 4 * 200 ? x.q + r * 64 : x.k + (r - 4 * 200) * 64;
        rotated(row, 64, (double)(r % 200), 500, false, turned);
        for (int c = 0; c < 64; c++) {
            row[c] = (float)turned[c];
        }
    }
    heads_run(ctx, "", &x);
    for (int64_t i = 0; i < 4 * 200 * 64; i++) {
        worst = fmax(worst, fabs((double)out[i] - (double)x.out[i]));
    }
    CHECK(worst < 2e-5, "off by %g from plain attention", worst);
    free(out);
    heads_free(&x);
}

/* Queries of zeros and values that are unit vectors show the noise: weights are e^noise, and 1 where positions are whole. */
static void noise_holds(fv_context *ctx) {
    enum { N = 200, TRAINED = 120 };
    heads x = heads_make(6, 1, 1, N, N);
    memset(x.q, 0, N * N * sizeof(float));
    memset(x.v, 0, N * N * sizeof(float));
    for (int i = 0; i < N; i++) {
        x.v[i * N + i] = 1;
    }
    fv_gali g = {.h_q = 1,
                 .h_kv = 1,
                 .n = N,
                 .d_k = N,
                 .d_v = N,
                 .trained = TRAINED,
                 .local = 40,
                 .chunk = 100,
                 .rope_base = 1e4,
                 .noise = 1,
                 .seed = 7};
    CHECK(fv_gali_attention(ctx, &g, x.q, x.k, x.v, x.out, x.lse) == FV_OK, "%s", fv_message(ctx));
    double p[N], sum = 0, squares = 0, fourth = 0;
    int64_t count = 0;
    fv_gali_positions(ctx, TRAINED, 40, N, p);
    for (int i = TRAINED; i < N; i++) {
        for (int j = 0; j < i; j++) {
            double noise = log((double)x.out[i * N + j] / (double)x.out[i * N + i]);
            if (p[j] == floor(p[j])) {
                CHECK(fabs(noise) < 1e-4, "noise %g at row %d, key %d, whose position is whole", noise, i, j);
                continue;
            }
            double unit = noise / ((double)(i - j) / N);
            sum += unit;
            squares += unit * unit;
            fourth += unit * unit * unit * unit;
            count++;
        }
    }
    double n = (double)count;
    CHECK(count > 2000 && fabs(sum / n) < 4 / sqrt(n) && fabs(squares / n - 1) < 4 * sqrt(2 / n) && fabs(fourth / n - 3) < 0.8,
          "%lld draws: mean %g, square %g, fourth power %g", (long long)count, sum / n, squares / n, fourth / n);
    float first = x.out[(N - 1) * N + 1];
    CHECK(fv_gali_attention(ctx, &g, x.q, x.k, x.v, x.out, NULL) == FV_OK && first == x.out[(N - 1) * N + 1],
          "a seed gives other noise");
    g.seed = 8;
    CHECK(fv_gali_attention(ctx, &g, x.q, x.k, x.v, x.out, NULL) == FV_OK && first != x.out[(N - 1) * N + 1],
          "another seed gives the same noise");
    heads_free(&x);
}

static void positions_hold(fv_context *ctx) {
    static const int64_t made[][3] = {{64, 16, 100}, {64, 0, 65}, {96, 32, 700}, {128, 120, 300}, {128, 20, 128}};
    for (int k = 0; k < 5; k++) {
        char name[32];
        snprintf(name, sizeof name, "select/gali/%d", k);
        npy_array a = npy_golden(name);
        double *p = malloc((size_t)made[k][2] * sizeof *p), worst = 0;
        CHECK(fv_gali_positions(ctx, made[k][0], made[k][1], made[k][2], p) == FV_OK, "%s", fv_message(ctx));
        CHECK(a.rank == 1 && a.shape[0] == made[k][2], "%s has another shape", name);
        for (int64_t j = 0; a.data != NULL && j < made[k][2]; j++) {
            double want;
            memcpy(&want, a.data + j * 8, 8);
            worst = fmax(worst, fabs(want - p[j]));
        }
        CHECK(worst < 1e-5, "positions %d are off by %g", k, worst);
        free(p);
        free(a.data);
    }
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    positions_hold(ctx);
    formula_holds_everywhere(ctx);
    trained_is_plain(ctx);
    noise_holds(ctx);
    fv_gali bad = {.h_q = 1, .h_kv = 1, .n = 4, .d_k = 4, .d_v = 4, .trained = 8, .local = 8, .chunk = 1, .rope_base = 1e4};
    float none[16] = {0};
    CHECK(fv_gali_attention(ctx, &bad, none, none, none, none, NULL) == FV_ERR_ARGUMENT, "local as long as trained is taken");
    bad.local = 2;
    bad.d_k = 3;
    CHECK(fv_gali_attention(ctx, &bad, none, none, none, none, NULL) == FV_ERR_ARGUMENT, "an odd width is taken");
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
