/* test_planes.c - faster-na in its fused and unfused form, and halonet with its relative positions and its strided queries, each
 * against the papers' formulas. */
#include "index_test.h"

/* ---- faster-na ------------------------------------------------------------------------------------------------------------ */

/* First axis first. */
typedef struct layout {
    int axes, size[3], window[3], dilation[3], causal[3];
} layout;

/* Of a class of n tokens, query q: the w nearest ones, window / 2 of them before it where there are as many. */
static bool nearest(int n, int w, int q, int k) {
    int before = q < w / 2 ? q : w / 2;
    if (q - before + w > n) {
        before = q - (n - w);
    }
    return k >= q - before && k < q - before + w;
}

static bool layout_sees(const void *arg, int64_t i, int64_t j) {
    const layout *l = arg;
    bool all = true;
    for (int a = l->axes - 1; a >= 0 && all; a--) {
        int q = (int)(i % l->size[a]), k = (int)(j % l->size[a]), d = l->dilation[a], rest = q % d;
        int n = (l->size[a] - 1 - rest) / d + 1;
        bool near = l->causal[a] ? k <= q && q - k < d * l->window[a] : nearest(n, l->window[a], q / d, k / d);
        all = k % d == rest && near;
        i /= l->size[a];
        j /= l->size[a];
    }
    return all;
}

static const char *recipe_of(const layout *l) {
    static const char *const size[] = {"width", "height", "depth"}, *const tail[] = {"", "_h", "_d"};
    static char text[300];
    int used = snprintf(text, sizeof text, "prefill=faster-na:fallback=0");
    for (int k = 0; k < l->axes; k++) {
        int a = l->axes - 1 - k;
        used += snprintf(text + used, sizeof text - (size_t)used, ":%s=%d:window%s=%d:dilation%s=%d:causal%s=%d", size[k],
                         l->size[a], tail[k], l->window[a], tail[k], l->dilation[a], tail[k], l->causal[a]);
    }
    return text;
}

/* The unfused form against the fused one's output, which is in x->out. */
static void unfused_holds(fv_context *ctx, const layout *l, heads *x) {
    fv_gna gna = {.axes = l->axes};
    for (int a = 0; a < l->axes; a++) {
        gna.size[a] = l->size[a];
        gna.window[a] = l->window[a];
        gna.stride[a] = 1;
        gna.dilation[a] = l->dilation[a];
        gna.causal[a] = l->causal[a];
    }
    int64_t n = x->h_q * x->n * x->d;
    float *mine = malloc((size_t)n * sizeof *mine), worst = 0;
    fv_tensor q = fv_tensor_view(x->q, FV_F32, 1, x->h_q, x->n, x->d), k = fv_tensor_view(x->k, FV_F32, 1, x->h_kv, x->n, x->d);
    fv_tensor v = fv_tensor_view(x->v, FV_F32, 1, x->h_kv, x->n, x->d), out = fv_tensor_view(mine, FV_F32, 1, x->h_q, x->n, x->d);
    CHECK(fv_na_unfused(ctx, &gna, &q, &k, &v, 0, &out) == FV_OK, "%s", fv_message(ctx));
    for (int64_t i = 0; i < n; i++) {
        worst = fmaxf(worst, fabsf(mine[i] - x->out[i]));
    }
    CHECK(worst < 2e-5f, "%s: the unfused form is off by %g", recipe_of(l), (double)worst);
    k.shape[2]--;
    CHECK(fv_na_unfused(ctx, &gna, &q, &k, &v, 0, &out) == FV_ERR_ARGUMENT, "a key less than tokens is taken");
    free(mine);
}

static void faster_na_holds(fv_context *ctx, const layout *l, int64_t d, int64_t h_kv) {
    int64_t n = 1, wrong = 0;
    for (int a = 0; a < l->axes; a++) {
        n *= l->size[a];
    }
    heads x = heads_make((uint64_t)n, 4, h_kv, n, d);
    selection s = select_all(ctx, recipe_of(l), &x, false);
    for (int64_t i = 0; i < 4 * n * n; i++) {
        wrong += s.at[i] != layout_sees(l, i / n % n, i % n);
    }
    CHECK(wrong == 0, "%s: %lld pairs are wrong", recipe_of(l), (long long)wrong);
    run_holds_if(ctx, recipe_of(l), &x, &s, n > 300 ? 37 : 1, false);
    unfused_holds(ctx, l, &x);
    free(s.at);
    heads_free(&x);
}

static void faster_na(fv_context *ctx) {
    static const layout shapes[] = {
        {1, {1}, {1}, {1}, {0}},
        {1, {63}, {7}, {1}, {0}},
        {1, {65}, {7}, {9}, {1}},
        {1, {700}, {129}, {2}, {0}},
        {2, {13, 17}, {7, 7}, {1, 1}, {0, 0}},
        {2, {14, 14}, {7, 3}, {2, 4}, {0, 0}},
        {2, {9, 80}, {3, 13}, {1, 1}, {1, 0}},
        {3, {5, 7, 9}, {3, 3, 5}, {1, 2, 1}, {0, 0, 0}},
        {3, {6, 5, 8}, {3, 5, 7}, {1, 1, 1}, {1, 0, 1}},
    };
    for (int i = 0; i < (int)(sizeof shapes / sizeof *shapes); i++) {
        faster_na_holds(ctx, &shapes[i], i % 2 ? 64 : 32, i % 3 ? 2 : 4);
    }
    heads x = heads_make(3, 4, 2, 480, 32);
    dense_holds_if(ctx, "prefill=faster-na:width=24:height=20:window=24:window_h=20:fallback=0", &x, false);
    double small = missing_mass(ctx, "prefill=faster-na:width=24:height=20:window=5:fallback=0", &x);
    double large = missing_mass(ctx, "prefill=faster-na:width=24:height=20:window=11:fallback=0", &x);
    CHECK(large > 0 && small > large, "missing mass %g in 5 x 5, %g in 11 x 11", small, large);
    heads_free(&x);
}

/* ---- halonet ----------------------------------------------------------------------------------------------------------------
 */

typedef struct plane {
    int height, width, block, halo, stride;
} plane;

/* Query number i, of those that are there, and key j. */
static bool plane_sees(const void *arg, int64_t i, int64_t j) {
    const plane *p = arg;
    int per_row = p->width / p->stride, y = (int)(i / per_row) * p->stride, x = (int)(i % per_row) * p->stride;
    int top = y - y % p->block - p->halo, left = x - x % p->block - p->halo, side = p->block + 2 * p->halo;
    int ky = (int)(j / p->width), kx = (int)(j % p->width);
    return ky >= top && ky < top + side && kx >= left && kx < left + side;
}

static const char *halo_recipe(const plane *p) {
    static char text[120];
    snprintf(text, sizeof text, "prefill=halonet:width=%d:height=%d:block=%d:halo=%d:stride=%d:fallback=0", p->width, p->height,
             p->block, p->halo, p->stride);
    return text;
}

/* q_i . (row[ky - y] + column[kx - x]): the term of the paper's relative positions, which the caller adds as a bias. */
static void relative_bias(const plane *p, const heads *x, int64_t n_q, const float *row, const float *column, float *out) {
    int reach = p->block + p->halo, per_row = p->width / p->stride;
    for (int64_t i = 0; i < x->h_q * n_q * x->n; i++) {
        int64_t head = i / x->n / n_q, query = i / x->n % n_q, key = i % x->n;
        int dy = (int)(key / p->width - query / per_row * p->stride), dx = (int)(key % p->width - query % per_row * p->stride);
        const float *q = x->q + (head * x->n + query) * x->d;
        out[i] = 0;
        for (int64_t c = 0; c < x->d && abs(dy) < reach && abs(dx) < reach; c++) {
            out[i] += q[c] * (row[(dy + reach) * x->d + c] + column[(dx + reach) * x->d + c]);
        }
    }
}

/* One row with its bias in double. */
static double biased_row(const plane *p, const heads *x, int64_t head, int64_t i, const float *bias, double *out) {
    double sum = 0, top = -INFINITY, score = 0;
    memset(out, 0, (size_t)x->d * sizeof *out);
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t j = 0; j < x->n; j++) {
            const float *q = x->q + (head * x->n + i) * x->d, *k = x->k + (head / (x->h_q / x->h_kv) * x->n + j) * x->d;
            const float *v = x->v + (head / (x->h_q / x->h_kv) * x->n + j) * x->d;
            if (!plane_sees(p, i, j)) {
                continue;
            }
            score = bias == NULL ? 0 : bias[j];
            for (int64_t c = 0; c < x->d; c++) {
                score += (double)q[c] * k[c] / sqrt((double)x->d);
            }
            top = pass == 0 ? fmax(top, score) : top;
            sum += pass == 0 ? 0 : exp(score - top);
            for (int64_t c = 0; c < x->d && pass == 1; c++) {
                out[c] += exp(score - top) * v[c];
            }
        }
    }
    for (int64_t c = 0; c < x->d; c++) {
        out[c] /= sum;
    }
    return top + log(sum);
}

static void halo_run_holds(fv_context *ctx, const plane *p, heads *x, int64_t n_q, const float *bias) {
    fv_recipe *recipe = NULL;
    fv_plan *plan = NULL;
    CHECK(fv_recipe_parse(ctx, halo_recipe(p), &recipe) == FV_OK, "%s", fv_message(ctx));
    fv_problem problem = fv_problem_default();
    problem.h_q = x->h_q;
    problem.h_kv = x->h_kv;
    problem.n_q = n_q;
    problem.n_kv = x->n;
    problem.d_k = problem.d_v = x->d;
    problem.recipe = recipe;
    problem.has_bias = bias != NULL;
    CHECK(fv_plan_create(ctx, &problem, &plan) == FV_OK, "%s", fv_message(ctx));
    size_t bytes = fv_plan_workspace(plan);
    void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
    fv_run run = part_run(x, 0, n_q, x->n);
    run.lse = x->lse; /* (h_q, n_q) */
    run.bias = fv_tensor_view(bias, FV_F32, 1, x->h_q, n_q, x->n);
    CHECK(fv_plan_run(plan, &run, workspace, bytes) == FV_OK, "%s", fv_message(ctx));
    double worst = 0, *out = malloc((size_t)x->d * sizeof *out);
    for (int64_t i = 0; i < x->h_q * n_q; i += 3) {
        double lse = biased_row(p, x, i / n_q, i % n_q, bias == NULL ? NULL : bias + i * x->n, out);
        worst = fmax(worst, fabs(lse - x->lse[i]));
        for (int64_t c = 0; c < x->d; c++) {
            worst = fmax(worst, fabs(out[c] - x->out[(i / n_q * x->n + i % n_q) * x->d + c]));
        }
    }
    CHECK(worst < 5e-5, "%s%s: off by %g", halo_recipe(p), bias ? " with relative positions" : "", worst);
    free(out);
    free(workspace);
    fv_plan_destroy(plan);
    fv_recipe_destroy(recipe);
}

static void halonet_holds(fv_context *ctx, const plane *p, int64_t d, int64_t h_kv) {
    int64_t n = p->height * p->width, n_q = n / p->stride / p->stride, wrong = 0;
    uint64_t seed = 7;
    heads x = heads_make((uint64_t)n, 4, h_kv, n, d);
    selection s = select_part(ctx, halo_recipe(p), &x, 0, n_q, n, false);
    for (int64_t i = 0; i < 4 * n_q * n; i++) {
        int64_t head = i / n / n_q, query = i / n % n_q, key = i % n;
        wrong += s.at[(head * n + n - n_q + query) * n + key] != plane_sees(p, query, key);
    }
    CHECK(wrong == 0, "%s: %lld pairs are wrong", halo_recipe(p), (long long)wrong);
    halo_run_holds(ctx, p, &x, n_q, NULL);
    int64_t rows = 2 * (p->block + p->halo);
    float *row = numbers(&seed, rows * d, 0.2f), *column = numbers(&seed, rows * d, 0.2f);
    float *bias = malloc((size_t)(4 * n_q * n) * sizeof *bias);
    relative_bias(p, &x, n_q, row, column, bias);
    halo_run_holds(ctx, p, &x, n_q, bias);
    free(bias);
    free(row);
    free(column);
    free(s.at);
    heads_free(&x);
}

static void check_refusal(fv_context *ctx, const char *recipe, int64_t n_q, int64_t n, bool causal, const char *part) {
    fv_recipe *r = NULL;
    fv_plan *plan = NULL;
    CHECK(fv_recipe_parse(ctx, recipe, &r) == FV_OK, "%s: %s", recipe, fv_message(ctx));
    fv_problem p = fv_problem_default();
    p.n_q = n_q;
    p.n_kv = n;
    p.d_k = p.d_v = 32;
    p.causal = causal;
    p.recipe = r;
    CHECK(fv_plan_create(ctx, &p, &plan) == FV_ERR_UNSUPPORTED && strstr(fv_message(ctx), part), "%s: '%s'", recipe,
          fv_message(ctx));
    fv_plan_destroy(plan);
    fv_recipe_destroy(r);
}

static void halonet(fv_context *ctx) {
    static const plane planes[] = {{8, 8, 8, 3, 1},    {16, 24, 8, 3, 1}, {12, 20, 4, 1, 1}, {14, 21, 7, 5, 1},
                                   {16, 16, 16, 2, 1}, {16, 24, 8, 3, 2}, {12, 12, 4, 2, 4}, {10, 70, 5, 2, 1}};
    for (int i = 0; i < (int)(sizeof planes / sizeof *planes); i++) {
        halonet_holds(ctx, &planes[i], i % 2 ? 64 : 32, i % 3 ? 2 : 4);
    }
    heads x = heads_make(3, 4, 2, 480, 32);
    dense_holds_if(ctx, "prefill=halonet:width=24:height=20:block=4:halo=20:fallback=0", &x, false);
    double small = missing_mass(ctx, "prefill=halonet:width=24:height=20:block=4:halo=1:fallback=0", &x);
    double large = missing_mass(ctx, "prefill=halonet:width=24:height=20:block=4:halo=4:fallback=0", &x);
    CHECK(large > 0 && small > large, "missing mass %g with a halo of 1, %g of 4", small, large);
    heads_free(&x);
    check_refusal(ctx, "prefill=halonet", 64, 64, false, "set width and height");
    check_refusal(ctx, "prefill=halonet:width=12:height=8", 96, 96, false, "must divide");
    check_refusal(ctx, "prefill=halonet:width=16:height=8:stride=2", 33, 128, false, "there are more");
    check_refusal(ctx, "prefill=halonet:width=16:height=8:stride=2", 32, 128, true, "causal");
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    faster_na(ctx);
    halonet(ctx);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
