/* facts.c - questions files: a JSON array of {"fact", "question", "answer", "depth"}.
 *
 * cJSON reads the values but forgets where they stood; once a file is known to be JSON, a small scan finds the line again for
 * a message.
 */
#include "lab/lab.h"

#include <cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { MOST_BYTES = 1 << 24, MOST_FACTS = 10000 };

typedef struct source {
    fv_context *ctx;
    const char *path;
    void *text;
    int64_t capacity, size;
} source;

/* ---- the file ---- */

static fv_status read_all(source *s) {
    FILE *file = fopen(s->path, "rb");
    if (file == NULL) {
        return fvi_fail(s->ctx, FV_ERR_IO, "%s: %s", s->path, strerror(errno));
    }
    fv_status status = FV_OK;
    size_t got = 1;
    while (got > 0 && status == FV_OK) {
        if (s->size > MOST_BYTES) {
            status = fvi_fail(s->ctx, FV_ERR_FORMAT, "%s: a questions file may have %d bytes", s->path, MOST_BYTES);
        } else if (!fvi_grow(s->ctx, &s->text, &s->capacity, s->size + 65536, 1)) {
            status = fvi_fail(s->ctx, FV_ERR_MEMORY, "no memory to read %s", s->path);
        } else {
            got = fread((char *)s->text + s->size, 1, 65535, file);
            s->size += (int64_t)got;
        }
    }
    if (status == FV_OK && ferror(file)) {
        status = fvi_fail(s->ctx, FV_ERR_IO, "%s: %s", s->path, strerror(errno));
    }
    fclose(file);
    if (status == FV_OK) {
        ((char *)s->text)[s->size] = '\0';
    }
    return status;
}

static int line_at(const char *text, const char *at) {
    int line = 1;
    for (; text < at; text++) {
        line += *text == '\n';
    }
    return line;
}

/* From an opening quote to behind the closing one. */
static const char *skip_string(const char *p) {
    for (p++; *p != '\0' && *p != '"'; p++) {
        p += *p == '\\' && p[1] != '\0';
    }
    return *p == '"' ? p + 1 : p;
}

/* Line of element `index` of the array, or of its member `field` if that is there. The text is JSON. */
static int line_of(const char *text, int index, const char *field) {
    int depth = 0, element = -1;
    const char *found = text, *p = text;
    bool fresh = false; /* depth 1, and no element since '[' or ',' */
    while (*p != '\0') {
        bool starts = strchr(" \t\r\n,]", *p) == NULL;
        if (depth == 1 && fresh && starts) {
            fresh = false;
            if (++element == index) {
                found = p;
            } else if (element > index) {
                break;
            }
        }
        if (*p == '"') {
            const char *end = skip_string(p);
            size_t n = field != NULL ? strlen(field) : 0;
            const char *colon = end + strspn(end, " \t\r\n");
            if (depth == 2 && element == index && n > 0 && (size_t)(end - p) == n + 2 && strncmp(p + 1, field, n) == 0 &&
                *colon == ':') {
                return line_at(text, p);
            }
            p = end;
            continue;
        }
        depth += (*p == '[' || *p == '{') - (*p == ']' || *p == '}');
        fresh = fresh || (depth == 1 && (*p == '[' || *p == ','));
        p++;
    }
    return line_at(text, found);
}

/* ---- one fact ---- */

static fv_status bad_field(const source *s, int index, const char *field, const char *what) {
    return fvi_fail(s->ctx, FV_ERR_FORMAT, "%s, line %d: fact %d: \"%.40s\" %s", s->path, line_of(s->text, index, field),
                    index + 1, field, what);
}

static fv_status check_names(const source *s, const cJSON *item, int index) {
    const cJSON *member;
    cJSON_ArrayForEach(member, item) {
        const char *name = member->string;
        if (strcmp(name, "fact") != 0 && strcmp(name, "question") != 0 && strcmp(name, "answer") != 0 &&
            strcmp(name, "depth") != 0) {
            return bad_field(s, index, name, "is no field of a fact: it has \"fact\", \"question\", \"answer\", \"depth\"");
        }
        if (cJSON_GetObjectItemCaseSensitive(item, name) != member) {
            return bad_field(s, index, name, "stands there twice");
        }
    }
    return FV_OK;
}

static fv_status take_text(const source *s, const cJSON *item, int index, const char *field, const char **out) {
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(item, field);
    if (member == NULL) {
        return bad_field(s, index, field, "is missing");
    }
    if (!cJSON_IsString(member) || member->valuestring[0] == '\0') {
        return bad_field(s, index, field, "must be a string that is not empty");
    }
    *out = fvi_strdup(s->ctx, member->valuestring, strlen(member->valuestring));
    return *out != NULL ? FV_OK : fvi_fail(s->ctx, FV_ERR_MEMORY, "no memory for the facts of %s", s->path);
}

static fv_status take_fact(const source *s, const cJSON *item, int index, fv_fact *out) {
    if (!cJSON_IsObject(item)) {
        return fvi_fail(s->ctx, FV_ERR_FORMAT, "%s, line %d: fact %d must be an object", s->path, line_of(s->text, index, NULL),
                        index + 1);
    }
    fv_status status = check_names(s, item, index);
    if (status == FV_OK) {
        status = take_text(s, item, index, "fact", &out->fact);
    }
    if (status == FV_OK) {
        status = take_text(s, item, index, "question", &out->question);
    }
    if (status == FV_OK) {
        status = take_text(s, item, index, "answer", &out->answer);
    }
    const cJSON *depth = cJSON_GetObjectItemCaseSensitive(item, "depth");
    if (status == FV_OK && depth == NULL) {
        status = bad_field(s, index, "depth", "is missing");
    }
    if (status == FV_OK && (!cJSON_IsNumber(depth) || !(depth->valuedouble >= 0 && depth->valuedouble <= 1))) {
        status = bad_field(s, index, "depth", "must be a number from 0 (the text's start) to 1 (its end)");
    }
    out->depth = status == FV_OK ? depth->valuedouble : 0;
    return status;
}

/* ---- all facts ---- */

static fv_status take_facts(const source *s, const cJSON *root, fv_facts *out) {
    int n = cJSON_IsArray(root) ? cJSON_GetArraySize(root) : 0;
    if (n < 1 || n > MOST_FACTS) {
        return fvi_fail(s->ctx, FV_ERR_FORMAT, "%s, line 1: must be a JSON array of 1 to %d facts", s->path, MOST_FACTS);
    }
    out->fact = fvi_zalloc(s->ctx, (size_t)n, sizeof *out->fact);
    if (out->fact == NULL) {
        return fvi_fail(s->ctx, FV_ERR_MEMORY, "no memory for the facts of %s", s->path);
    }
    out->n = n;
    int index = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, root) {
        fv_status status = take_fact(s, item, index, &out->fact[index]);
        if (status != FV_OK) {
            return status;
        }
        index++;
    }
    return FV_OK;
}

static fv_status parse(const source *s, fv_facts *out) {
    if (memchr(s->text, '\0', (size_t)s->size) != NULL) {
        return fvi_fail(s->ctx, FV_ERR_FORMAT, "%s: has a zero byte at offset %zu, so it is no JSON", s->path, strlen(s->text));
    }
    const char *end = s->text;
    cJSON *root = cJSON_ParseWithLengthOpts(s->text, (size_t)s->size + 1, &end, 1);
    if (root == NULL) {
        const char *last = (const char *)s->text + s->size;
        end = end == NULL || end < (const char *)s->text || end > last ? last : end;
        return fvi_fail(s->ctx, FV_ERR_FORMAT, "%s, line %d: not JSON from \"%.20s\" on", s->path, line_at(s->text, end), end);
    }
    fv_status status = take_facts(s, root, out);
    cJSON_Delete(root);
    return status;
}

fv_status fv_facts_open(fv_context *ctx, const char *path, fv_facts *out) {
    *out = (fv_facts){0};
    source s = {.ctx = ctx, .path = path};
    fv_status status = read_all(&s);
    if (status == FV_OK) {
        status = parse(&s, out);
    }
    fvi_release(ctx, s.text, (size_t)s.capacity, 1);
    if (status != FV_OK) {
        fv_facts_destroy(ctx, out);
    }
    return status;
}

void fv_facts_destroy(fv_context *ctx, fv_facts *facts) {
    for (int i = 0; i < facts->n; i++) {
        fvi_strfree(ctx, (char *)(uintptr_t)facts->fact[i].fact);
        fvi_strfree(ctx, (char *)(uintptr_t)facts->fact[i].question);
        fvi_strfree(ctx, (char *)(uintptr_t)facts->fact[i].answer);
    }
    fvi_release(ctx, facts->fact, (size_t)facts->n, sizeof *facts->fact);
    *facts = (fv_facts){0};
}
