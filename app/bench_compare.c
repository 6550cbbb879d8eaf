/* bench_compare.c - two builds, case by case and run by run in turn, so that a machine that slows down slows both. Each run is a
 * process of its own, `PROGRAM bench GROUP --case NAME --runs 1 --no-ceilings --json`, for this build as for the other. */
#include "bench.h"

#include "common.h"

#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct build {
    const char *path;
    double value[BENCH_RUNS_MAX];
} build;

/* Case names end with the kernel, which the other build may have another of. */
static void without_kernel(const char *name, char out[BENCH_NAME]) {
    snprintf(out, BENCH_NAME, "%s", name);
    char *slash = strrchr(out, '/');
    if (slash) {
        slash[1] = 0;
    }
}

static char *whole_file(FILE *file) {
    long size = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    char *text = size >= 0 ? malloc((size_t)size + 1) : NULL;
    rewind(file);
    if (text) {
        text[fread(text, 1, (size_t)size, file)] = 0;
    }
    return text;
}

/* Exit code of the program, -1 if it could not be started or was killed. */
static int spawn(char *const *argv, FILE *out, FILE *err) {
    posix_spawn_file_actions_t files;
    pid_t pid;
    int status = 0;
    if (posix_spawn_file_actions_init(&files) != 0) {
        return -1;
    }
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", 0, 0);
    posix_spawn_file_actions_adddup2(&files, fileno(out), 1);
    posix_spawn_file_actions_adddup2(&files, fileno(err), 2);
    int failed = posix_spawn(&pid, argv[0], &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    if (failed) {
        return -1;
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The value of the row whose name begins with `start`. */
static bool find_value(const char *text, const char *start, double *value) {
    cJSON *list = text ? cJSON_Parse(text) : NULL;
    const cJSON *row;
    bool found = false;
    cJSON_ArrayForEach(row, list) {
        const cJSON *name = cJSON_GetObjectItemCaseSensitive(row, "case"), *v = cJSON_GetObjectItemCaseSensitive(row, "value");
        if (!found && cJSON_IsString(name) && cJSON_IsNumber(v) && strncmp(name->valuestring, start, strlen(start)) == 0) {
            *value = v->valuedouble;
            found = *value > 0;
        }
    }
    cJSON_Delete(list);
    return found;
}

static int explain(const build *b, const char *name, int code, char *err) {
    if (terminal_interrupted()) {
        return EXIT_INTERRUPTED;
    }
    char *line_end = err ? strchr(err, '\n') : NULL;
    if (line_end) {
        *line_end = 0;
    }
    if (code < 0) {
        return terminal_error(EXIT_RUNTIME, "%s: could not be run, or was killed", b->path);
    }
    return terminal_error(EXIT_RUNTIME,
                          "%s gave no figure for %s (exit code %d%s%s): it must be a fovea whose bench has this case", b->path,
                          name, code, err && err[0] ? "; " : "", err ? err : "");
}

static int run_once(const bench_machine *m, build *b, const bench_case *c, const char *level, int run) {
    char start[BENCH_NAME], glob[BENCH_NAME + 1], threads[16];
    without_kernel(c->name, start);
    snprintf(glob, sizeof glob, "%s*", start);
    snprintf(threads, sizeof threads, "%d", fv_threads(m->ctx));
    const char *argv[20] = {b->path, "bench", c->group, "--case", glob, "--runs", "1", "--no-ceilings", "--json", "-t", threads};
    int n = 11;
    if (level) {
        argv[n++] = "--level";
        argv[n++] = level;
    }
    if (m->common->model) {
        argv[n++] = "--model";
        argv[n++] = m->common->model;
    }
    FILE *out = tmpfile(), *err = tmpfile();
    int code = out && err ? spawn((char *const *)argv, out, err) : -1;
    char *text = out ? whole_file(out) : NULL, *message = err ? whole_file(err) : NULL;
    bool found = code == 0 && find_value(text, start, &b->value[run]);
    code = found ? 0 : explain(b, glob, code, message);
    if (out) {
        fclose(out);
    }
    if (err) {
        fclose(err);
    }
    free(text);
    free(message);
    return code;
}

static int tell(const bench_machine *m, const bench_case *c, build pair[2]) {
    char name[BENCH_NAME];
    double ratios[BENCH_RUNS_MAX];
    for (int i = 0; i < m->runs; i++) {
        ratios[i] = pair[0].value[i] / pair[1].value[i];
    }
    bench_spread ratio = bench_spread_of(ratios, m->runs), ours = bench_spread_of(pair[0].value, m->runs),
                 other = bench_spread_of(pair[1].value, m->runs);
    without_kernel(c->name, name);
    name[strlen(name) - 1] = 0;
    if (!m->list) {
        terminal_progress_clear();
        printf("%-44s %9.*f %9.*f  %6.3f  [%.3f .. %.3f]\n", name, ours.median < 10 ? 3 : 1, ours.median,
               other.median < 10 ? 3 : 1, other.median, ours.median / other.median, ratio.lower, ratio.upper);
        return terminal_flush();
    }
    cJSON *o = cJSON_CreateObject(), *spread = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "case", name);
    cJSON_AddNumberToObject(o, "this", ours.median);
    cJSON_AddNumberToObject(o, "other", other.median);
    cJSON_AddNumberToObject(o, "ratio", ours.median / other.median);
    cJSON_AddNumberToObject(o, "runs", m->runs);
    cJSON_AddNumberToObject(spread, "min", ratio.least);
    cJSON_AddNumberToObject(spread, "q1", ratio.lower);
    cJSON_AddNumberToObject(spread, "q3", ratio.upper);
    cJSON_AddNumberToObject(spread, "max", ratio.most);
    cJSON_AddItemToObject(o, "spread", spread);
    cJSON_AddItemToArray(m->list, o);
    return 0;
}

static int compare_case(bench_machine *m, const bench_case *c, build pair[2], const char *level) {
    int code = 0;
    for (int run = 0; run < m->runs && !code; run++) {
        for (int turn = 0; turn < 2 && !code; turn++) { /* who begins changes with each run */
            code = bench_progress(m, run) ? EXIT_INTERRUPTED : run_once(m, &pair[(run + turn) % 2], c, level, run);
        }
    }
    return code ? code : tell(m, c, pair);
}

int bench_compare(bench_machine *m, const bench_case *cases, int n, const char *other, const char *level) {
    char self[4096];
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    if (size <= 0) {
        return terminal_error(EXIT_RUNTIME, "--against: this system does not tell where this program is (/proc/self/exe)");
    }
    self[size] = 0;
    build *pair = calloc(2, sizeof *pair);
    if (!pair) {
        return terminal_error(EXIT_RUNTIME, "out of memory");
    }
    pair[0].path = self;
    pair[1].path = other;
    double total = 0, done = 0;
    int code = 0;
    for (int i = 0; i < n; i++) {
        total += cases[i].cost;
    }
    if (!m->list) {
        printf("%-44s %9s %9s  %6s  quartiles of the runs' ratios\n", "", "this", "other", "ratio");
    }
    for (int i = 0; i < n && !code; i++) {
        m->name = cases[i].name;
        m->from = done / total;
        m->upto = (done += cases[i].cost) / total;
        code = compare_case(m, &cases[i], pair, level);
    }
    free(pair);
    return code;
}
