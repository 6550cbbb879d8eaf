/* attend.c - attention on arrays: `fovea attend`. Reads .npy files, runs one problem, writes .npy files. */
#include "attend.h"

#include "common.h"

#include <stdlib.h>
#include <string.h>

static int parse(attend_arguments *a, int argc, char **argv) {
    cli_option options[] = {
        {"q", 0, "FILE", "queries, (h_q, n_q, d_k) or (b, h_q, n_q, d_k)", CLI_TEXT, &a->q, 0, 0},
        {"k", 0, "FILE", "keys, (h_kv, n_kv, d_k); h_q is a multiple of h_kv", CLI_TEXT, &a->k, 0, 0},
        {"v", 0, "FILE", "values, (h_kv, n_kv, d_v)", CLI_TEXT, &a->v, 0, 0},
        {"out", 0, "FILE", "where the result goes, (h_q, n_q, d_v)", CLI_TEXT, &a->out, 0, 0},
        {"lse", 0, "FILE", "where the rows' log-sum-exp goes, f32 (h_q, n_q)", CLI_TEXT, &a->lse, 0, 0},
        {"index", 0, "FILE", "where the index goes: which keys each query tile visits, as JSON", CLI_TEXT, &a->index, 0, 0},
        {"causal", 0, NULL, "a query sees the keys up to its own position", CLI_FLAG, &a->causal, 0, 0},
        {"offset", 0, "N", "position of query 0 (default: n_kv - n_q, the last query sees the last key)", CLI_INT, &a->offset,
         -2147483647.0, 2147483647.0},
        {"window", 0, "N", "a query sees its position and the N - 1 before it (default: off)", CLI_INT, &a->window, 1,
         2147483647.0},
        {"sinks", 0, "N", "the first N keys stay visible beyond the window", CLI_INT, &a->sinks, 0, 2147483647.0},
        {"scale", 0, "X", "factor on q k (default: 1/sqrt(d_k))", CLI_REAL, &a->scale, -1e30, 1e30},
        {"soft-cap", 0, "C", "score = C tanh(score / C) (default: off)", CLI_REAL, &a->soft_cap, 0, 1e30},
        {"alibi", 0, NULL, "ALiBi with the paper's slopes: score -= slope[h] |distance|", CLI_FLAG, &a->alibi, 0, 0},
        {"alibi-slopes", 0, "FILE", "ALiBi with these slopes, f32 (h_q)", CLI_TEXT, &a->alibi_slopes, 0, 0},
        {"sink-logits", 0, "FILE", "a logit per head that joins each row's softmax, f32 (h_q)", CLI_TEXT, &a->sink_logits, 0, 0},
        {"bias", 0, "FILE", "added to the scores, f32 (h_q, n_q, n_kv); a length of 1 repeats, -inf hides", CLI_TEXT, &a->bias, 0,
         0},
        {"key-mask", 0, "FILE", "i32 (n_kv) or (b, n_kv), 0 hides the key", CLI_TEXT, &a->key_mask, 0, 0},
        {"kv-lengths", 0, "N,N...", "keys of each sequence; those past it are padding", CLI_INTS, &a->kv_lengths, 0, 1 << 30},
        {"shape", 0, "DxHxW", "tokens are those of a plane or a volume, row by row: for gna, faster-na and halonet", CLI_TEXT,
         &a->shape, 0, 0},
        {"steps", 0, "N", "the arrays' N sequences are the denoising steps of one: for sparsed", CLI_INT, &a->steps, 1, 1 << 20},
        {"dtype", 0, "DTYPE", "of the result: f32, f16 or bf16", CLI_DTYPE, &a->dtype, 0, 0},
        {"stats", 0, NULL, "pairs visited and eligible, as JSON on stdout", CLI_FLAG, &a->stats, 0, 0},
    };
    cli_page page = {
        .name = "attend",
        .usage = "--q FILE --k FILE --v FILE --out FILE [options]",
        .text = "Attention on NumPy arrays: softmax(q k^T scale + ...) v, with a log-sum-exp of each row if asked for.\n\n"
                "Arrays are C order; float32, float16, or bfloat16 as its bits in uint16. Query head h is served by KV head\n"
                "h / (h_q / h_kv). A row that sees no key gives zeros and -inf.",
        .examples =
            "  fovea attend --q q.npy --k k.npy --v v.npy --out out.npy --causal\n"
            "  fovea attend --q q.npy --k k.npy --v v.npy --out out.npy --lse lse.npy --causal --window 1024 --sinks 4\n"
            "  fovea attend --q q.npy --k k.npy --v v.npy --out out.npy --causal -a window:size=1024 --stats\n"
            "  fovea attend --q q.npy --k k.npy --v v.npy --out out.npy -a gna:window=7 --shape 56x56\n"
            "  fovea attend --q q.npy --k k.npy --v v.npy --out out.npy --causal -a prefill=flexprefill:gamma=0.95 --index "
            "i.json\n"
            "      {\"recipe\", \"tiles\": [{\"sequence\", \"head\", \"rows\": [from, to], \"ordered\": false, \"dense\", "
            "\"keys\": [[from, to], ...]}]}\n",
        .takes = CLI_RECIPE | CLI_AUDIT | CLI_MACHINE,
        .options = options,
        .n_options = CLI_COUNT(options),
    };
    int code = cli_parse(&page, &a->common, argc, argv);
    if (code == CLI_GO && !(a->q && a->k && a->v && a->out)) {
        return terminal_error(EXIT_USAGE, "give --q, --k, --v and --out");
    }
    if (code == CLI_GO && a->index && a->steps) {
        return terminal_error(EXIT_USAGE, "--index goes without --steps: a step's index depends on the steps before it");
    }
    if (code == CLI_GO && a->sinks && !a->window && a->common.recipe[0] == 0) {
        return terminal_error(EXIT_USAGE, "--sinks needs --window: without one every key is visible");
    }
    if (code == CLI_GO && a->steps && (a->bias || a->key_mask || a->kv_lengths.n)) {
        return terminal_error(EXIT_USAGE, "--steps does not go with --bias, --key-mask or --kv-lengths");
    }
    return code;
}

static int print_stats(const fv_run_stats *s) {
    cJSON *json = cJSON_CreateObject();
    double density = s->eligible_pairs ? (double)s->visited_pairs / (double)s->eligible_pairs : 1;
    cJSON_AddNumberToObject(json, "eligible_pairs", (double)s->eligible_pairs);
    cJSON_AddNumberToObject(json, "visited_pairs", (double)s->visited_pairs);
    cJSON_AddNumberToObject(json, "exact_pairs", (double)s->exact_pairs);
    cJSON_AddNumberToObject(json, "entry_pairs", (double)s->entry_pairs);
    cJSON_AddNumberToObject(json, "density", density);
    cJSON_AddNumberToObject(json, "k_rows", (double)s->k_rows);
    cJSON_AddNumberToObject(json, "v_rows", (double)s->v_rows);
    cJSON_AddNumberToObject(json, "tiles", (double)s->tiles);
    cJSON_AddNumberToObject(json, "fallback_tiles", (double)s->fallback_tiles);
    cJSON_AddNumberToObject(json, "select_seconds", s->select_seconds);
    cJSON_AddNumberToObject(json, "audited_heads", (double)s->audited_heads);
    cJSON_AddNumberToObject(json, "dense_heads", (double)s->dense_heads);
    cJSON_AddNumberToObject(json, "worst_error", s->worst_error);
    return common_print_json(json);
}

static void move_to_step(fv_tensor *t, int64_t step) {
    t->data = (char *)t->data + (size_t)(step * t->stride[0]) * fv_dtype_bytes(t->dtype, 1);
    t->shape[0] = 1;
}

static void add_stats(fv_run_stats *sum, const fv_run_stats *s) {
    sum->eligible_pairs += s->eligible_pairs;
    sum->visited_pairs += s->visited_pairs;
    sum->exact_pairs += s->exact_pairs;
    sum->entry_pairs += s->entry_pairs;
    sum->k_rows += s->k_rows;
    sum->v_rows += s->v_rows;
    sum->tiles += s->tiles;
    sum->fallback_tiles += s->fallback_tiles;
    sum->select_seconds += s->select_seconds;
    sum->audited_heads += s->audited_heads;
    sum->dense_heads += s->dense_heads;
    sum->worst_error = s->worst_error > sum->worst_error ? s->worst_error : sum->worst_error;
}

/* Each sequence of the arrays is a step. */
static fv_status run_steps(fv_plan *plan, const fv_run *all, int64_t steps, void *workspace, size_t bytes) {
    fv_status status = FV_OK;
    size_t state_bytes = fv_plan_state(plan);
    void *state = aligned_alloc(64, state_bytes / 64 * 64 + 64);
    for (int64_t i = 0; i < steps && !status; i++) {
        fv_run_stats stats = {0};
        fv_run run = *all;
        move_to_step(&run.q, i);
        move_to_step(&run.k, i);
        move_to_step(&run.v, i);
        move_to_step(&run.out, i);
        run.lse = all->lse ? all->lse + i * all->q.shape[1] * all->q.shape[2] : NULL;
        run.step = i;
        run.state = state;
        run.state_bytes = state_bytes;
        run.stats = &stats;
        status = state ? fv_plan_run(plan, &run, workspace, bytes) : FV_ERR_MEMORY;
        if (all->stats) {
            add_stats(all->stats, &stats);
        }
    }
    free(state);
    return status;
}

static fv_status run_plan(fv_plan *plan, const fv_run *run, int64_t steps) {
    size_t bytes = fv_plan_workspace(plan);
    void *workspace = aligned_alloc(64, bytes / 64 * 64 + 64);
    fv_status status = FV_ERR_MEMORY;
    if (workspace) {
        status = steps ? run_steps(plan, run, steps, workspace, bytes) : fv_plan_run(plan, run, workspace, bytes);
    }
    free(workspace);
    return status;
}

/* The problem of one step. */
static int take_steps(const attend_arguments *a, fv_problem *problem) {
    if (a->steps && problem->b != a->steps) {
        return terminal_error(EXIT_USAGE, "--steps %lld: the arrays have %lld sequences, one a step is needed",
                              (long long)a->steps, (long long)problem->b);
    }
    problem->b = a->steps ? 1 : problem->b;
    return 0;
}

static int attend(const attend_arguments *a, fv_context *ctx) {
    attend_arrays arrays = {.mask = NULL};
    char text[ATTEND_RECIPE];
    fv_problem problem = fv_problem_default();
    fv_run_stats stats = {0};
    fv_run run = {.stats = a->stats ? &stats : NULL};
    fv_recipe *recipe = NULL;
    fv_plan *plan = NULL;
    int code = common_writable("--out", a->out);
    code = code || !a->lse ? code : common_writable("--lse", a->lse);
    code = code || !a->index ? code : common_writable("--index", a->index);
    code = code ? code : attend_recipe(a, text);
    code = code ? code : attend_read(a, &arrays, &problem, &run);
    fv_problem one = problem;
    code = code ? code : take_steps(a, &one);
    fv_status status = code ? FV_OK : fv_recipe_load(ctx, text, &recipe);
    one.recipe = recipe;
    one.max_error = (float)a->common.max_error;
    status = code || status ? status : fv_plan_create(ctx, &one, &plan);
    code = status ? terminal_status(ctx, status) : code;
    if (!code && !a->steps && fv_plan_state(plan) > 0) {
        code = terminal_error(EXIT_USAGE, "%s works over several steps: give --steps", fv_recipe_text(recipe));
    }
    code = code ? code : attend_results(a, &arrays, &problem, &run);
    if (!code) {
        status = run_plan(plan, &run, a->steps);
        code = status ? terminal_status(ctx, status) : attend_write(a, &arrays);
    }
    code = code || !a->index ? code : attend_write_index(a->index, ctx, recipe, plan, &run);
    code = code || !a->stats ? code : print_stats(&stats);
    fv_plan_destroy(plan);
    fv_recipe_destroy(recipe);
    attend_release(&arrays);
    return code;
}

int command_attend(int argc, char **argv) {
    attend_arguments a = {.common = cli_common_default(), .offset = ATTEND_NO_OFFSET};
    int code = parse(&a, argc, argv);
    if (code != CLI_GO) {
        return code;
    }
    fv_context *ctx = NULL;
    code = common_open(&a.common, &ctx);
    code = code ? code : attend(&a, ctx);
    common_close(ctx);
    return code;
}
