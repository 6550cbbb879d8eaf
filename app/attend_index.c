/* attend_index.c - the index of `fovea attend --index FILE`: which keys each query tile visits, as JSON. */
#include "attend.h"

#include "common.h"

#include <fovea/experimental.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct writer {
    FILE *file;
    bool first;
} writer;

static bool visited(const fv_index_tile *t, int64_t key) { return t->key[key / 64] >> (key % 64) & 1; }

/* Half-open runs of keys that some row of the tile visits. */
static void write_keys(FILE *f, const fv_index_tile *t) {
    const char *between = "";
    fputs("\"keys\": [", f);
    for (int64_t from = 0; from < t->n_kv; from++) {
        if (!visited(t, from)) {
            continue;
        }
        int64_t to = from;
        while (to < t->n_kv && visited(t, to)) {
            to++;
        }
        fprintf(f, "%s[%" PRId64 ", %" PRId64 "]", between, from, to);
        between = ", ";
        from = to;
    }
    fputs("]", f);
}

static int write_tile(void *user, const fv_index_tile *t) {
    writer *w = user;
    fprintf(w->file, "%s\n  {\"sequence\": %" PRId64 ", \"head\": %" PRId64 ", \"rows\": [", w->first ? "" : ",", t->sequence,
            t->head);
    for (int64_t i = 0; i < t->n; i++) {
        if (t->row) {
            fprintf(w->file, "%s%d", i ? ", " : "", t->row[i]);
        } else if (i == 0) {
            fprintf(w->file, "%" PRId64 ", %" PRId64, t->first, t->first + t->n);
        }
    }
    fprintf(w->file, "], \"ordered\": %s, \"dense\": %s, \"entries\": %" PRId64 ", ", t->row ? "true" : "false",
            t->fell_back ? "true" : "false", t->entries);
    write_keys(w->file, t);
    fputs("}", w->file);
    w->first = false;
    return ferror(w->file);
}

int attend_write_index(const char *path, fv_context *ctx, const fv_recipe *recipe, fv_plan *plan, const fv_run *run) {
    FILE *file = fopen(path, "wb");
    if (!file) {
        return terminal_error(EXIT_RUNTIME, "%s cannot be written", path);
    }
    size_t bytes = fv_plan_workspace(plan);
    void *workspace = aligned_alloc(64, bytes / 64 * 64 + 64);
    writer w = {file, true};
    cJSON *name = cJSON_CreateString(fv_recipe_text(recipe));
    char *quoted = cJSON_PrintUnformatted(name);
    fprintf(file, "{\"recipe\": %s, \"tiles\": [", quoted ? quoted : "\"\"");
    cJSON_free(quoted);
    cJSON_Delete(name);
    fv_status status = workspace ? fv_plan_index(plan, run, workspace, bytes, write_tile, &w) : FV_ERR_MEMORY;
    fputs("\n]}\n", file);
    free(workspace);
    bool failed = ferror(file) != 0;
    failed = fclose(file) != 0 || failed;
    if (status) {
        return terminal_status(ctx, status);
    }
    return failed ? terminal_error(EXIT_RUNTIME, "%s could not be written whole", path) : 0;
}
