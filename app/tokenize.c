/* tokenize.c - text to tokens: `fovea tokenize`. Needs a vocabulary only, so a GGUF without tensors will do. */
#include "common.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef struct arguments {
    cli_common common;
    cli_texts operand;
    const char *file;
    bool jsonl, bos, specials, count;
} arguments;

typedef struct tokenizer {
    const arguments *a;
    fv_context *ctx;
    fv_vocab *vocab;
    fv_tokens tokens;
} tokenizer;

static int check(const arguments *a) {
    if (a->jsonl && a->count) {
        return terminal_error(EXIT_USAGE, "--jsonl and --count do not go together");
    }
    if (a->file && a->operand.n) {
        return terminal_error(EXIT_USAGE, "give either %s or -f FILE, not both", a->jsonl ? "FILE" : "TEXT");
    }
    if (!a->jsonl && !a->file && !a->operand.n) {
        return terminal_error(EXIT_USAGE, "give a text: TEXT, -f FILE, or --jsonl for lines of {\"text\"}");
    }
    return CLI_GO;
}

static int parse(arguments *a, int argc, char **argv) {
    cli_option options[] = {
        {"file", 'f', "FILE", "text to tokenize, all its bytes; - is standard input", CLI_TEXT, &a->file, 0, 0},
        {"jsonl", 0, NULL, "lines of {\"text\"} in (FILE, else standard input), lines of {\"text\", \"ids\"} out", CLI_FLAG,
         &a->jsonl, 0, 0},
        {"bos", 0, NULL, "put BOS in front", CLI_FLAG, &a->bos, 0, 0},
        {"specials", 0, NULL, "text that spells a special token becomes that token", CLI_FLAG, &a->specials, 0, 0},
        {"count", 0, NULL, "print only the number of tokens", CLI_FLAG, &a->count, 0, 0},
    };
    cli_page page = {
        .name = "tokenize",
        .usage = "(TEXT | -f FILE | --jsonl [FILE]) [options]",
        .text =
            "Turns text into a model's tokens and prints each id with its piece. A piece is shown in quotes, bytes that are no\n"
            "printable text as \\n, \\t or \\xNN: a token may end inside a character.\n\n"
            "Only the tokenizer of the model file is read. No BOS is added, and what looks like a special token is plain text,\n"
            "unless asked for. Text is taken as it is: it is not normalised (qwen2 models were trained on NFC).",
        .examples = "  fovea tokenize \"Call me Ishmael.\"\n"
                    "  fovea tokenize -f book.txt --count\n"
                    "  fovea tokenize --specials --bos \"<|begin|>Hello\"\n"
                    "  echo '{\"text\": \"Call me Ishmael.\"}' | fovea tokenize -m vocabulary.gguf --jsonl\n"
                    "      {\"text\": \"Call me Ishmael.\", \"ids\": [...]}; a bad line ends it with its number, exit 2\n"
                    "  fovea tokenize --json \"Call me Ishmael.\"\n"
                    "      {\"count\", \"ids\", \"pieces\"}\n",
        .operands = 1,
        .operand = &a->operand,
        .takes = CLI_MODEL | CLI_JSON,
        .options = options,
        .n_options = CLI_COUNT(options),
    };
    int code = cli_parse(&page, &a->common, argc, argv);
    return code == CLI_GO ? check(a) : code;
}

/* The ids of a text into t->tokens, BOS first if asked. */
static int tokenize(tokenizer *t, const char *text, size_t size) {
    t->tokens.n = 0;
    fv_status status = fv_tokenize(t->ctx, t->vocab, text, size, t->a->specials, &t->tokens);
    return status ? terminal_status(t->ctx, status) : 0;
}

static int64_t count(const tokenizer *t) { return t->tokens.n + t->a->bos; }
static int32_t id_at(const tokenizer *t, int64_t i) {
    return !t->a->bos ? t->tokens.id[i] : i == 0 ? fv_vocab_bos(t->vocab) : t->tokens.id[i - 1];
}

/* False if memory ran out. */
static bool add_ids(const tokenizer *t, cJSON *object) {
    cJSON *ids = cJSON_AddArrayToObject(object, "ids");
    for (int64_t i = 0; ids && i < count(t); i++) {
        if (!cJSON_AddItemToArray(ids, cJSON_CreateNumber(id_at(t, i)))) {
            return false;
        }
    }
    return ids != NULL;
}

/* ---- lines of JSON ---- */

static int print_line(cJSON *json) {
    char *text = json ? cJSON_PrintUnformatted(json) : NULL;
    cJSON_Delete(json);
    if (!text) {
        return terminal_error(EXIT_RUNTIME, "out of memory");
    }
    puts(text);
    free(text);
    return 0;
}

/* Whether a string in the line has the escape for NUL: cJSON's strings end there. */
static bool has_nul(const char *line, size_t size) {
    bool found = strlen(line) < size;
    for (const char *at = line; !found && (at = strchr(at, '\\')) != NULL; at += 2) {
        found = strncmp(at, "\\u0000", 6) == 0;
        if (at[1] == '\0') {
            break;
        }
    }
    return found;
}

/* What cannot be a text; NULL if `json` is right. */
static const char *line_fault(const cJSON *json, const char *line, size_t size) {
    if (!json) {
        return "is no JSON";
    }
    if (!cJSON_IsObject(json) || !cJSON_IsString(cJSON_GetObjectItemCaseSensitive(json, "text"))) {
        return "has no \"text\" that is a string";
    }
    if (has_nul(line, size)) {
        return "has a NUL, which JSON lines cannot carry here: use -f FILE";
    }
    return NULL;
}

static int tokenize_line(tokenizer *t, const char *line, size_t size, long long number) {
    cJSON *json = cJSON_ParseWithOpts(line, NULL, true);
    const char *fault = line_fault(json, line, size);
    if (fault) {
        cJSON_Delete(json);
        return terminal_error(EXIT_USAGE, "line %lld %s: each should be {\"text\": \"...\"}", number, fault);
    }
    const char *text = cJSON_GetObjectItemCaseSensitive(json, "text")->valuestring;
    int code = tokenize(t, text, strlen(text));
    cJSON *out = code ? NULL : cJSON_CreateObject();
    if (out && (!cJSON_AddStringToObject(out, "text", text) || !add_ids(t, out))) {
        cJSON_Delete(out);
        out = NULL;
    }
    cJSON_Delete(json);
    return code ? code : print_line(out);
}

static int tokenize_lines(tokenizer *t, FILE *file, const char *name) {
    char *line = NULL;
    size_t capacity = 0;
    int code = 0;
    ssize_t n;
    errno = 0;
    for (long long number = 1; !code && (n = getline(&line, &capacity, file)) >= 0; number++) {
        bool blank = line[strspn(line, " \t\r\n")] == '\0' && strlen(line) == (size_t)n;
        code = blank ? 0 : tokenize_line(t, line, (size_t)n, number);
        code = !code && terminal_interrupted() ? EXIT_INTERRUPTED : code;
    }
    if (!code && !feof(file)) {
        code = terminal_interrupted() ? EXIT_INTERRUPTED : terminal_error(EXIT_RUNTIME, "%s: %s", name, strerror(errno));
    }
    free(line);
    int flushed = terminal_flush();
    return code ? code : flushed;
}

static int run_jsonl(tokenizer *t) {
    const char *path = t->a->operand.n ? t->a->operand.text[0] : t->a->file;
    if (!path || strcmp(path, "-") == 0) {
        return tokenize_lines(t, stdin, "standard input");
    }
    int code = common_readable(t->a->file ? "-f" : "--jsonl", path);
    if (code) {
        return code;
    }
    FILE *file = fopen(path, "rb");
    if (!file) {
        return terminal_error(EXIT_USAGE, "%s: %s", path, strerror(errno));
    }
    code = tokenize_lines(t, file, path);
    fclose(file);
    return code;
}

/* ---- one text ---- */

/* Bytes of the UTF-8 character at s that a terminal may show; 0: show the byte's number. */
static size_t printable(const unsigned char *s, size_t left) {
    if (s[0] < 0x80) {
        return s[0] >= 0x20 && s[0] != 0x7f;
    }
    size_t n = s[0] >= 0xc2 && s[0] <= 0xdf ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4 : 0;
    if (n == 0 || n > left || (s[0] == 0xc2 && s[1] < 0xa0) || (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f)) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return n;
}

static void print_piece(const char *piece, size_t size) {
    putchar('"');
    for (size_t at = 0, n; at < size; at += n) {
        const unsigned char *s = (const unsigned char *)piece + at;
        n = printable(s, size - at);
        if (*s == '\n' || *s == '\t' || *s == '\r') {
            printf("\\%c", *s == '\n' ? 'n' : *s == '\t' ? 't' : 'r');
        } else if (*s == '"' || *s == '\\') {
            printf("\\%c", *s);
        } else if (n == 0) {
            printf("\\x%02x", *s);
        } else {
            fwrite(s, 1, n, stdout);
        }
        n += n == 0;
    }
    puts("\"");
}

static int print_pieces(const tokenizer *t) {
    for (int64_t i = 0; i < count(t) && !terminal_interrupted(); i++) {
        size_t size;
        const char *piece = fv_vocab_piece(t->vocab, id_at(t, i), &size);
        printf("%7d  ", (int)id_at(t, i));
        print_piece(piece, size);
    }
    return terminal_interrupted() ? EXIT_INTERRUPTED : terminal_flush();
}

static int print_json(const tokenizer *t) {
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "count", (double)count(t));
    bool good = add_ids(t, json);
    cJSON *pieces = cJSON_AddArrayToObject(json, "pieces");
    for (int64_t i = 0; good && i < count(t); i++) {
        size_t size;
        const char *piece = fv_vocab_piece(t->vocab, id_at(t, i), &size);
        cJSON *row = cJSON_CreateObject();
        common_json_text(row, "piece", piece, size);
        good = cJSON_AddItemToArray(pieces, cJSON_DetachItemFromObject(row, "piece"));
        cJSON_Delete(row);
    }
    if (!good) {
        cJSON_Delete(json);
        json = NULL;
    }
    return common_print_json(json);
}

static int run_text(tokenizer *t) {
    char *data = NULL;
    const char *text = t->a->operand.n ? t->a->operand.text[0] : NULL;
    size_t size = text ? strlen(text) : 0;
    int code = text ? 0 : common_read(t->a->file, &data, &size);
    code = code ? code : tokenize(t, text ? text : data, size);
    free(data);
    if (code) {
        return code;
    }
    if (t->a->common.json) {
        return print_json(t);
    }
    if (t->a->count) {
        printf("%lld\n", (long long)count(t));
        return terminal_flush();
    }
    return print_pieces(t);
}

static int run(tokenizer *t) {
    char path[4096];
    int code = common_model_path(&t->a->common, path, sizeof path);
    if (code) {
        return code;
    }
    fv_status status = fv_vocab_open(t->ctx, path, &t->vocab);
    if (status) {
        return terminal_status(t->ctx, status);
    }
    if (t->a->bos && fv_vocab_bos(t->vocab) < 0) {
        return terminal_error(EXIT_USAGE, "--bos: this vocabulary has no BOS");
    }
    return t->a->jsonl ? run_jsonl(t) : run_text(t);
}

int command_tokenize(int argc, char **argv) {
    arguments a = {.common = cli_common_default()};
    int code = parse(&a, argc, argv);
    if (code != CLI_GO) {
        return code;
    }
    tokenizer t = {.a = &a};
    a.common.threads = 1;
    code = common_open(&a.common, &t.ctx);
    code = code ? code : run(&t);
    if (t.ctx) {
        fv_tokens_release(t.ctx, &t.tokens);
    }
    fv_vocab_destroy(t.vocab);
    common_close(t.ctx);
    return code;
}
