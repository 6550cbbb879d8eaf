/* bench_gna.c - generalized neighborhood attention: how much faster than dense it is, against what its forecast says beforehand
 * (Hassani et al., 2025, section 4). What the kinds of leaves cost on this machine is fitted first, on shapes that are no cases.
 */
#include "bench.h"

#include "common.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

typedef struct shape {
    const char *name;
    fv_gna gna;
} shape;

static const shape shapes[] = {
    {"line/window", {1, {4096}, {768}, {1}, {1}, {0}}},
    {"plane/window", {2, {64, 64}, {16, 16}, {1, 1}, {1, 1}, {0}}},
    {"plane/strided", {2, {64, 64}, {24, 24}, {4, 4}, {1, 1}, {0}}},
    {"plane/dilated", {2, {64, 64}, {12, 12}, {1, 1}, {2, 2}, {0}}},
    {"plane/blocked", {2, {64, 64}, {16, 16}, {16, 16}, {1, 1}, {0}}},
    {"volume/strided", {3, {16, 16, 16}, {4, 8, 12}, {1, 2, 4}, {1, 1, 1}, {0}}},
};

/* All kinds of leaves, each often enough to be told from the others. */
static const fv_gna fitted[] = {
    {1, {4096}, {512}, {512}, {1}, {0}},
    {1, {4096}, {2048}, {1024}, {1}, {0}},
    {1, {4096}, {128}, {1}, {1}, {0}},
    {2, {64, 64}, {32, 32}, {32, 32}, {1, 1}, {0}},
    {2, {64, 64}, {8, 8}, {8, 8}, {1, 1}, {0}},
    {2, {64, 64}, {48, 48}, {1, 1}, {1, 1}, {0}},
    {2, {64, 64}, {20, 20}, {1, 1}, {1, 1}, {0}},
    {2, {64, 64}, {32, 32}, {1, 1}, {1, 1}, {0}},
    {3, {16, 16, 16}, {8, 8, 8}, {1, 1, 1}, {1, 1, 1}, {0}},
};

static void recipe_of(const fv_gna *g, char *out, size_t size) {
    static const char *const length[] = {"width", "height", "depth"}, *const tail[] = {"", "_h", "_d"};
    int used = snprintf(out, size, "prefill=gna:fallback=0");
    for (int k = 0; k < g->axes; k++) {
        int a = g->axes - 1 - k;
        used += snprintf(out + used, size - (size_t)used, ":%s=%" PRId64 ":window%s=%" PRId64, length[k], g->size[a], tail[k],
                         g->window[a]);
        used += snprintf(out + used, size - (size_t)used, ":stride%s=%" PRId64 ":dilation%s=%" PRId64, tail[k], g->stride[a],
                         tail[k], g->dilation[a]);
    }
}

/* Times dense attention and gna in turn: m->runs ratios, sorted into a spread. */
static int time_ratio(bench_machine *m, const bench_case *c, const fv_gna *g, bench_spread *out) {
    char text[256];
    double seconds[2][BENCH_RUNS_MAX];
    bench_arena dense = {0}, sparse = {0};
    fv_recipe *recipe = NULL;
    recipe_of(g, text, sizeof text);
    fv_status status = fv_recipe_parse(m->ctx, text, &recipe);
    if (status) {
        return terminal_status(m->ctx, status);
    }
    fv_problem p = bench_problem(c, c->n, FV_PREFILL), q = p;
    p.causal = q.causal = false;
    q.recipe = recipe;
    int code = bench_arena_make(m, c, &p, &dense);
    code = code ? code : bench_arena_make(m, c, &q, &sparse);
    code = code ? code : bench_time(m, (bench_arena *const[]){&dense, &sparse}, (double *const[]){seconds[0], seconds[1]}, 2);
    for (int i = 0; i < m->runs && !code; i++) {
        seconds[0][i] /= seconds[1][i];
    }
    if (!code) {
        *out = bench_spread_of(seconds[0], m->runs);
    }
    bench_arena_free(&dense);
    bench_arena_free(&sparse);
    fv_recipe_destroy(recipe);
    return code;
}

/* ---- costs: least squares of the relative error ---- */

enum { COSTS = 5 };

/* Solves a x = b in place, (COSTS, COSTS + 1); false if it cannot be. */
static bool solve(double a[COSTS][COSTS + 1]) {
    for (int k = 0; k < COSTS; k++) {
        int pivot = k;
        for (int i = k + 1; i < COSTS; i++) {
            pivot = fabs(a[i][k]) > fabs(a[pivot][k]) ? i : pivot;
        }
        if (a[pivot][k] == 0) {
            return false;
        }
        for (int j = 0; j <= COSTS; j++) {
            double t = a[k][j];
            a[k][j] = a[pivot][j];
            a[pivot][j] = t;
        }
        for (int i = 0; i < COSTS; i++) {
            double f = i == k ? 0 : a[i][k] / a[k][k];
            for (int j = k; j <= COSTS; j++) {
                a[i][j] -= f * a[k][j];
            }
        }
    }
    return true;
}

static int fit(bench_machine *m, const bench_case *c) {
    double a[COSTS][COSTS + 1] = {{0}};
    int code = 0;
    for (int s = 0; s < CLI_COUNT(fitted) && !code; s++) {
        fv_gna_forecast f = {0};
        bench_spread ratio;
        code = time_ratio(m, c, &fitted[s], &ratio);
        fv_status status = code ? FV_OK : fv_gna_predict(m->ctx, &fitted[s], NULL, &f);
        code = status ? terminal_status(m->ctx, status) : code;
        double x[COSTS] = {(double)f.tiles, (double)f.whole_leaves, (double)f.masked_leaves, (double)f.column_leaves,
                           (double)f.looks};
        for (int i = 0; i < COSTS && !code; i++) {
            x[i] *= ratio.median / (double)f.dense_leaves;
        }
        for (int i = 0; i < COSTS && !code; i++) {
            for (int j = 0; j < COSTS; j++) {
                a[i][j] += x[i] * x[j];
            }
            a[i][COSTS] += x[i];
        }
    }
    if (!code && solve(a)) {
        m->gna_costs = (fv_gna_costs){a[0][COSTS] / a[0][0], a[1][COSTS] / a[1][1], a[2][COSTS] / a[2][2], a[3][COSTS] / a[3][3],
                                      a[4][COSTS] / a[4][4]};
        m->gna_fitted = true;
    }
    return code;
}

static int measure_gna(bench_machine *m, const bench_case *c) {
    const shape *s = &shapes[c->variant];
    int code = m->gna_fitted ? 0 : fit(m, c);
    fv_gna_forecast f = {0};
    fv_status status = code ? FV_OK : fv_gna_predict(m->ctx, &s->gna, m->gna_fitted ? &m->gna_costs : NULL, &f);
    bench_row row = {.unit = "x dense", .ceiling = {"predicted", f.speedup}, .runs = m->runs};
    row.extra[0].name = "tile_bound";
    row.extra[0].value = f.tile_bound;
    row.extra[1].name = "pair_bound";
    row.extra[1].value = f.pair_bound;
    code = status ? terminal_status(m->ctx, status) : code ? code : time_ratio(m, c, &s->gna, &row.value);
    snprintf(row.name, sizeof row.name, "%s", c->name);
    return code ? code : bench_tell(m, &row);
}

void bench_gna_add(fv_context *ctx, bench_list *list) {
    for (int i = 0; i < CLI_COUNT(shapes); i++) {
        bench_case c = {"gna", measure_gna, FV_BF16, 2, 2, 64, 4096, .variant = i, .cost = i == 0 ? 10 : 1};
        char text[BENCH_NAME];
        fv_problem p = bench_problem(&c, c.n, FV_PREFILL);
        snprintf(c.name, sizeof c.name, "gna/%s/%.60s/%s", shapes[i].name, bench_shape(&c, text), bench_kernel(ctx, &p, c.dtype));
        bench_list_add(list, &c);
    }
}
