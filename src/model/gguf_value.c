/* gguf_value.c - metadata of an open GGUF file: finding entries, reading them as what is wanted, and saying what is wrong. */
#include "model/gguf.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    uint8_t bytes;
} value_type[FVI_GGUF_TYPE_COUNT] = {{"u8", 1},   {"i8", 1},     {"u16", 2},   {"i16", 2}, {"u32", 4}, {"i32", 4}, {"f32", 4},
                                     {"bool", 1}, {"string", 0}, {"array", 0}, {"u64", 8}, {"i64", 8}, {"f64", 8}};

const char *fvi_gguf_value_name(fvi_gguf_type type) {
    return (unsigned)type < FVI_GGUF_TYPE_COUNT ? value_type[type].name : "unknown";
}

size_t fvi_gguf_value_bytes(fvi_gguf_type type) { return (unsigned)type < FVI_GGUF_TYPE_COUNT ? value_type[type].bytes : 0; }

/* The name stands behind its 8-byte length. */
uint64_t fvi_gguf_record(const fvi_gguf *g, fvi_string name) {
    return (uint64_t)((const uint8_t *)name.data - g->map) - sizeof(uint64_t);
}

/* A name that is safe to print: ASCII, cut to what a message has room for. */
static void show_name(char *out, size_t capacity, fvi_string name) {
    size_t n = name.size < capacity - 1 ? name.size : capacity - 1;
    for (size_t i = 0; i < n; i++) {
        out[i] = name.data[i] >= ' ' && name.data[i] <= '~' ? name.data[i] : '?';
    }
    out[n] = '\0';
}

/* The end of a path that is too long for a message says more than its start. */
static const char *path_tail(const char *path) {
    size_t n = strlen(path);
    return n <= 160 ? path : path + (n - 160);
}

fv_status fvi_gguf_fail(const fvi_gguf *g, fv_status status, uint64_t offset, const char *kind, fvi_string name,
                        const char *format, ...) {
    char shown[72], sentence[240];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    const char *path = path_tail(g->path);
    if (kind[0] == '\0') {
        return fvi_fail(g->ctx, status, "%s: offset 0x%" PRIx64 ": %s", path, offset, sentence);
    }
    show_name(shown, sizeof shown, name);
    return fvi_fail(g->ctx, status, "%s: offset 0x%" PRIx64 ": %s '%s': %s", path, offset, kind, shown, sentence);
}

static bool same(fvi_string s, const char *text, size_t size) { return s.size == size && memcmp(s.data, text, size) == 0; }

const fvi_gguf_entry *fvi_gguf_find(const fvi_gguf *g, const char *key) {
    size_t size = strlen(key);
    for (int64_t i = 0; i < g->n_entries; i++) {
        if (same(g->entry[i].key, key, size)) {
            return &g->entry[i];
        }
    }
    return NULL;
}

const fvi_gguf_tensor *fvi_gguf_find_tensor(const fvi_gguf *g, const char *name) {
    size_t size = strlen(name);
    for (int64_t i = 0; i < g->n_tensors; i++) {
        if (same(g->tensor[i].name, name, size)) {
            return &g->tensor[i];
        }
    }
    return NULL;
}

static fv_status wrong_type(const fvi_gguf *g, const fvi_gguf_entry *e, const char *wanted) {
    const char *of = e->type == FVI_GGUF_ARRAY ? " of " : "";
    const char *element = e->type == FVI_GGUF_ARRAY ? fvi_gguf_value_name(e->element) : "";
    return fvi_gguf_fail(g, FV_ERR_FORMAT, e->offset, "key", e->key, "its type is %s%s%s, %s is right",
                         fvi_gguf_value_name(e->type), of, element, wanted);
}

/* 64-bit integers beyond 2^53 are rounded: they stay out of every range that is asked for. */
static bool read_number(const fvi_gguf_entry *e, double *out) {
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        float f32;
        uint64_t u64;
        int64_t i64;
        double f64;
    } v = {.u64 = 0};
    if (e->type == FVI_GGUF_STRING || e->type == FVI_GGUF_ARRAY) {
        return false;
    }
    memcpy(&v, e->data, fvi_gguf_value_bytes(e->type));
    const double as[FVI_GGUF_TYPE_COUNT] = {
        [FVI_GGUF_U8] = v.u8,           [FVI_GGUF_I8] = v.i8,           [FVI_GGUF_U16] = v.u16, [FVI_GGUF_I16] = v.i16,
        [FVI_GGUF_U32] = v.u32,         [FVI_GGUF_I32] = v.i32,         [FVI_GGUF_F32] = v.f32, [FVI_GGUF_BOOL] = v.u8,
        [FVI_GGUF_U64] = (double)v.u64, [FVI_GGUF_I64] = (double)v.i64, [FVI_GGUF_F64] = v.f64};
    *out = as[e->type];
    return true;
}

/* *found tells an absent key from one with a value. */
static fv_status find_number(const fvi_gguf *g, const char *key, bool required, double *out, bool *found) {
    const fvi_gguf_entry *e = fvi_gguf_find(g, key);
    *found = e != NULL;
    if (e == NULL) {
        return required ? fvi_fail(g->ctx, FV_ERR_FORMAT, "%s: the metadata has no '%s', a number", path_tail(g->path), key)
                        : FV_OK;
    }
    return read_number(e, out) ? FV_OK : wrong_type(g, e, "a number");
}

fv_status fvi_gguf_u32(const fvi_gguf *g, const char *key, bool required, uint32_t least, uint32_t most, uint32_t *inout) {
    double v = 0;
    bool found;
    fv_status status = find_number(g, key, required, &v, &found);
    if (status != FV_OK || !found) {
        return status;
    }
    /* written so that NaN is refused too */
    if (!(v >= least && v <= most) || v != (double)(uint32_t)v) {
        const fvi_gguf_entry *e = fvi_gguf_find(g, key);
        return fvi_gguf_fail(g, FV_ERR_FORMAT, e->offset, "key", e->key,
                             "its value is %.17g, a whole number from %" PRIu32 " to %" PRIu32 " is right", v, least, most);
    }
    *inout = (uint32_t)v;
    return FV_OK;
}

fv_status fvi_gguf_f32(const fvi_gguf *g, const char *key, bool required, float *inout) {
    double v = 0;
    bool found;
    fv_status status = find_number(g, key, required, &v, &found);
    if (status != FV_OK || !found) {
        return status;
    }
    if (!(v >= -3.4028234663852886e38 && v <= 3.4028234663852886e38)) {
        const fvi_gguf_entry *e = fvi_gguf_find(g, key);
        return fvi_gguf_fail(g, FV_ERR_FORMAT, e->offset, "key", e->key, "its value is %g, a finite f32 is right", v);
    }
    *inout = (float)v;
    return FV_OK;
}

fv_status fvi_gguf_bool(const fvi_gguf *g, const char *key, bool *inout) {
    uint32_t v = *inout;
    fv_status status = fvi_gguf_u32(g, key, false, 0, 1, &v);
    *inout = v != 0;
    return status;
}

fv_status fvi_gguf_string(const fvi_gguf *g, const char *key, fvi_string *out) {
    *out = (fvi_string){NULL, 0};
    const fvi_gguf_entry *e = fvi_gguf_find(g, key);
    if (e == NULL) {
        return FV_OK;
    }
    if (e->type != FVI_GGUF_STRING) {
        return wrong_type(g, e, "a string");
    }
    const uint8_t *cursor = NULL;
    *out = fvi_gguf_next_string(e, &cursor);
    return FV_OK;
}

fvi_string fvi_gguf_next_string(const fvi_gguf_entry *array, const uint8_t **cursor) {
    const uint8_t *p = *cursor != NULL ? *cursor : array->data;
    uint64_t size;
    memcpy(&size, p, sizeof size);
    *cursor = p + sizeof size + size;
    return (fvi_string){(const char *)p + sizeof size, (size_t)size};
}
