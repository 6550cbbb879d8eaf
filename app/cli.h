/* cli.h - the command line: one table row an option, from which parsing, checks, defaults and --help are made. */
#ifndef FOVEA_APP_CLI_H
#define FOVEA_APP_CLI_H

#include <fovea/fovea.h>

typedef enum cli_kind {
    CLI_FLAG,  /* bool */
    CLI_INT,   /* int64_t in least..most; k and m may follow: 4k is 4096 */
    CLI_SEED,  /* uint64_t */
    CLI_REAL,  /* double in least..most */
    CLI_TEXT,  /* const char * */
    CLI_TEXTS, /* cli_texts, may be repeated */
    CLI_INTS,  /* cli_ints: 4096,12288; each in least..most */
    CLI_DTYPE, /* fv_dtype: f32, f16 or bf16 */
    CLI_LEVEL  /* fv_level: c, avx2 or avx512 */
} cli_kind;

enum { CLI_LIST_MAX = 64 };
typedef struct cli_texts {
    const char *text[CLI_LIST_MAX];
    int n;
} cli_texts;
typedef struct cli_ints {
    int64_t value[CLI_LIST_MAX];
    int n;
} cli_ints;

typedef struct cli_option {
    const char *name;     /* without dashes */
    char letter;          /* 0: none */
    const char *argument; /* its name in --help; NULL for a flag */
    const char *help;     /* with the unit; the default is added from *value as it stands before parsing */
    cli_kind kind;
    void *value;
    double least, most; /* numbers only */
} cli_option;

/* What every command takes; a page says which of them make sense for it. */
typedef struct cli_common {
    const char *model, *recipe;
    int64_t threads;
    fv_level level;
    fv_dtype kv;
    double max_error;
    bool json, no_color, quiet, progress;
} cli_common;
enum { CLI_MODEL = 1, CLI_RECIPE = 2, CLI_KV = 4, CLI_JSON = 8, CLI_MACHINE = 16 /* threads, level */, CLI_AUDIT = 32 };

typedef struct cli_page {
    const char *name;     /* "run" */
    const char *usage;    /* what follows the name: "(-f FILE | -p TEXT) [options]" */
    const char *text;     /* paragraphs: what it does */
    const char *examples; /* lines */
    int operands;         /* most that are taken */
    unsigned takes;       /* CLI_MODEL | ... */
    cli_option *options;  /* the command's own */
    int n_options;
    cli_texts *operand; /* NULL if operands is 0 */
} cli_page;

cli_common cli_common_default(void);

/* Returns CLI_GO, or the exit code: 0 after --help, 2 after an error (which has been printed). */
enum { CLI_GO = -1 };
int cli_parse(const cli_page *page, cli_common *common, int argc, char **argv);

/* The candidate that `word` was probably meant to be; NULL if none is near. `next` yields candidates until NULL. */
const char *cli_nearest(const char *word, const char *(*next)(const void *user, int i), const void *user);

#define CLI_COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

#endif
