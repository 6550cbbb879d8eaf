/* common.c - see common.h. */
#include "common.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- contexts ---- */

int common_open(const cli_common *common, fv_context **out) {
    fv_context_options options = {.threads = (int)common->threads, .level = common->level};
    fv_status status = fv_context_create(&options, out);
    if (status == FV_ERR_MEMORY) {
        return terminal_error(EXIT_RUNTIME, "out of memory");
    }
    if (status) {
        fv_context *plain = NULL;
        const char *best = fv_context_create(NULL, &plain) == FV_OK ? fv_level_name(fv_context_level(plain)) : "c";
        int code = terminal_error(EXIT_USAGE, "--level %s: this CPU has at most %s", fv_level_name(common->level), best);
        fv_context_destroy(plain);
        return code;
    }
    terminal_watch(*out);
    return 0;
}

void common_close(fv_context *ctx) {
    terminal_watch(NULL);
    fv_context_destroy(ctx);
}

/* ---- files ---- */

enum { TEXT_MOST = 1 << 30 }; /* capacity that is doubled once more */

int common_readable(const char *option, const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) {
        return terminal_error(EXIT_USAGE, "%s %s: %s", option, path, strerror(errno));
    }
    if (S_ISDIR(st.st_mode)) {
        return terminal_error(EXIT_USAGE, "%s %s: is a directory", option, path);
    }
    if (access(path, R_OK) != 0) {
        return terminal_error(EXIT_USAGE, "%s %s: %s", option, path, strerror(errno));
    }
    return 0;
}

int common_writable(const char *option, const char *path) {
    char folder[4096];
    struct stat st;
    if (snprintf(folder, sizeof folder, "%s", path) >= (int)sizeof folder || !path[0]) {
        return terminal_error(EXIT_USAGE, "%s: the path is empty or too long", option);
    }
    bool there = stat(path, &st) == 0;
    if (there && S_ISDIR(st.st_mode)) {
        return terminal_error(EXIT_USAGE, "%s %s: is a directory", option, path);
    }
    if (there && !S_ISREG(st.st_mode)) {
        return 0; /* a pipe or device takes what is written, or says why not */
    }
    char *slash = strrchr(folder, '/');
    if (slash) {
        slash[slash == folder] = 0;
    }
    if (access(slash ? folder : ".", W_OK | X_OK) != 0) {
        return terminal_error(EXIT_USAGE, "%s %s: cannot write there: %s", option, path, strerror(errno));
    }
    return 0;
}

/* Reads to the end by doubling: pipes have no size. Endless ones end at 2 GiB, before they take the machine's memory. */

static int read_stream(FILE *file, const char *path, char **text, size_t *size) {
    size_t capacity = 1 << 16, n = 0;
    char *data = malloc(capacity + 1);
    while (data) {
        n += fread(data + n, 1, capacity - n, file);
        if (n < capacity || terminal_interrupted()) {
            break;
        }
        char *larger = capacity < TEXT_MOST ? realloc(data, 2 * capacity + 1) : NULL;
        if (!larger) {
            free(data);
        }
        data = larger;
        capacity *= 2;
    }
    if (!data) {
        return terminal_error(EXIT_RUNTIME, "%s: is larger than 2 GiB, or than the memory left", path);
    }
    if (terminal_interrupted() || ferror(file)) {
        int code = terminal_interrupted() ? EXIT_INTERRUPTED : terminal_error(EXIT_RUNTIME, "%s: %s", path, strerror(errno));
        free(data);
        return code;
    }
    data[n] = 0;
    *text = data;
    *size = n;
    return 0;
}

int common_read(const char *path, char **text, size_t *size) {
    if (strcmp(path, "-") == 0) {
        return read_stream(stdin, "standard input", text, size);
    }
    int code = common_readable("-f", path);
    if (code) {
        return code;
    }
    FILE *file = fopen(path, "rb");
    if (!file) {
        return terminal_error(EXIT_USAGE, "-f %s: %s", path, strerror(errno));
    }
    code = read_stream(file, path, text, size);
    fclose(file);
    return code;
}

/* The folder above the program's own ("/a/build/fovea" -> "/a"); "" if the system does not tell. */
static void program_root(char *out, size_t size) {
    ssize_t n = readlink("/proc/self/exe", out, size - 1);
    out[n > 0 ? n : 0] = 0;
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(out, '/');
        if (slash) {
            *slash = 0;
        }
    }
}

int common_find(const char *name, const char *what, char *path, size_t size) {
    char root[4096], share[4096 + 16], looked[2048] = "";
    program_root(root, sizeof root);
    snprintf(share, sizeof share, "%s/share/fovea", root); /* installed, wherever it was moved since */
    const char *places[] = {".", root, share, FOVEA_SOURCE_DIR, FOVEA_DATA_DIR};
    for (int i = 0; i < CLI_COUNT(places); i++) {
        bool fits = snprintf(path, size, "%s%s%s", i ? places[i] : "", i ? "/" : "", name) < (int)size;
        if (fits && access(path, R_OK) == 0) {
            return 0;
        }
        size_t used = strlen(looked);
        snprintf(looked + used, sizeof looked - used, "%s%s", i ? ", " : "", i ? path : name);
    }
    return terminal_error(EXIT_USAGE, "no %s: looked for %s", what, looked);
}

/* ---- models ---- */

int common_model_path(const cli_common *common, char *path, size_t size) {
    const char *variable = getenv("FOVEA_MODEL");
    const char *given = common->model ? common->model : variable && variable[0] ? variable : NULL;
    if (!given) {
        return common_find("models/fovea-27m-32k-q8_0.gguf", "default model (give one with -m or $FOVEA_MODEL)", path, size);
    }
    if (snprintf(path, size, "%s", given) >= (int)size) {
        return terminal_error(EXIT_USAGE, "-m: the path is longer than %zu bytes", size - 1);
    }
    return common_readable(common->model ? "-m" : "$FOVEA_MODEL", path);
}

int common_model(const cli_common *common, fv_context *ctx, fv_model **out) {
    char path[4096];
    int code = common_model_path(common, path, sizeof path);
    if (code) {
        return code;
    }
    fv_status status = fv_model_open(ctx, path, NULL, out);
    return status ? terminal_status(ctx, status) : 0;
}

int common_check_recipe(fv_context *ctx, const char *recipe) {
    fv_recipe *parsed = NULL;
    fv_status status = fv_recipe_load(ctx, recipe, &parsed);
    fv_recipe_destroy(parsed);
    return status ? terminal_status(ctx, status) : 0;
}

/* Bytes that a cache of so many tokens takes under --kv and the recipe. */
static double cache_bytes(const cli_common *common, fv_context *ctx, const fv_model_facts *f, int64_t tokens) {
    fv_dtype kv = common->kv == FV_AUTO ? FV_BF16 : common->kv; /* f16 is as large */
    fv_cache_desc desc = {.layers = f->layers, .h_kv = f->h_kv, .d_k = f->d_k, .d_v = f->d_v, .k_dtype = kv, .v_dtype = kv};
    fv_recipe *recipe = NULL;
    if (fv_recipe_parse(ctx, common->recipe, &recipe) == FV_OK) {
        fv_recipe_kv(recipe, &desc);
    }
    fv_recipe_destroy(recipe);
    return (double)fv_cache_page_bytes(&desc, tokens);
}

int common_check_room(const cli_common *common, fv_context *ctx, const fv_model *model, const char *option, int64_t tokens,
                      bool beyond_trained) {
    fv_model_facts facts;
    fv_model_describe(model, &facts);
    if (tokens > facts.context && !beyond_trained) {
        return terminal_error(EXIT_USAGE, "%s: %" PRId64 " tokens are more than the model's trained %" PRId64 " tokens", option,
                              tokens, facts.context);
    }
    double need = (double)facts.file_bytes + (double)facts.extra_bytes + cache_bytes(common, ctx, &facts, tokens);
    if (facts.memory_total && need > (double)facts.memory_total) {
        char a[32], b[32];
        return terminal_error(EXIT_USAGE, "%s: the model with %" PRId64 " tokens needs %s, this machine has %s of memory", option,
                              tokens, common_bytes(need, a), common_bytes((double)facts.memory_total, b));
    }
    return 0;
}

/* ---- printing ---- */

int common_print_json(cJSON *json) {
    char *text = json ? cJSON_Print(json) : NULL;
    cJSON_Delete(json);
    if (!text) {
        return terminal_error(EXIT_RUNTIME, "out of memory");
    }
    puts(text);
    free(text);
    return terminal_flush();
}

/* The length of the UTF-8 character at s, 0 if there is none. */
static size_t utf8_length(const unsigned char *s, size_t left) {
    size_t n = s[0] < 0x80                    ? 1
               : s[0] >= 0xc2 && s[0] <= 0xdf ? 2
               : (s[0] & 0xf0) == 0xe0        ? 3
               : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4
                                              : 0;
    if (n == 0 || n > left) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool beyond = (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf4 && s[1] > 0x8f);
    return overlong || beyond ? 0 : n;
}

void common_json_text(cJSON *object, const char *name, const char *text, size_t size) {
    char *clean = malloc(3 * size + 1), *at = clean;
    if (!clean) {
        return;
    }
    for (size_t i = 0; i < size;) {
        size_t n = text[i] ? utf8_length((const unsigned char *)text + i, size - i) : 0;
        memcpy(at, n ? text + i : "\xef\xbf\xbd", n ? n : 3);
        at += n ? n : 3;
        i += n ? n : 1;
    }
    *at = 0;
    cJSON_AddStringToObject(object, name, clean);
    free(clean);
}

void common_print_clean(const char *text) {
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        bool c1 = c[0] == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f;
        if (*c == '\n') {
            fputs("\\n", stdout);
        } else if (*c < 0x20 || *c == 0x7f || c1) {
            printf("\\x%02x", *c);
        } else {
            putchar(*c);
        }
    }
}

const char *common_bytes(double bytes, char out[32]) {
    static const char *const units[] = {"bytes", "KB", "MB", "GB", "TB"};
    int u = 0;
    while (bytes >= 999.5 && u < 4) {
        bytes /= 1000;
        u++;
    }
    snprintf(out, 32, u && bytes < 99.95 ? "%.1f %s" : "%.0f %s", bytes, units[u]);
    return out;
}
