/* run.c - text from a prompt, a file or a conversation: `fovea run`. Only what was generated goes to stdout. */
#include "common.h"
#include "generate.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct arguments {
    cli_common common;
    const char *file, *prompt, *form, *save, *load;
    cli_texts stop;
    int64_t n, top_k, repeat_last;
    double temperature, top_p, min_p, repeat_penalty;
    uint64_t seed;
    bool chat, beyond_trained, stats;
} arguments;

enum { DEFAULT_N = 256 };

static int parse(arguments *a, int argc, char **argv) {
    cli_option options[] = {
        {"file", 'f', "FILE", "prompt: the file's bytes as they are; - is standard input", CLI_TEXT, &a->file, 0, 0},
        {"prompt", 'p', "TEXT", "prompt: the text as it is", CLI_TEXT, &a->prompt, 0, 0},
        {"predict", 'n', "N", "tokens to generate at most (default: 256, less where the context ends)", CLI_INT, &a->n, 0, 1e9},
        {"temp", 0, "T", "temperature; 0 takes the likeliest token (default 0)", CLI_REAL, &a->temperature, 0, 100},
        {"top-k", 0, "K", "sample among the K likeliest tokens (default: off)", CLI_INT, &a->top_k, 0, 1e9},
        {"top-p", 0, "P", "sample among the likeliest that hold a share P together; 1 is off", CLI_REAL, &a->top_p, 0, 1},
        {"min-p", 0, "P", "sample among those at least P times as likely as the likeliest (default: off)", CLI_REAL, &a->min_p, 0,
         1},
        {"repeat-penalty", 0, "X", "lowers logits of recent tokens; 1 is off", CLI_REAL, &a->repeat_penalty, 0.01, 100},
        {"repeat-last", 0, "N", "how many recent tokens", CLI_INT, &a->repeat_last, 0, 1e6},
        {"seed", 0, "N", "the same seed gives the same text (default 0)", CLI_SEED, &a->seed, 0, 0},
        {"stop", 0, "STRING", "end before this string; may be repeated", CLI_TEXTS, &a->stop, 0, 0},
        {"chat", 0, NULL, "wrap -p or -f in the model's prompt form", CLI_FLAG, &a->chat, 0, 0},
        {"form", 0, "FORM", "prompt form, plain or chatml (default: the model's); implies --chat", CLI_TEXT, &a->form, 0, 0},
        {"save", 0, "FILE", "save the session afterwards", CLI_TEXT, &a->save, 0, 0},
        {"load", 0, "FILE", "go on with a saved session", CLI_TEXT, &a->load, 0, 0},
        {"beyond-trained", 0, NULL, "allow more tokens than the model was trained for", CLI_FLAG, &a->beyond_trained, 0, 0},
        {"stats", 0, NULL, "tokens, speed and bytes on stderr at the end", CLI_FLAG, &a->stats, 0, 0},
    };
    cli_page page = {
        .name = "run",
        .usage = "[-f FILE | -p TEXT] [options]",
        .text =
            "Generates text. -f and -p take bytes as they are; BOS comes first if the model wants it. Only what was generated\n"
            "goes to stdout. Generation ends at an end token, a stop string or -n.\n\n"
            "Without -f and -p it is a conversation in the model's prompt form: a line is a turn, /new forgets, /quit or Ctrl-D\n"
            "ends.",
        .examples = "  fovea run -p \"Call me\" -n 20\n"
                    "  fovea run -f book.txt -n 10 --temp 0 -a prefill=window:size=4096 --stats\n"
                    "  fovea run -f book.txt -n 0 --save book.session\n"
                    "  fovea run --load book.session -p \" Question: Who is Ahab? Answer:\" --stop \".\"\n",
        .takes = CLI_MODEL | CLI_RECIPE | CLI_AUDIT | CLI_KV | CLI_MACHINE,
        .options = options,
        .n_options = CLI_COUNT(options),
    };
    return cli_parse(&page, &a->common, argc, argv);
}

static int check(arguments *a) {
    if (a->file && a->prompt) {
        return terminal_error(EXIT_USAGE, "give -f or -p, not both");
    }
    if (a->form && strcmp(a->form, "plain") != 0 && strcmp(a->form, "chatml") != 0) {
        return terminal_error(EXIT_USAGE, "--form %s: must be plain or chatml", a->form);
    }
    if (a->load && a->common.recipe[0]) {
        return terminal_error(EXIT_USAGE, "-a cannot be given with --load: a saved session brings its recipe");
    }
    for (int i = 0; i < a->stop.n; i++) {
        if (!a->stop.text[i][0]) {
            return terminal_error(EXIT_USAGE, "--stop: the string is empty");
        }
    }
    a->chat = a->chat || a->form;
    int code = a->load ? common_readable("--load", a->load) : 0;
    return code || !a->save ? code : common_writable("--save", a->save);
}

/* ---- one turn ---- */

/* The prompt's ids: in the model's form for a chat, as it is otherwise, with BOS in front of a session's first. */
static int encode(const arguments *a, fv_context *ctx, fv_model *model, int64_t position, bool chat, const char *text,
                  size_t size, fv_tokens *out) {
    fv_status status = fv_chat_turn(model, chat ? a->form : "plain", text, size, position == 0, out);
    return status ? terminal_status(ctx, status) : 0;
}

/* The id that has to stand between two turns and is missing, because the answer was cut off or its end token was not fed;
 * -1: none. */
static int32_t missing_end(const arguments *a, const fv_model *model, const fv_session *session) {
    const fv_vocab *vocab = fv_model_vocab(model);
    fv_model_facts facts;
    fv_model_describe(model, &facts);
    int64_t n = fv_session_position(session);
    bool chatml = strcmp(a->form ? a->form : facts.prompt_form, "chatml") == 0;
    return chatml && n > 0 && !fv_vocab_is_end(vocab, fv_session_tokens(session)[n - 1]) ? fv_vocab_eos(vocab) : -1;
}

/* Says before the work begins that prompt and answer do not fit. *room gets the session's most tokens. */
static int check_length(const arguments *a, fv_context *ctx, const fv_model *model, int64_t position, int64_t prompt,
                        int64_t *room) {
    fv_model_facts facts;
    fv_model_describe(model, &facts);
    int64_t n = a->n < 0 ? 0 : a->n, need = position + prompt + n;
    *room = a->beyond_trained && need + DEFAULT_N > facts.context ? need + DEFAULT_N : facts.context;
    if (position + prompt == 0) {
        return terminal_error(EXIT_USAGE, "the prompt is empty, and this model has no BOS to begin with");
    }
    if (need <= *room) {
        return common_check_room(&a->common, ctx, model, "prompt", need, a->beyond_trained);
    }
    if (position + prompt > *room) {
        return terminal_error(EXIT_USAGE,
                              "the prompt has %" PRId64 " tokens: more than the model's trained %" PRId64
                              " (--beyond-trained tries anyway)",
                              position + prompt, facts.context);
    }
    return terminal_error(EXIT_USAGE,
                          "-n %" PRId64 ": the prompt has %" PRId64 " tokens, and the model is trained for %" PRId64
                          " in all (--beyond-trained tries anyway)",
                          n, position + prompt, facts.context);
}

static int open_session(const arguments *a, fv_context *ctx, fv_model *model, int64_t room, fv_session **out) {
    fv_session_options options = fv_session_options_default();
    options.recipe = a->common.recipe;
    options.kv_dtype = a->common.kv;
    options.max_error = (float)a->common.max_error;
    options.context = room;
    options.beyond_trained = a->beyond_trained;
    fv_status status = fv_session_create(model, &options, out);
    return status ? terminal_status(ctx, status) : 0;
}

static fv_sampler_options sampling(const arguments *a) {
    fv_sampler_options s = fv_sampler_options_default();
    s.temperature = (float)a->temperature;
    s.top_k = (int)a->top_k;
    s.top_p = (float)a->top_p;
    s.min_p = (float)a->min_p;
    s.repeat_penalty = (float)a->repeat_penalty;
    s.repeat_last = (int)a->repeat_last;
    s.seed = a->seed;
    return s;
}

static int save(const arguments *a, generator *g) {
    fv_status status = a->save ? fv_session_save(g->session, a->save) : FV_OK;
    return status ? terminal_status(g->ctx, status) : 0;
}

/* -f or -p: one prompt, one answer. */
static int run_once(const arguments *a, fv_context *ctx, fv_model *model, fv_session *loaded, const char *text, size_t size) {
    fv_tokens prompt = {0};
    int64_t room = 0;
    fv_session *session = loaded;
    int code = encode(a, ctx, model, session ? fv_session_position(session) : 0, a->chat, text, size, &prompt);
    code = code ? code : check_length(a, ctx, model, session ? fv_session_position(session) : 0, prompt.n, &room);
    code = code || session ? code : open_session(a, ctx, model, room, &session);
    if (code) {
        fv_session_destroy(session);
        fv_tokens_release(ctx, &prompt);
        return code;
    }
    generator g;
    fv_sampler_options options = sampling(a);
    code = generator_open(&g, ctx, model, session, room, &options, &a->stop);
    code = code ? code : generator_read(&g, a->chat ? missing_end(a, model, session) : -1, &prompt);
    code = code ? code : generator_write(&g, a->n < 0 ? DEFAULT_N : a->n, a->chat, a->save != NULL);
    if (!code && a->n != 0 && isatty(STDOUT_FILENO)) {
        putchar('\n');
    }
    code = code ? code : save(a, &g);
    if (!code && a->stats) {
        generator_stats(&g);
    }
    generator_close(&g);
    fv_tokens_release(ctx, &prompt);
    return code;
}

/* ---- a conversation ---- */

static int turn(const arguments *a, fv_model *model, generator *g, const char *text, size_t size) {
    fv_tokens prompt = {0};
    int code = encode(a, g->ctx, model, fv_session_position(g->session), true, text, size, &prompt);
    if (!code && fv_session_position(g->session) + prompt.n > g->room) {
        terminal_error(0, "this turn has %" PRId64 " tokens and the context has room for %" PRId64 ": /new begins anew", prompt.n,
                       g->room - fv_session_position(g->session));
    } else if (!code) {
        code = generator_read(g, missing_end(a, model, g->session), &prompt);
        code = code ? code : generator_write(g, a->n < 0 ? DEFAULT_N : a->n, true, true);
        putchar('\n');
        code = code ? code : terminal_flush();
    }
    fv_tokens_release(g->ctx, &prompt);
    return code;
}

static int converse(const arguments *a, fv_model *model, generator *g) {
    bool keyboard = isatty(STDIN_FILENO);
    char *line = NULL;
    size_t capacity = 0;
    int code = 0;
    while (!code) {
        if (keyboard) {
            fputs("> ", stderr);
        }
        ssize_t n = getline(&line, &capacity, stdin);
        if (n < 0) {
            code = terminal_interrupted() ? EXIT_INTERRUPTED : 0;
            break;
        }
        n -= n && line[n - 1] == '\n';
        line[n] = 0;
        if (strcmp(line, "/quit") == 0) {
            break;
        }
        if (strcmp(line, "/new") == 0) {
            fv_status status = fv_session_rollback(g->session, 0);
            code = status ? terminal_status(g->ctx, status) : 0;
        } else if (n > 0) {
            code = turn(a, model, g, line, (size_t)n);
        }
    }
    if (keyboard) {
        fputc('\n', stderr);
    }
    free(line);
    return code;
}

static int run_conversation(const arguments *a, fv_context *ctx, fv_model *model, fv_session *session) {
    fv_model_facts facts;
    fv_model_describe(model, &facts);
    int code = session ? 0 : open_session(a, ctx, model, 0, &session);
    if (code) {
        return code;
    }
    generator g;
    fv_sampler_options options = sampling(a);
    code = generator_open(&g, ctx, model, session, facts.context, &options, &a->stop);
    code = code ? code : converse(a, model, &g);
    code = code ? code : save(a, &g);
    if (!code && a->stats) {
        generator_stats(&g);
    }
    generator_close(&g);
    return code;
}

static int with_model(const arguments *a, fv_context *ctx, fv_model *model, const char *text, size_t size) {
    fv_session *session = NULL;
    int code = common_check_recipe(ctx, a->common.recipe);
    if (!code && a->load) {
        fv_status status = fv_session_load(model, a->load, &session);
        code = status ? terminal_status(ctx, status) : 0;
    }
    if (code) {
        return code;
    }
    return text ? run_once(a, ctx, model, session, text, size) : run_conversation(a, ctx, model, session);
}

int command_run(int argc, char **argv) {
    fv_sampler_options s = fv_sampler_options_default();
    arguments a = {.common = cli_common_default(),
                   .n = -1,
                   .temperature = s.temperature,
                   .top_k = s.top_k,
                   .top_p = s.top_p,
                   .min_p = s.min_p,
                   .repeat_penalty = s.repeat_penalty,
                   .repeat_last = s.repeat_last,
                   .seed = s.seed};
    int code = parse(&a, argc, argv);
    if (code != CLI_GO) {
        return code;
    }
    char *text = NULL;
    size_t size = a.prompt ? strlen(a.prompt) : 0;
    fv_context *ctx = NULL;
    fv_model *model = NULL;
    code = check(&a);
    code = code || !a.file ? code : common_read(a.file, &text, &size);
    code = code ? code : common_open(&a.common, &ctx);
    code = code ? code : common_model(&a.common, ctx, &model);
    code = code ? code : with_model(&a, ctx, model, a.prompt ? a.prompt : text, size);
    fv_model_destroy(model);
    common_close(ctx);
    free(text);
    return code;
}
