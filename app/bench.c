/* bench.c - the machine's ceilings and each kernel's share of them: `fovea bench`. */
#include "bench.h"

#include "common.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

typedef struct arguments {
    cli_common common;
    cli_texts group;
    const char *glob;
    int64_t runs;
    bool list;
} arguments;

static int parse(arguments *a, int argc, char **argv) {
    cli_option options[] = {
        {"case", 0, "GLOB", "only the cases whose name fits, as in 'prefill/*/d128/*'", CLI_TEXT, &a->glob, 0, 0},
        {"runs", 0, "N", "runs of a case, of which the median is taken, after one to warm up", CLI_INT, &a->runs, 5,
         BENCH_RUNS_MAX},
        {"list", 0, NULL, "list the cases' names", CLI_FLAG, &a->list, 0, 0},
    };
    cli_page page = {
        .name = "bench",
        .usage = "[attention | decode | model] [options]",
        .text =
            "Measures what this machine can do at most with the given threads and kernels (f32 multiply-adds, bf16 and int8 dot\n"
            "products, reading memory), then how near each kernel comes.\n\n"
            "groups (all without one)\n"
            "  attention   causal prompts of 2,048 and 8,192 tokens; 4 n^2 d h / 2 FLOP, against multiply-adds or bf16 dot "
            "products\n"
            "  decode      one query over a cache of 4,096 and 65,536 entries; bytes of K and V, against reading memory\n"
            "              (a small cache stays in the CPU's, and may be faster than that)\n"
            "  model       prompts of 512 and 4,096 tokens, and generation, of a model",
        .examples = "  fovea bench\n"
                    "  fovea bench attention --case '*/bf16/h32x8/*' -t 1\n"
                    "  fovea bench decode --json\n"
                    "      a list of {\"case\", \"value\", \"unit\", \"ceiling\", \"ceiling_name\", \"fraction\", \"runs\"}\n",
        .operands = 1,
        .operand = &a->group,
        .takes = CLI_MODEL | CLI_JSON | CLI_MACHINE,
        .options = options,
        .n_options = CLI_COUNT(options),
    };
    int code = cli_parse(&page, &a->common, argc, argv);
    const char *g = a->group.n ? a->group.text[0] : NULL;
    if (code == CLI_GO && g && strcmp(g, "attention") != 0 && strcmp(g, "decode") != 0 && strcmp(g, "model") != 0) {
        return terminal_error(EXIT_USAGE, "no group \"%s\": must be attention, decode or model", g);
    }
    return code;
}

/* ---- printing: lines as they come, or one JSON list at the end ---- */

static int report(cJSON *list, const char *name, const bench_result *r, int runs) {
    double fraction = r->ceiling > 0 ? r->value / r->ceiling : 0;
    if (!list) {
        terminal_progress_clear();
        printf("%-44s %9.1f %-8s  %5.1f%% of %s\n", name, r->value, r->unit, 100 * fraction, r->ceiling_name);
        return terminal_flush();
    }
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "case", name);
    cJSON_AddNumberToObject(o, "value", r->value);
    cJSON_AddStringToObject(o, "unit", r->unit);
    cJSON_AddNumberToObject(o, "ceiling", r->ceiling);
    cJSON_AddStringToObject(o, "ceiling_name", r->ceiling_name);
    cJSON_AddNumberToObject(o, "fraction", fraction);
    cJSON_AddNumberToObject(o, "runs", runs);
    cJSON_AddItemToArray(list, o);
    return 0;
}

static int report_ceilings(cJSON *list, const bench_machine *m) {
    const fv_ceilings *c = &m->ceilings;
    const struct {
        const char *name, *unit;
        double value;
    } rows[] = {{"fma_f32", "GFLOP/s", c->fma_f32 / 1e9},
                {"dot_bf16", "GFLOP/s", c->dot_bf16 / 1e9},
                {"dot_int8", "Gop/s", c->dot_int8 / 1e9},
                {"read", "GB/s", c->read / 1e9},
                {"clock", "GHz", c->clock_hz / 1e9}};
    if (!list) {
        printf("ceilings of this machine, %d threads, level %s\n", fv_threads(m->ctx), fv_level_name(fv_context_level(m->ctx)));
    }
    for (int i = 0; i < CLI_COUNT(rows); i++) {
        char name[64];
        snprintf(name, sizeof name, "ceiling/%s", rows[i].name);
        bench_result r = {rows[i].value, rows[i].value, rows[i].unit, rows[i].name};
        if (list) {
            report(list, name, &r, 1);
        } else {
            printf("  %-10s %9.1f %s%s\n", rows[i].name, r.value, r.unit, r.value > 0 ? "" : " (this CPU or level has none)");
        }
    }
    if (!list) {
        putchar('\n');
    }
    return terminal_flush();
}

/* ---- the command ---- */

static int select_cases(const arguments *a, fv_level level, bench_case cases[BENCH_CASES_MAX]) {
    char name[96];
    int n = bench_cases(a->group.n ? a->group.text[0] : NULL, cases), kept = 0;
    for (int i = 0; i < n; i++) {
        bench_name(&cases[i], level, name);
        if (!a->glob || fnmatch(a->glob, name, 0) == 0) {
            cases[kept++] = cases[i];
        }
    }
    return kept;
}

static int run_cases(bench_machine *m, const bench_case *cases, int n, cJSON *list) {
    double total = 0, done = 0;
    fv_model *model = NULL;
    int code = 0;
    for (int i = 0; i < n; i++) {
        total += bench_cost(&cases[i]);
    }
    for (int i = 0; i < n && !code; i++) {
        const bench_case *c = &cases[i];
        char name[96];
        bench_result r;
        bool of_model = c->kind == BENCH_PROMPT || c->kind == BENCH_GENERATE;
        bench_name(c, fv_context_level(m->ctx), name);
        m->name = name;
        m->from = done / total;
        m->upto = (done + bench_cost(c)) / total;
        if (of_model && !model) {
            code = common_model(m->common, m->ctx, &model);
        }
        if (!code) {
            code = of_model ? bench_model(m, c, model, &r) : bench_attention(m, c, &r);
        }
        code = code ? code : report(list, name, &r, m->runs);
        done += bench_cost(c);
    }
    m->name = NULL;
    fv_model_destroy(model);
    return code;
}

static int measure(const arguments *a, fv_context *ctx) {
    bench_machine m = {.ctx = ctx, .runs = (int)a->runs, .common = &a->common};
    bench_case cases[BENCH_CASES_MAX];
    int n = select_cases(a, fv_context_level(ctx), cases);
    if (n == 0) {
        return terminal_error(EXIT_USAGE, "--case %s: fits no case, `fovea bench --list` names them", a->glob);
    }
    if (a->list) {
        for (int i = 0; i < n; i++) {
            char name[96];
            bench_name(&cases[i], fv_context_level(ctx), name);
            puts(name);
        }
        return terminal_flush();
    }
    terminal_progress(NULL, "ceilings", 0);
    fv_status status = fv_measure_ceilings(ctx, &m.ceilings);
    if (status) {
        return terminal_status(ctx, status);
    }
    cJSON *list = a->common.json ? cJSON_CreateArray() : NULL;
    int code = report_ceilings(list, &m);
    code = code ? code : run_cases(&m, cases, n, list);
    terminal_progress_end();
    if (!list) {
        return code;
    }
    if (code) {
        cJSON_Delete(list);
        return code;
    }
    return common_print_json(list);
}

int command_bench(int argc, char **argv) {
    arguments a = {.common = cli_common_default(), .runs = 5};
    int code = parse(&a, argc, argv);
    if (code != CLI_GO) {
        return code;
    }
    fv_context *ctx = NULL;
    code = common_open(&a.common, &ctx);
    code = code ? code : measure(&a, ctx);
    common_close(ctx);
    return code;
}
