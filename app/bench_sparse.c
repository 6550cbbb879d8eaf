/* bench_sparse.c - what an index costs to execute: random blocks, columns, and lists of keys of each row at a density, beside
 * dense attention over the same tensors, run by run in turn. Lists: "shared", of which three quarters are the same for all rows,
 * and "rows", which share nothing. */
#include "bench.h"

#include "common.h"

#include <stdlib.h>
#include <string.h>

static const double densities[] = {0.05, 0.1, 0.2, 0.5};
static const char *const kinds[] = {"blocks", "columns", "shared", "rows"};
enum { BLOCKS, COLUMNS, SHARED, ROWS, KINDS };

static int make_recipe(const bench_machine *m, const bench_case *c, fv_recipe **out) {
    char text[100];
    const int kind = c->variant % KINDS;
    snprintf(text, sizeof text, "prefill=random:density=%g:columns=%d:shared=%g:fallback=0", densities[c->variant / KINDS],
             kind < SHARED ? kind : 2, kind == SHARED ? 0.75 : 0);
    fv_status status = fv_recipe_parse(m->ctx, text, out);
    return status ? terminal_status(m->ctx, status) : 0;
}

/* The time that the index may take: its density of dense, 15% more, and 2% of dense; of lists that share most keys, four times
 * the density of what they weigh. */
static double allowed(int kind, double density, double exact, double dense) {
    return kind == SHARED ? 4 * exact * dense : 1.15 * density * dense + 0.02 * dense;
}

/* Rows that share nothing: bytes of K and V that rows read, against reading one head's K and V. */
static int tell_read(bench_machine *m, const bench_case *c, double *dense, double *sparse, const fv_run_stats *stats) {
    const double bytes = (double)stats->exact_pairs * 2 * (double)fv_dtype_bytes(c->dtype, c->d);
    bench_spread all = bench_spread_of(dense, m->runs), own = bench_spread_of(sparse, m->runs);
    double ceiling = 0;
    if (m->ceilings.read > 0) {
        fv_status status = fv_measure_read(m->ctx, 2 * fv_dtype_bytes(c->dtype, c->n * c->d), &ceiling);
        if (status) {
            return terminal_status(m->ctx, status);
        }
    }
    bench_row row = {.unit = "GB/s",
                     .runs = m->runs,
                     .value = bench_rates(sparse, m->runs, bytes / 1e9),
                     .ceiling = {"read", ceiling / 1e9},
                     .extra = {{"exact", (double)stats->exact_pairs / (double)stats->eligible_pairs},
                               {"ms", 1e3 * own.median},
                               {"dense_ms", 1e3 * all.median},
                               {"select_ms", 1e3 * stats->select_seconds / fv_threads(m->ctx)}}};
    snprintf(row.name, sizeof row.name, "%s", c->name);
    return bench_tell(m, &row);
}

static int tell_time(bench_machine *m, const bench_case *c, double *dense, double *sparse, const fv_run_stats *stats) {
    double density = (double)stats->visited_pairs / (double)stats->eligible_pairs;
    double exact = (double)stats->exact_pairs / (double)stats->eligible_pairs;
    bench_spread all = bench_spread_of(dense, m->runs);
    bench_row row = {.unit = "ms",
                     .runs = m->runs,
                     .value = bench_spread_of(sparse, m->runs),
                     .extra = {{"density", density},
                               {"exact", exact},
                               {"dense_ms", 1e3 * all.median},
                               {"select_ms", 1e3 * stats->select_seconds / fv_threads(m->ctx)}}};
    row.ceiling = (bench_ceiling){"allowed", 1e3 * allowed(c->variant % KINDS, density, exact, all.median)};
    double *value[] = {&row.value.least, &row.value.lower, &row.value.median, &row.value.upper, &row.value.most};
    for (int i = 0; i < CLI_COUNT(value); i++) {
        *value[i] *= 1e3;
    }
    snprintf(row.name, sizeof row.name, "%s", c->name);
    return bench_tell(m, &row);
}

static int tell(bench_machine *m, const bench_case *c, double *dense, double *sparse, const fv_run_stats *stats) {
    return (c->variant % KINDS == ROWS ? tell_read : tell_time)(m, c, dense, sparse, stats);
}

static int measure_sparse(bench_machine *m, const bench_case *c) {
    bench_arena dense = {0}, sparse = {0};
    double seconds[2][BENCH_RUNS_MAX];
    fv_recipe *recipe = NULL;
    fv_run_stats stats = {0};
    fv_problem p = bench_problem(c, c->n, FV_PREFILL);
    int code = bench_arena_make(m, c, &p, &dense);
    code = code ? code : make_recipe(m, c, &recipe);
    if (!code) {
        p.recipe = recipe;
        sparse.run = dense.run;
        sparse.run.stats = &stats;
        code = bench_arena_plan(m, &p, &sparse);
    }
    bench_arena *const arenas[] = {&dense, &sparse};
    double *const times[] = {seconds[0], seconds[1]};
    code = code ? code : bench_time(m, arenas, times, 2);
    code = code ? code : tell(m, c, seconds[0], seconds[1], &stats);
    bench_arena_free(&sparse);
    bench_arena_free(&dense);
    fv_recipe_destroy(recipe);
    return code;
}

void bench_sparse_add(fv_context *ctx, bench_list *list) {
    static const int64_t lengths[] = {16384, 32768}, widths[] = {64, 128};
    for (int i = 0; i < CLI_COUNT(lengths) * CLI_COUNT(widths) * CLI_COUNT(densities) * KINDS; i++) {
        int64_t n = lengths[i / 32], d = widths[i / 16 % 2];
        bench_case c = {"sparse", measure_sparse, FV_BF16, 8, 2, d, n, .variant = i % 16};
        char shape[BENCH_NAME];
        fv_problem p = bench_problem(&c, n, FV_PREFILL);
        snprintf(c.name, sizeof c.name, "sparse/%.60s/%s%g/%s", bench_shape(&c, shape), kinds[c.variant % KINDS],
                 densities[c.variant / KINDS], bench_kernel(ctx, &p, c.dtype));
        c.cost = 10 * 4.0 * (double)n * (double)n * (double)d * 8 / 2 / 7e11;
        bench_list_add(list, &c);
    }
}
