/* perplexity.c - how well the model predicts a text: `fovea perplexity`. */
#include "common.h"

#include <stdlib.h>

typedef struct arguments {
    cli_common common;
    const char *file;
    int64_t context, chunks;
    bool beyond_trained;
} arguments;

static int parse(arguments *a, int argc, char **argv) {
    cli_option options[] = {
        {"file", 'f', "FILE", "text to predict; - is standard input", CLI_TEXT, &a->file, 0, 0},
        {"ctx", 0, "N", "tokens of a window, at most the model's trained length (but see --beyond-trained)", CLI_INT, &a->context,
         2, 1e18},
        {"beyond-trained", 0, NULL, "allow windows of more tokens than the model was trained for", CLI_FLAG, &a->beyond_trained,
         0, 0},
        {"chunks", 0, "N", "windows to score, from the start of the text (default: all)", CLI_INT, &a->chunks, 1, 1e9},
    };
    cli_page page = {
        .name = "perplexity",
        .usage = "-f FILE [options]",
        .text = "How well the model predicts a text: exp of the mean negative log-likelihood of a token, lower is better.\n\n"
                "protocol\n"
                "  1. The text is tokenized whole.\n"
                "  2. It is cut into windows of --ctx tokens; what is left over at the end is not used.\n"
                "  3. In each of the first --chunks windows the first token is replaced by BOS, and the window is run as one "
                "prompt.\n"
                "  4. The tokens of the window's second half are scored, each given all tokens before it in the window.\n"
                "  5. The perplexity is over all scored tokens together.\n"
                "Figures of two models compare only if their vocabularies are the same.",
        .examples = "  fovea perplexity -f book.txt --ctx 4096 --chunks 4\n"
                    "  fovea perplexity -f book.txt -a window:size=1024 --json\n"
                    "      {\"perplexity\", \"nll\" (nats a token), \"scored\", \"windows\", \"seconds\"}\n",
        .takes = CLI_MODEL | CLI_RECIPE | CLI_AUDIT | CLI_KV | CLI_JSON | CLI_MACHINE,
        .options = options,
        .n_options = CLI_COUNT(options),
    };
    int code = cli_parse(&page, &a->common, argc, argv);
    if (code == CLI_GO && !a->file) {
        return terminal_error(EXIT_USAGE, "give a text: -f FILE");
    }
    return code;
}

static int print_result(const arguments *a, const fv_perplexity_result *r) {
    if (!a->common.json) {
        printf("perplexity %.4f  (nll %.5f nats, %lld tokens scored in %lld windows of %lld, %.1f s)\n", r->perplexity, r->nll,
               (long long)r->scored, (long long)r->windows, (long long)a->context, r->seconds);
        return terminal_flush();
    }
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "perplexity", r->perplexity);
    cJSON_AddNumberToObject(json, "nll", r->nll);
    cJSON_AddNumberToObject(json, "scored", (double)r->scored);
    cJSON_AddNumberToObject(json, "windows", (double)r->windows);
    cJSON_AddNumberToObject(json, "seconds", r->seconds);
    return common_print_json(json);
}

static int measure(const arguments *a, fv_context *ctx, const char *text, size_t size) {
    fv_model *model = NULL;
    int code = common_check_recipe(ctx, a->common.recipe);
    code = code ? code : common_model(&a->common, ctx, &model);
    code = code ? code : common_check_room(&a->common, ctx, model, "--ctx", a->context, a->beyond_trained);
    if (!code) {
        fv_perplexity_options options = fv_perplexity_options_default();
        options.text = text;
        options.size = size;
        options.context = a->context;
        options.beyond_trained = a->beyond_trained;
        options.windows = a->chunks;
        options.recipe = a->common.recipe;
        options.kv_dtype = a->common.kv;
        options.max_error = (float)a->common.max_error;
        options.progress = terminal_progress;
        fv_perplexity_result result;
        fv_status status = fv_perplexity(model, &options, &result);
        terminal_progress_end();
        code = status ? terminal_status(ctx, status) : print_result(a, &result);
    }
    fv_model_destroy(model);
    return code;
}

int command_perplexity(int argc, char **argv) {
    arguments a = {.common = cli_common_default(), .context = 4096};
    int code = parse(&a, argc, argv);
    if (code != CLI_GO) {
        return code;
    }
    char *text = NULL;
    size_t size = 0;
    fv_context *ctx = NULL;
    code = common_read(a.file, &text, &size);
    code = code ? code : common_open(&a.common, &ctx);
    code = code ? code : measure(&a, ctx, text, size);
    common_close(ctx);
    free(text);
    return code;
}
