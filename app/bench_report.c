/* bench_report.c - rows as lines while they come, or as one JSON list at the end. */
#include "bench.h"

#include "common.h"

#include <stdlib.h>
#include <string.h>

static int keep(bench_machine *m, const bench_row *row) {
    bench_row *told = realloc(m->told, (size_t)(m->n_told + 1) * sizeof *told);
    if (!told) {
        return terminal_error(EXIT_RUNTIME, "out of memory");
    }
    m->told = told;
    told[m->n_told++] = *row;
    return 0;
}

static double fraction_of(const bench_row *row) { return row->ceiling.value > 0 ? row->value.median / row->ceiling.value : 0; }

static void print_row(const bench_row *row) {
    double half = row->value.median > 0 ? 50 * (row->value.upper - row->value.lower) / row->value.median : 0;
    printf("%-60s %9.*f %-8s", row->name, row->value.median < 10 ? 3 : 1, row->value.median, row->unit);
    printf(row->runs > 1 ? " +-%4.1f%%" : "        ", half);
    if (row->ceiling.value > 0) {
        printf("  %5.1f%% of %s", 100 * fraction_of(row), row->ceiling.name);
    }
    for (int i = 0; i < BENCH_EXTRAS && row->extra[i].name; i++) {
        printf("  %s %.4g", row->extra[i].name, row->extra[i].value);
    }
    putchar('\n');
}

static void add_row(cJSON *list, const bench_row *row) {
    cJSON *o = cJSON_CreateObject(), *spread = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "case", row->name);
    cJSON_AddNumberToObject(o, "value", row->value.median);
    cJSON_AddStringToObject(o, "unit", row->unit);
    cJSON_AddNumberToObject(o, "ceiling", row->ceiling.value);
    cJSON_AddStringToObject(o, "ceiling_name", row->ceiling.name);
    cJSON_AddNumberToObject(o, "fraction", fraction_of(row));
    cJSON_AddNumberToObject(o, "runs", row->runs);
    cJSON_AddNumberToObject(spread, "min", row->value.least);
    cJSON_AddNumberToObject(spread, "q1", row->value.lower);
    cJSON_AddNumberToObject(spread, "q3", row->value.upper);
    cJSON_AddNumberToObject(spread, "max", row->value.most);
    cJSON_AddItemToObject(o, "spread", spread);
    for (int i = 0; i < BENCH_EXTRAS && row->extra[i].name; i++) {
        cJSON_AddNumberToObject(o, row->extra[i].name, row->extra[i].value);
    }
    cJSON_AddItemToArray(list, o);
}

int bench_tell(bench_machine *m, const bench_row *row) {
    int code = keep(m, row);
    if (code) {
        return code;
    }
    if (m->list) {
        add_row(m->list, row);
        return 0;
    }
    terminal_progress_clear();
    print_row(row);
    return terminal_flush();
}

int bench_tell_ceilings(bench_machine *m) {
    const fv_ceilings *c = &m->ceilings;
    const struct {
        const char *name, *unit, *what;
        double value;
    } rows[] = {{"fma", "GFLOP/s", "f32 multiply-adds", c->fma_f32 / 1e9},
                {"vdpbf16ps", "GFLOP/s", "products of bf16 pairs", c->dot_bf16 / 1e9},
                {"vpdpbusd", "Gop/s", "products of four bytes", c->dot_int8 / 1e9},
                {"tdpbf16ps", "GFLOP/s", "products of bf16 tiles", c->amx_bf16 / 1e9},
                {"read", "GB/s", "reading memory", c->read / 1e9},
                {"clock", "GHz", "", c->clock_hz / 1e9}};
    if (!m->list) {
        printf("ceilings of this machine, %d threads, level %s\n", fv_threads(m->ctx), fv_level_name(fv_context_level(m->ctx)));
    }
    for (int i = 0; i < CLI_COUNT(rows); i++) {
        double v = rows[i].value;
        if (m->list) {
            bench_row row = {.unit = rows[i].unit, .value = {v, v, v, v, v}, .ceiling = {rows[i].name, v}, .runs = 1};
            snprintf(row.name, sizeof row.name, "ceiling/%s", rows[i].name);
            add_row(m->list, &row);
        } else if (v > 0) {
            printf("  %-10s %9.*f %-8s %s\n", rows[i].name, v < 10 ? 2 : 1, v, rows[i].unit, rows[i].what);
        } else {
            printf("  %-10s         -          not on this CPU at this level\n", rows[i].name);
        }
    }
    if (!m->list) {
        putchar('\n');
    }
    return terminal_flush();
}
