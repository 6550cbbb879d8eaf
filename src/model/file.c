/* file.c - what is in a model file, as text: the listing behind `fovea info`.
 *
 * All strings of a listing lie in one block. The code that writes them runs twice: once over nothing, to learn the block's
 * size, and once into it; so the two cannot disagree.
 */
#include "model/gguf.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SHOWN_VALUES  8   /* of an array */
#define SHOWN_BYTES   240 /* of a string value */
#define SHOWN_ELEMENT 40  /* of a string in an array */

struct fv_file {
    fv_context *ctx;
    int version;
    fv_file_entry *entry; /* metadata, then tensors */
    int64_t n_entries, n_metadata;
    char *text;
    size_t text_bytes;
};

typedef struct writer {
    char *out; /* NULL: count only */
    size_t at;
} writer;

static void put(writer *w, const char *s, size_t n) {
    if (w->out != NULL) {
        memcpy(w->out + w->at, s, n);
    }
    w->at += n;
}

static void __attribute__((format(printf, 2, 3))) put_text(writer *w, const char *format, ...) {
    char buffer[128];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(buffer, sizeof buffer, format, args);
    va_end(args);
    put(w, buffer, (size_t)fvi_min(n, (int64_t)sizeof buffer - 1));
}

/* Ends the string begun at `from` and gives it. */
static const char *put_end(writer *w, size_t from) {
    put(w, "", 1);
    return w->out != NULL ? w->out + from : NULL;
}

/* Bytes of the UTF-8 character at s, 0 where there is none. */
static size_t utf8_character(const uint8_t *s, size_t size) {
    if (s[0] < 0x80) {
        return 1;
    }
    size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || n > size) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    uint32_t second = s[1];
    bool bad = (s[0] == 0xe0 && second < 0xa0) || (s[0] == 0xed && second > 0x9f) || (s[0] == 0xf0 && second < 0x90) ||
               (s[0] == 0xf4 && second > 0x8f) || (s[0] == 0xc2 && second < 0xa0); /* the last: control characters */
    return bad ? 0 : n;
}

/* Text from a file must not reach a terminal as control codes: \n, \t and \xNN stand for them. */
static void put_escaped(writer *w, fvi_string s, size_t most) {
    size_t i = 0;
    while (i < s.size && i < most) {
        uint8_t c = (uint8_t)s.data[i];
        size_t n = utf8_character((const uint8_t *)s.data + i, s.size - i);
        if (c == '\n' || c == '\t') {
            put(w, c == '\n' ? "\\n" : "\\t", 2);
        } else if (n == 0 || c < ' ' || c == 0x7f) {
            put_text(w, "\\x%02x", c);
        } else {
            put(w, s.data + i, n);
        }
        i += n == 0 ? 1 : n;
    }
    if (i < s.size) {
        put_text(w, "... (%zu bytes)", s.size);
    }
}

static void put_number(writer *w, fvi_gguf_type type, const uint8_t *p) {
    uint64_t u = 0;
    int64_t i;
    float f;
    double d;
    memcpy(&u, p, fvi_gguf_value_bytes(type));
    switch (type) {
    case FVI_GGUF_I8:
        put_text(w, "%d", (int8_t)u);
        break;
    case FVI_GGUF_I16:
        put_text(w, "%d", (int16_t)u);
        break;
    case FVI_GGUF_I32:
        put_text(w, "%" PRId32, (int32_t)u);
        break;
    case FVI_GGUF_I64:
        memcpy(&i, p, sizeof i);
        put_text(w, "%" PRId64, i);
        break;
    case FVI_GGUF_F32:
        memcpy(&f, p, sizeof f);
        put_text(w, "%.9g", (double)f);
        break;
    case FVI_GGUF_F64:
        memcpy(&d, p, sizeof d);
        put_text(w, "%.17g", d);
        break;
    case FVI_GGUF_BOOL:
        put_text(w, u != 0 ? "true" : "false");
        break;
    default:
        put_text(w, "%" PRIu64, u);
    }
}

static void put_array(writer *w, const fvi_gguf_entry *e) {
    const uint8_t *cursor = NULL;
    put(w, "[", 1);
    for (uint64_t i = 0; i < e->count && i < SHOWN_VALUES; i++) {
        put(w, ", ", i == 0 ? 0 : 2);
        if (e->element == FVI_GGUF_STRING) {
            put(w, "\"", 1);
            put_escaped(w, fvi_gguf_next_string(e, &cursor), SHOWN_ELEMENT);
            put(w, "\"", 1);
        } else {
            put_number(w, e->element, e->data + i * fvi_gguf_value_bytes(e->element));
        }
    }
    if (e->count > SHOWN_VALUES) {
        put_text(w, ", ... %" PRIu64 " more", e->count - SHOWN_VALUES);
    }
    put(w, "]", 1);
}

static const char *put_value(writer *w, const fvi_gguf_entry *e) {
    size_t from = w->at;
    const uint8_t *cursor = NULL;
    if (e->type == FVI_GGUF_ARRAY) {
        put_array(w, e);
    } else if (e->type == FVI_GGUF_STRING) {
        put_escaped(w, fvi_gguf_next_string(e, &cursor), SHOWN_BYTES);
    } else {
        put_number(w, e->type, e->data);
    }
    return put_end(w, from);
}

static const char *put_type(writer *w, const fvi_gguf_entry *e) {
    size_t from = w->at;
    put_text(w, "%s", fvi_gguf_value_name(e->element));
    if (e->type == FVI_GGUF_ARRAY) {
        put_text(w, "[%" PRIu64 "]", e->count);
    }
    return put_end(w, from);
}

static const char *put_name(writer *w, fvi_string name) {
    size_t from = w->at;
    put_escaped(w, name, SIZE_MAX);
    return put_end(w, from);
}

static const char *put_shape(writer *w, const fvi_gguf_tensor *t) {
    size_t from = w->at;
    for (int i = 0; i < t->rank; i++) {
        put_text(w, "%s%" PRId64, i == 0 ? "" : " x ", t->shape[i]);
    }
    return put_end(w, from);
}

static void write_listing(const fvi_gguf *g, writer *w, fv_file_entry *out) {
    fv_file_entry line;
    for (int64_t i = 0; i < g->n_entries; i++) {
        const fvi_gguf_entry *e = &g->entry[i];
        line = (fv_file_entry){put_name(w, e->key), put_type(w, e), put_value(w, e), e->offset, e->bytes};
        if (out != NULL) {
            out[i] = line;
        }
    }
    for (int64_t i = 0; i < g->n_tensors; i++) {
        const fvi_gguf_tensor *t = &g->tensor[i];
        line = (fv_file_entry){put_name(w, t->name), fvi_gguf_type_name(t->file_type), put_shape(w, t), t->offset, t->bytes};
        if (out != NULL) {
            out[g->n_entries + i] = line;
        }
    }
}

fv_status fvi_file_from_gguf(const fvi_gguf *g, fv_file **out) {
    *out = NULL;
    writer w = {NULL, 0};
    write_listing(g, &w, NULL);
    fv_file *f = fvi_zalloc(g->ctx, 1, sizeof *f);
    if (f == NULL) {
        return fvi_fail(g->ctx, FV_ERR_MEMORY, "%s: no memory for a listing", g->path);
    }
    f->ctx = g->ctx;
    f->version = (int)g->version;
    f->n_metadata = g->n_entries;
    f->n_entries = g->n_entries + g->n_tensors;
    f->text_bytes = w.at;
    if (f->n_entries > 0) {
        f->entry = fvi_alloc(f->ctx, (size_t)f->n_entries, sizeof *f->entry);
        f->text = fvi_alloc(f->ctx, f->text_bytes, 1);
        if (f->entry == NULL || f->text == NULL) {
            fv_file_destroy(f);
            return fvi_fail(g->ctx, FV_ERR_MEMORY, "%s: no memory for a listing of %zu bytes", g->path, w.at);
        }
        w = (writer){f->text, 0};
        write_listing(g, &w, f->entry);
    }
    *out = f;
    return FV_OK;
}

fv_status fv_file_open(fv_context *ctx, const char *path, fv_file **out) {
    *out = NULL;
    fvi_gguf *g;
    fv_status status = fvi_gguf_open(ctx, path, &g);
    if (status == FV_OK) {
        status = fvi_file_from_gguf(g, out);
        fvi_gguf_destroy(g);
    }
    return status;
}

void fv_file_destroy(fv_file *file) {
    if (file == NULL) {
        return;
    }
    fvi_release(file->ctx, file->entry, (size_t)file->n_entries, sizeof *file->entry);
    fvi_release(file->ctx, file->text, file->text_bytes, 1);
    fvi_release(file->ctx, file, 1, sizeof *file);
}

int fv_file_version(const fv_file *file) { return file->version; }

const fv_file_entry *fv_file_metadata(const fv_file *file, int64_t i) {
    return i >= 0 && i < file->n_metadata ? &file->entry[i] : NULL;
}

const fv_file_entry *fv_file_tensor(const fv_file *file, int64_t i) {
    return i >= 0 && i < file->n_entries - file->n_metadata ? &file->entry[file->n_metadata + i] : NULL;
}
