/* compare.c - attention methods against dense attention on the user's model and text: `fovea compare`. */
#include "common.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct arguments {
    cli_common common;
    const char *file, *questions;
    cli_ints lengths;
    cli_texts recipes;
    int64_t rows;
} arguments;

/* Windows, which everybody knows, and five methods that look at queries and keys, at settings that keep the default model's
 * answers at 30,720 tokens. */
static const cli_texts default_recipes = {
    .text = {"prefill=window:size=1024,decode=window:size=1024", "prefill=window:size=4096,decode=window:size=4096",
             "sinks:sinks=64:size=1024", "prefill=xattention", "prefill=minference:vertical=500:slash=2000",
             "prefill=flexprefill", "prefill=spargeattn:sim=0.1:cdf=0.95", "prefill=hip:k=1536"},
    .n = 8,
};

static int parse(arguments *a, int argc, char **argv) {
    cli_option options[] = {
        {"file", 'f', "FILE", "text (default: Moby-Dick, which comes with Fovea)", CLI_TEXT, &a->file, 0, 0},
        {"attention", 'a', "RECIPE",
         "method to compare, may be repeated (default: windows, and five that look at queries and keys)", CLI_TEXTS, &a->recipes,
         0, 0},
        {"lengths", 0, "N,N...", "tokens of the documents", CLI_INTS, &a->lengths, 64, 1e18},
        {"questions", 0, "FILE", "hidden facts: a JSON list of {fact, question, answer, depth} (default: six of our own)",
         CLI_TEXT, &a->questions, 0, 0},
        {"rows", 0, "N", "positions at which next-token distributions are compared", CLI_INT, &a->rows, 1, 1e9},
    };
    cli_page page = {
        .name = "compare",
        .usage = "[-f FILE] [-a RECIPE]... [options]",
        .text =
            "What attention methods cost and what they lose, on your model and your text. For each length a document is made of\n"
            "the text's first tokens with facts hidden in it; dense attention and each recipe then run it as a prompt.\n\n"
            "columns\n"
            "  prompt s, tok/s    time of the prompt, and its speed\n"
            "  gen tok/s          generation speed at the document's end\n"
            "  KV                 bytes of keys and values kept at the end\n"
            "  KL                 KL(dense || method) of the next-token distributions, nats, mean over --rows positions of the\n"
            "                     document's second half\n"
            "  top-1              share of these positions where both have the same likeliest token\n"
            "  forced, greedy     hidden facts answered: as part of the prompt, each token of the answer the likeliest;\n"
            "                     and by greedy generation\n"
            "  density            visited pairs of queries and keys, as a share of what causal attention visits\n"
            "  attn x             how many times as fast as dense the prompt's attention is, choosing what to visit included\n"
            "  choice             share of that time spent on choosing\n"
            "  dense              share of the method's tiles, or with --max-error of its heads, that were run densely after all",
        .examples = "  fovea compare\n"
                    "  fovea compare -m model.gguf -f book.txt --lengths 4k,16k -a window:size=2048 -a sinks:sinks=64:size=1024\n"
                    "  fovea compare -f notes.txt --questions questions.json --json\n"
                    "      {\"model\", \"text\", \"rows\": [...], \"verdict\"}\n",
        .takes = CLI_MODEL | CLI_AUDIT | CLI_KV | CLI_JSON | CLI_MACHINE,
        .options = options,
        .n_options = CLI_COUNT(options),
    };
    return cli_parse(&page, &a->common, argc, argv);
}

/* ---- the table ---- */

/* "prefill=X,decode=X" reads better as "X". */
static const char *short_recipe(const char *recipe, char out[256]) {
    const char *comma = strstr(recipe, ",decode=");
    size_t n = comma ? (size_t)(comma - recipe) - strlen("prefill=") : 0;
    bool same = comma && strncmp(recipe, "prefill=", 8) == 0 && strncmp(recipe + 8, comma + 8, n) == 0 &&
                (comma[8 + n] == 0 || comma[8 + n] == ',');
    if (same) {
        snprintf(out, 256, "%.*s%s", (int)n, recipe + 8, comma + 8 + n);
    } else {
        snprintf(out, 256, "%s", recipe[0] ? recipe : "dense");
    }
    return out;
}

static void print_row(const fv_compare_row *r, const fv_compare_row *dense, int wide) {
    char name[256], bytes[32], forced[24], greedy[24];
    snprintf(forced, sizeof forced, "%d/%d", r->forced, r->facts);
    snprintf(greedy, sizeof greedy, "%d/%d", r->greedy, r->facts);
    printf("%8" PRId64 "  %-*s %8.2f %8.0f %6.2f %9.0f %9s%s %8.4f %6.1f%% %7s %7s %8.3f %6.0f%% %5.0f%%\n", r->length, wide,
           short_recipe(r->recipe, name), r->prompt_seconds, r->prompt_tokens_per_second,
           dense->attention_seconds / r->attention_seconds, r->step_tokens_per_second, common_bytes((double)r->kv_bytes, bytes),
           r->kv_masked_only ? "*" : " ", r->kl, 100 * r->top1, forced, greedy, r->density, 100 * r->select_share,
           100 * r->fallback);
}

static int print_table(const fv_compare *compare) {
    terminal_style s = terminal_styles(stdout);
    char name[256];
    int n = fv_compare_rows(compare), wide = 6;
    const fv_compare_row *dense = n > 0 ? fv_compare_row_at(compare, 0) : NULL; /* the first of its length */
    bool masked = false;
    for (int i = 0; i < n; i++) {
        const fv_compare_row *r = fv_compare_row_at(compare, i);
        int size = (int)strlen(short_recipe(r->recipe, name));
        wide = size > wide ? size : wide;
        masked = masked || r->kv_masked_only;
    }
    printf("%s%8s  %-*s %8s %8s %6s %9s %9s  %8s %7s %7s %7s %8s %7s %6s%s\n", s.bold, "tokens", wide, "method", "prompt s",
           "tok/s", "attn x", "gen tok/s", "KV", "KL", "top-1", "forced", "greedy", "density", "choice", "dense", s.reset);
    for (int i = 0; i < n; i++) {
        const fv_compare_row *r = fv_compare_row_at(compare, i);
        if (i && fv_compare_row_at(compare, i - 1)->length != r->length) {
            putchar('\n');
            dense = r;
        }
        print_row(r, dense, wide);
    }
    if (masked) {
        printf("%s* only masked: KV bytes equal dense's%s\n", s.dim, s.reset);
    }
    printf("\n%s\n", fv_compare_verdict(compare));
    return terminal_flush();
}

/* ---- JSON ---- */

static cJSON *row_json(const fv_compare_row *r) {
    cJSON *o = cJSON_CreateObject();
    cJSON_AddNumberToObject(o, "length", (double)r->length);
    cJSON_AddStringToObject(o, "recipe", r->recipe);
    cJSON_AddNumberToObject(o, "prompt_seconds", r->prompt_seconds);
    cJSON_AddNumberToObject(o, "prompt_tokens_per_second", r->prompt_tokens_per_second);
    cJSON_AddNumberToObject(o, "step_tokens_per_second", r->step_tokens_per_second);
    cJSON_AddNumberToObject(o, "kv_bytes", (double)r->kv_bytes);
    cJSON_AddBoolToObject(o, "kv_masked_only", r->kv_masked_only);
    cJSON_AddNumberToObject(o, "density", r->density);
    cJSON_AddNumberToObject(o, "attention_seconds", r->attention_seconds);
    cJSON_AddNumberToObject(o, "select_share", r->select_share);
    cJSON_AddNumberToObject(o, "fallback", r->fallback);
    cJSON_AddNumberToObject(o, "kl", r->kl);
    cJSON_AddNumberToObject(o, "kl_p99", r->kl_p99);
    cJSON_AddNumberToObject(o, "top1", r->top1);
    cJSON_AddNumberToObject(o, "positions", (double)r->rows);
    cJSON_AddNumberToObject(o, "facts", r->facts);
    cJSON_AddNumberToObject(o, "forced", r->forced);
    cJSON_AddNumberToObject(o, "greedy", r->greedy);
    return o;
}

static int print_json(const fv_compare *compare, const char *model, const char *text) {
    cJSON *json = cJSON_CreateObject();
    common_json_text(json, "model", model, strlen(model));
    common_json_text(json, "text", text, strlen(text));
    cJSON *rows = cJSON_AddArrayToObject(json, "rows");
    for (int i = 0; i < fv_compare_rows(compare); i++) {
        cJSON_AddItemToArray(rows, row_json(fv_compare_row_at(compare, i)));
    }
    const char *verdict = fv_compare_verdict(compare);
    common_json_text(json, "verdict", verdict, strlen(verdict));
    return common_print_json(json);
}

/* ---- the command ---- */

static int check(const arguments *a, fv_context *ctx, const fv_model *model) {
    int code = 0;
    for (int i = 0; i < a->recipes.n && !code; i++) {
        code = common_check_recipe(ctx, a->recipes.text[i]);
    }
    for (int i = 0; i < a->lengths.n && !code; i++) {
        code = common_check_room(&a->common, ctx, model, "--lengths", a->lengths.value[i], false);
    }
    return code;
}

static int compare_with(const arguments *a, fv_context *ctx, fv_model *model, const fv_facts *facts, const char *path,
                        const char *text, size_t size) {
    char model_path[4096];
    fv_compare_options options = fv_compare_options_default();
    options.text = text;
    options.size = size;
    options.lengths = a->lengths.value;
    options.n_lengths = a->lengths.n;
    options.recipes = a->recipes.text;
    options.n_recipes = a->recipes.n;
    options.facts = facts->fact;
    options.n_facts = facts->n;
    options.rows = a->rows;
    options.kv_dtype = a->common.kv;
    options.max_error = (float)a->common.max_error;
    options.progress = terminal_progress;
    fv_compare *compare = NULL;
    fv_status status = fv_compare_run(model, &options, &compare);
    terminal_progress_end();
    int code = status ? terminal_status(ctx, status) : 0;
    if (!code && a->common.json) {
        code = common_model_path(&a->common, model_path, sizeof model_path);
        code = code ? code : print_json(compare, model_path, path);
    } else if (!code) {
        code = print_table(compare);
    }
    fv_compare_destroy(compare);
    return code;
}

static int with_text(const arguments *a, fv_context *ctx, const char *path, const char *text, size_t size) {
    fv_model *model = NULL;
    fv_facts facts = fv_facts_builtin();
    bool own = false;
    int code = common_model(&a->common, ctx, &model);
    code = code ? code : check(a, ctx, model);
    if (!code && a->questions) {
        fv_status status = fv_facts_open(ctx, a->questions, &facts);
        code = status ? terminal_status(ctx, status) : 0;
        own = !code;
    }
    code = code ? code : compare_with(a, ctx, model, &facts, path, text, size);
    if (own) {
        fv_facts_destroy(ctx, &facts);
    }
    fv_model_destroy(model);
    return code;
}

int command_compare(int argc, char **argv) {
    fv_compare_options defaults = fv_compare_options_default();
    arguments a = {.common = cli_common_default(), .lengths = {{4096, 12288, 30720}, 3}, .rows = defaults.rows};
    int code = parse(&a, argc, argv);
    if (code != CLI_GO) {
        return code;
    }
    if (a.recipes.n == 0) {
        a.recipes = default_recipes;
    }
    char book[4096], *text = NULL;
    size_t size = 0;
    fv_context *ctx = NULL;
    code = a.file ? 0 : common_find("models/data/moby-dick.txt", "default text (give one with -f)", book, sizeof book);
    const char *path = a.file ? a.file : book;
    code = code || !a.questions ? code : common_readable("--questions", a.questions);
    code = code ? code : common_read(path, &text, &size);
    code = code ? code : common_open(&a.common, &ctx);
    code = code ? code : with_text(&a, ctx, path, text, size);
    common_close(ctx);
    free(text);
    return code;
}
