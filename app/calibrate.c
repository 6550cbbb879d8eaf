/* calibrate.c - what a method finds offline, for a model and a text: `fovea calibrate`. */
#include "common.h"

#include <stdlib.h>
#include <string.h>

typedef struct arguments {
    cli_common common;
    const char *file, *out;
    int64_t tokens, prompts;
    double budget;
    cli_texts method;
} arguments;

static int parse(arguments *a, int argc, char **argv) {
    cli_option options[] = {
        {"file", 'f', "FILE", "text whose beginnings are looked at (default: Moby-Dick, which comes with Fovea)", CLI_TEXT,
         &a->file, 0, 0},
        {"out", 'o', "FILE", "where the profile goes", CLI_TEXT, &a->out, 0, 0},
        {"tokens", 'n', "N", "tokens of a prompt", CLI_INT, &a->tokens, 1, 1e9},
        {"prompts", 0, "N", "prompts, from all over the text", CLI_INT, &a->prompts, 1, 1e6},
        {"budget", 0, "SHARE",
         "of the causal pairs, or for moa of the last row's keys, that the method may visit (default: the method's own)",
         CLI_REAL, &a->budget, 0, 1},
    };
    cli_page page = {
        .name = "calibrate",
        .usage = "METHOD -o FILE [options]",
        .text =
            "Finds what a method wants to know beforehand about each layer and head of a model: MInference's patterns,\n"
            "Top-Theta's and SALE's thresholds, SpargeAttn's, DAM's columns and diagonals, DHSA's predictor of chunks, MoA's\n"
            "spans. Prompts from the text run densely while the method looks at their queries, keys and values; MoA runs them\n"
            "once for each head and span, to see what is lost. The result is a profile, a JSON file, which a recipe names:\n"
            "METHOD@FILE.\n"
            "METHOD may have parameters, as in a recipe.",
        .examples = "  fovea calibrate minference -n 16k --budget 0.2 -o minference.json\n"
                    "  fovea calibrate top-theta:k=256 -n 8k -o theta.json\n"
                    "  fovea calibrate dam -n 512 --prompts 8 -o dam.json\n"
                    "  fovea calibrate dhsa -n 8k -o dhsa.json\n"
                    "  fovea calibrate moa -n 4k --budget 0.5 -o moa.json\n"
                    "  fovea calibrate sale:error=0.2 -n 8k -o sale.json\n"
                    "  fovea calibrate spargeattn -n 8k -o sparge.json\n"
                    "  fovea compare -a prefill=minference@minference.json\n",
        .operands = 1,
        .operand = &a->method,
        .takes = CLI_MODEL | CLI_KV | CLI_MACHINE,
        .options = options,
        .n_options = CLI_COUNT(options),
    };
    int code = cli_parse(&page, &a->common, argc, argv);
    if (code == CLI_GO && a->method.n == 0) {
        return terminal_error(EXIT_USAGE, "name a method: minference, top-theta, dam, sale, spargeattn, dhsa or moa");
    }
    if (code == CLI_GO && !a->out) {
        return terminal_error(EXIT_USAGE, "say where the profile goes: -o FILE");
    }
    return code;
}

static int calibrate(const arguments *a, fv_context *ctx, const char *text, size_t size) {
    fv_model *model = NULL;
    char recipe[256];
    fv_profile *profile = NULL;
    snprintf(recipe, sizeof recipe, "prefill=%s", a->method.text[0]);
    int code = common_check_recipe(ctx, recipe);
    code = code ? code : common_model(&a->common, ctx, &model);
    code = code ? code : common_check_room(&a->common, ctx, model, "--tokens", a->tokens, false);
    if (!code) {
        fv_calibrate_options options = fv_calibrate_options_default();
        options.text = text;
        options.size = size;
        options.recipe = recipe;
        options.tokens = a->tokens;
        options.prompts = a->prompts;
        options.budget = a->budget;
        options.kv_dtype = a->common.kv;
        options.progress = terminal_progress;
        fv_status status = fv_calibrate(model, &options, &profile);
        terminal_progress_end();
        status = status ? status : fv_profile_write(ctx, profile, a->out);
        code = status ? terminal_status(ctx, status) : 0;
    }
    if (!code) {
        const char *method = a->method.text[0];
        const int name = (int)strcspn(method, ":"); /* parameters stand behind the path */
        terminal_note("%s: %d layers of %lld heads; use it as -a prefill=%.*s@%s%s", a->out, fv_profile_layers(profile),
                      (long long)fv_profile_heads(profile), name, method, a->out, method + name);
    }
    fv_profile_destroy(profile);
    fv_model_destroy(model);
    return code;
}

int command_calibrate(int argc, char **argv) {
    arguments a = {.common = cli_common_default(), .tokens = 4096, .prompts = 1};
    int code = parse(&a, argc, argv);
    if (code != CLI_GO) {
        return code;
    }
    char book[4096], *text = NULL;
    size_t size = 0;
    fv_context *ctx = NULL;
    code = a.file ? 0 : common_find("models/data/moby-dick.txt", "default text (give one with -f)", book, sizeof book);
    code = code ? code : common_writable("--out", a.out);
    code = code ? code : common_read(a.file ? a.file : book, &text, &size);
    code = code ? code : common_open(&a.common, &ctx);
    code = code ? code : calibrate(&a, ctx, text, size);
    common_close(ctx);
    free(text);
    return code;
}
