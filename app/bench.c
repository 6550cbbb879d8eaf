/* bench.c - the machine's ceilings and each kernel's share of them: `fovea bench`. */
#include "bench.h"

#include "common.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

typedef struct arguments {
    cli_common common;
    cli_texts group;
    const char *glob, *against;
    int64_t runs;
    bool list, no_ceilings;
} arguments;

static const char page_text[] =
    "Measures what this machine can do at most with the given threads and kernels (f32 multiply-adds, bf16 and int8 dot\n"
    "products, reading memory), then how near each kernel comes.\n\n"
    "groups (the first three without one)\n"
    "  attention   causal prompts, from the caller's tensors to the output; 4 n^2 d h / 2 FLOP, against the products of the\n"
    "              kernel that ran, whose name ends the case's\n"
    "  decode      one query over long K and V, and batches of eight sequences; bytes of K and V, against reading memory\n"
    "              (what stays in the CPU's caches may be faster than that)\n"
    "  model       prompts of 512 and 4,096 tokens, and generation, of a model; below each its stages and their sum\n"
    "  masks       mask patterns x lengths of the Long-Context Attention Benchmark (arXiv 2510.17896); FLOP of visible pairs.\n"
    "              The engine skips what full, causal, document and window masks hide. share_question, causal_blockwise,\n"
    "              prefix_lm_*, global_sliding_window and block_causal_document are an additive bias: it is read whole, and\n"
    "              blocks that it hides from all rows of a tile are skipped (to 8,192 positions). The paper's two\n"
    "              block-sparse patterns (blocks chosen at run time) are not among the cases: see sparse\n"
    "  passes      how often a query tile reads K and V, and the bytes of its state, as FuseMax counts (MICRO 2024)\n"
    "  sparse      prompts by an index of random blocks or columns, beside dense: time against 1.15 times its density of\n"
    "              dense's, and 2% of dense's; by lists of each row: of which three quarters are the same for all rows "
    "(shared),\n"
    "              time against 4 times their density of dense's; which share nothing (rows), bytes of K and V that rows read,\n"
    "              against reading as many bytes as a head's K and V over and over\n"
    "  gna         neighborhood attention in one to three dimensions over dense attention, and what its forecast predicts\n\n"
    "--against runs the same cases of two builds in turn, a process a run, and prints the ratio of their medians.";

static int parse(arguments *a, int argc, char **argv) {
    cli_option options[] = {
        {"case", 0, "GLOB", "only the cases whose name fits, as in 'prefill/*/d128/*'", CLI_TEXT, &a->glob, 0, 0},
        {"runs", 0, "N", "runs of a case, of which the median is taken, after one to warm up", CLI_INT, &a->runs, 1,
         BENCH_RUNS_MAX},
        {"against", 0, "PROGRAM", "compare with another build's fovea, run by run in turn", CLI_TEXT, &a->against, 0, 0},
        {"no-ceilings", 0, NULL, "do not measure the ceilings first; fractions are 0", CLI_FLAG, &a->no_ceilings, 0, 0},
        {"list", 0, NULL, "list the cases' names", CLI_FLAG, &a->list, 0, 0},
    };
    cli_page page = {
        .name = "bench",
        .usage = "[attention | decode | model | masks | passes | sparse | gna] [options]",
        .text = page_text,
        .examples = "  fovea bench\n"
                    "  fovea bench attention --case '*/bf16/h32x8/*' -t 1\n"
                    "  fovea bench attention --level avx2 --case 'prefill/f32/*/n4096/*'\n"
                    "  fovea bench masks --case '*/n4096/*'\n"
                    "  fovea bench decode --against ../before/build/fovea\n"
                    "  fovea bench decode --json\n"
                    "      a list of {\"case\", \"value\", \"unit\", \"ceiling\", \"ceiling_name\", \"fraction\", \"runs\", "
                    "\"spread\"}\n",
        .operands = 1,
        .operand = &a->group,
        .takes = CLI_MODEL | CLI_JSON | CLI_MACHINE,
        .options = options,
        .n_options = CLI_COUNT(options),
    };
    int code = cli_parse(&page, &a->common, argc, argv);
    if (code == CLI_GO && a->group.n && !bench_group_find(a->group.text[0])) {
        return terminal_error(EXIT_USAGE, "no group \"%s\": must be attention, decode, model, masks, passes, sparse or gna",
                              a->group.text[0]);
    }
    if (code == CLI_GO && a->against) {
        int missing = common_readable("--against", a->against);
        return missing ? missing : CLI_GO;
    }
    return code;
}

/* The cases that fit the glob: of the group, or else of those that are on by default, of all if there is a glob. */
static void select_cases(const arguments *a, fv_context *ctx, bench_list *list) {
    for (int i = 0; bench_group_at(i); i++) {
        const bench_group *g = bench_group_at(i);
        bool wanted = a->group.n ? strcmp(g->name, a->group.text[0]) == 0 : g->by_default || a->glob != NULL;
        if (wanted) {
            g->add(ctx, list);
        }
    }
    int kept = 0;
    for (int i = 0; i < list->n; i++) {
        if (!a->glob || fnmatch(a->glob, list->at[i].name, 0) == 0) {
            list->at[kept++] = list->at[i];
        }
    }
    list->n = kept;
}

static int run_cases(bench_machine *m, const bench_list *list) {
    double total = 0, done = 0;
    int code = 0;
    for (int i = 0; i < list->n; i++) {
        total += list->at[i].cost;
    }
    for (int i = 0; i < list->n && !code; i++) {
        const bench_case *c = &list->at[i];
        m->name = c->name;
        m->from = done / total;
        m->upto = (done + c->cost) / total;
        code = bench_progress(m, -1) ? EXIT_INTERRUPTED : c->measure(m, c);
        done += c->cost;
    }
    m->name = NULL;
    return code ? code : bench_tell_masks(m);
}

static int measure(const arguments *a, bench_machine *m, const bench_list *list) {
    if (!a->no_ceilings) {
        terminal_progress(NULL, "ceilings", 0);
        fv_status status = fv_measure_ceilings(m->ctx, &m->ceilings);
        if (status) {
            return terminal_status(m->ctx, status);
        }
    }
    int code = a->no_ceilings ? 0 : bench_tell_ceilings(m);
    return code ? code : run_cases(m, list);
}

static int run(const arguments *a, fv_context *ctx, const bench_list *list) {
    bench_machine m = {.ctx = ctx, .runs = (int)a->runs, .common = &a->common};
    m.list = a->common.json ? cJSON_CreateArray() : NULL;
    const char *level = a->common.level == FV_LEVEL_BEST ? NULL : fv_level_name(a->common.level);
    int code = a->against ? bench_compare(&m, list->at, list->n, a->against, level) : measure(a, &m, list);
    terminal_progress_end();
    fv_model_destroy(m.model);
    free(m.told);
    if (!a->common.json) {
        return code;
    }
    if (code) {
        cJSON_Delete(m.list);
        return code;
    }
    return common_print_json(m.list);
}

static int list_names(const bench_list *list) {
    for (int i = 0; i < list->n; i++) {
        puts(list->at[i].name);
    }
    return terminal_flush();
}

int command_bench(int argc, char **argv) {
    arguments a = {.common = cli_common_default(), .runs = 9};
    bench_list list = {0};
    int code = parse(&a, argc, argv);
    if (code != CLI_GO) {
        return code;
    }
    fv_context *ctx = NULL;
    code = common_open(&a.common, &ctx);
    if (!code) {
        select_cases(&a, ctx, &list);
    }
    if (!code && list.failed) {
        code = terminal_error(EXIT_RUNTIME, "out of memory");
    } else if (!code && list.n == 0) {
        code = terminal_error(EXIT_USAGE, "--case %s: fits no case, `fovea bench --list` names them", a.glob);
    } else if (!code) {
        code = a.list ? list_names(&list) : run(&a, ctx, &list);
    }
    free(list.at);
    common_close(ctx);
    return code;
}
