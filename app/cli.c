/* cli.c - parsing by table. Values are checked here, once, so that commands only see what can be right. */
#include "cli.h"

#include "help.h"
#include "terminal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

cli_common cli_common_default(void) { return (cli_common){.kv = FV_AUTO, .recipe = ""}; }

int cli_common_options(unsigned takes, cli_common *c, cli_option *out) {
    int n = 0;
    if (takes & CLI_MODEL) {
        out[n++] = (cli_option){"model",  'm',       "FILE", "GGUF model (default: $FOVEA_MODEL, else the default model)",
                                CLI_TEXT, &c->model, 0,      0};
    }
    if (takes & CLI_RECIPE) {
        out[n++] =
            (cli_option){"attention", 'a',        "RECIPE", "attention method, see `fovea methods`; none is dense attention",
                         CLI_TEXT,    &c->recipe, 0,        0};
    }
    if (takes & CLI_AUDIT) {
        out[n++] = (cli_option){"max-error",
                                0,
                                "E",
                                "heads of a prompt whose outputs differ by more than E from dense ones on rows that are checked, "
                                "relative to their size, are run densely (default: off)",
                                CLI_REAL,
                                &c->max_error,
                                0,
                                1e6};
    }
    if (takes & CLI_KV) {
        out[n++] = (cli_option){
            "kv",
            0,
            "DTYPE",
            "keys and values are kept as f32, f16, bf16, q8_0, q4_0; auto: bf16 if the CPU has bf16 products, else f16",
            CLI_DTYPE,
            &c->kv,
            0,
            0};
    }
    if (takes & CLI_MACHINE) {
        out[n++] = (cli_option){"threads", 't', "N", "threads (default: one per core)", CLI_INT, &c->threads, 1, 256};
        out[n++] = (cli_option){"level",   0,         "LEVEL", "kernels: c, avx2 or avx512 (default: the best this CPU has)",
                                CLI_LEVEL, &c->level, 0,       0};
    }
    if (takes & CLI_JSON) {
        out[n++] = (cli_option){"json", 0, NULL, "print JSON", CLI_FLAG, &c->json, 0, 0};
    }
    out[n++] =
        (cli_option){"progress", 0, NULL, "show progress on stderr even if it is no terminal", CLI_FLAG, &c->progress, 0, 0};
    out[n++] = (cli_option){"quiet", 0, NULL, "no progress, no notes", CLI_FLAG, &c->quiet, 0, 0};
    out[n++] = (cli_option){"no-color", 0, NULL, "no colour (also with NO_COLOR set)", CLI_FLAG, &c->no_color, 0, 0};
    return n;
}

/* ---- values ---- */

static int bad_range(const cli_option *o, const char *text) {
    if (o->most >= 1e15) {
        return terminal_error(EXIT_USAGE, "--%s %s: must be at least %.10g", o->name, text, o->least);
    }
    return terminal_error(EXIT_USAGE, "--%s %s: must be from %.10g to %.10g", o->name, text, o->least, o->most);
}

static int parse_int(const cli_option *o, const char *text, const char *stop, int64_t *out) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    int64_t unit = 1;
    if (end != text && (*end == 'k' || *end == 'm')) {
        unit = *end++ == 'k' ? 1024 : 1048576;
    }
    if (end == text || end != stop) {
        return terminal_error(EXIT_USAGE, "--%s %s: not a whole number", o->name, text);
    }
    long long scaled;
    if (errno == ERANGE || __builtin_mul_overflow(value, unit, &scaled) || (double)scaled < o->least ||
        (double)scaled > o->most) {
        return bad_range(o, text);
    }
    *out = scaled;
    return CLI_GO;
}

static int parse_ints(const cli_option *o, const char *text) {
    cli_ints *list = o->value;
    list->n = 0;
    for (const char *at = text;;) {
        const char *comma = strchr(at, ',');
        const char *stop = comma ? comma : at + strlen(at);
        if (list->n == CLI_LIST_MAX) {
            return terminal_error(EXIT_USAGE, "--%s %s: at most %d numbers", o->name, text, CLI_LIST_MAX);
        }
        int code = parse_int(o, at, stop, &list->value[list->n++]);
        if (code != CLI_GO || !comma) {
            return code;
        }
        at = comma + 1;
    }
}

static int parse_real(const cli_option *o, const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value)) {
        return terminal_error(EXIT_USAGE, "--%s %s: not a number", o->name, text);
    }
    if (value < o->least || value > o->most) {
        return bad_range(o, text);
    }
    *(double *)o->value = value;
    return CLI_GO;
}

static int parse_seed(const cli_option *o, const char *text) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end || errno || strchr(text, '-')) {
        return terminal_error(EXIT_USAGE, "--%s %s: not a whole number from 0 to 2^64 - 1", o->name, text);
    }
    *(uint64_t *)o->value = value;
    return CLI_GO;
}

static int parse_dtype(const cli_option *o, const char *text) {
    static const fv_dtype dtypes[] = {FV_AUTO, FV_F32, FV_F16, FV_BF16, FV_Q8_0, FV_Q4_0};
    for (int i = 0; i < CLI_COUNT(dtypes); i++) {
        if (strcmp(text, fv_dtype_name(dtypes[i])) == 0) {
            *(fv_dtype *)o->value = dtypes[i];
            return CLI_GO;
        }
    }
    return terminal_error(EXIT_USAGE, "--%s %s: must be auto, f32, f16, bf16, q8_0 or q4_0", o->name, text);
}

static int parse_level(const cli_option *o, const char *text) {
    for (int level = FV_LEVEL_C; level <= FV_LEVEL_AVX512; level++) {
        if (strcmp(text, fv_level_name((fv_level)level)) == 0) {
            *(fv_level *)o->value = (fv_level)level;
            return CLI_GO;
        }
    }
    return terminal_error(EXIT_USAGE, "--%s %s: must be c, avx2 or avx512", o->name, text);
}

static int parse_value(const cli_option *o, const char *text) {
    switch (o->kind) {
    case CLI_INT:
        return parse_int(o, text, text + strlen(text), o->value);
    case CLI_INTS:
        return parse_ints(o, text);
    case CLI_REAL:
        return parse_real(o, text);
    case CLI_SEED:
        return parse_seed(o, text);
    case CLI_DTYPE:
        return parse_dtype(o, text);
    case CLI_LEVEL:
        return parse_level(o, text);
    case CLI_TEXTS: {
        cli_texts *list = o->value;
        if (list->n == CLI_LIST_MAX) {
            return terminal_error(EXIT_USAGE, "--%s: at most %d of them", o->name, CLI_LIST_MAX);
        }
        list->text[list->n++] = text;
        return CLI_GO;
    }
    case CLI_TEXT:
        *(const char **)o->value = text;
        return CLI_GO;
    case CLI_FLAG:
        break;
    }
    *(bool *)o->value = true;
    return CLI_GO;
}

/* ---- names ---- */

/* Edits between two words (insert, delete, replace, swap of neighbours counted as two); words longer than the row give up. */
static int distance(const char *a, const char *b) {
    int row[64], n = (int)strlen(b);
    if (n >= CLI_COUNT(row) || strlen(a) >= 64) {
        return 99;
    }
    for (int j = 0; j <= n; j++) {
        row[j] = j;
    }
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int replace = diagonal + (a[i - 1] != b[j - 1]), edit = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);
            diagonal = row[j];
            row[j] = replace < edit ? replace : edit;
        }
    }
    return row[n];
}

const char *cli_nearest(const char *word, const char *(*next)(const void *user, int i), const void *user) {
    const char *best = NULL, *candidate;
    int least = 1 + (int)strlen(word) / 3;
    for (int i = 0; (candidate = next(user, i)); i++) {
        size_t n = strlen(word);
        int far = n >= 3 && strncmp(candidate, word, n) == 0 ? 1 : distance(word, candidate);
        if (far < least || (far == least && !best)) {
            least = far;
            best = candidate;
        }
    }
    return best;
}

typedef struct table {
    const cli_page *page;
    cli_option common[12];
    int n_common;
} table;

static const cli_option *option_at(const table *t, int i) {
    int own = t->page->n_options;
    return i < own ? &t->page->options[i] : i < own + t->n_common ? &t->common[i - own] : NULL;
}

static const char *option_name(const void *user, int i) {
    const cli_option *o = option_at(user, i);
    return o ? o->name : NULL;
}

static int unknown_option(const table *t, const char *name, size_t size) {
    char word[64];
    snprintf(word, sizeof word, "%.*s", (int)(size < 60 ? size : 60), name);
    const char *near = cli_nearest(word, option_name, t);
    if (near) {
        return terminal_error(EXIT_USAGE, "unknown option --%s: did you mean --%s?", word, near);
    }
    return terminal_error(EXIT_USAGE, "unknown option --%s: see `fovea %s --help`", word, t->page->name);
}

/* ---- the walk over argv ---- */

static const cli_option *find_option(const table *t, const char *word, bool is_long, size_t size) {
    const cli_option *o;
    for (int k = 0; (o = option_at(t, k)); k++) {
        bool named = strlen(o->name) == size && strncmp(o->name, word + 2, size) == 0;
        if (is_long ? named : o->letter == word[1]) {
            return o;
        }
    }
    return NULL;
}

/* `-f -n 5` has forgotten the file: an option's own name is taken as a value only after "=". */
static bool is_option(const table *t, const char *word) {
    bool is_long = word[0] == '-' && word[1] == '-';
    return word[0] == '-' && word[1] && (is_long || !word[2]) && find_option(t, word, is_long, is_long ? strlen(word + 2) : 1);
}

/* One option at argv[*i], its value in the same word or the next. */
static int take_option(const table *t, int argc, char **argv, int *i) {
    const char *word = argv[*i], *value = NULL;
    bool is_long = word[1] == '-';
    size_t size = is_long ? strcspn(word + 2, "=") : 1;
    const cli_option *o = find_option(t, word, is_long, size);
    if (!o) {
        return is_long ? unknown_option(t, word + 2, size)
                       : terminal_error(EXIT_USAGE, "unknown option -%c: see `fovea %s --help`", word[1], t->page->name);
    }
    const char *rest = word + (is_long ? 2 : 1) + size;
    if (*rest) {
        value = rest + (*rest == '=');
    }
    if (o->kind == CLI_FLAG) {
        return value ? terminal_error(EXIT_USAGE, "--%s takes no value", o->name) : parse_value(o, NULL);
    }
    if (!value && *i + 1 < argc && !is_option(t, argv[*i + 1])) {
        value = argv[++*i];
    }
    if (!value) {
        return terminal_error(EXIT_USAGE, "--%s needs a value: --%s=%s", o->name, o->name, o->argument);
    }
    return parse_value(o, value);
}

static bool wants_help(int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            return true;
        }
    }
    return false;
}

int cli_parse(const cli_page *page, cli_common *common, int argc, char **argv) {
    table t = {.page = page};
    t.n_common = cli_common_options(page->takes, common, t.common);
    if (wants_help(argc, argv)) {
        help_page(page, t.common, t.n_common);
        return EXIT_DONE;
    }
    bool only_operands = false;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (!only_operands && word[0] == '-' && word[1]) {
            if (strcmp(word, "--") == 0) {
                only_operands = true;
                continue;
            }
            int code = take_option(&t, argc, argv, &i);
            if (code != CLI_GO) {
                return code;
            }
        } else if (page->operands == 0 || page->operand->n == page->operands) {
            return terminal_error(EXIT_USAGE, "unexpected \"%s\": see `fovea %s --help`", word, page->name);
        } else {
            page->operand->text[page->operand->n++] = word;
        }
    }
    terminal_setup(common->no_color, common->quiet, common->progress);
    return CLI_GO;
}
