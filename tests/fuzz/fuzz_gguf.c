/* fuzz_gguf.c - any bytes as a GGUF file: parsed, every getter asked about every entry, listed; once from memory, and now and
 * then by name or with memory that fails. Memory has to stay within a multiple of the file. */
#include "fuzz.h"
#include "model/gguf.h"

/* The two tables and the names being sorted, over the smallest records: see gguf.c. */
enum { MOST_PER_BYTE = 9, MOST_BESIDES = 1 << 16 };

static volatile uint64_t sink;

static void touch(const void *data, uint64_t bytes) {
    const uint8_t *p = data;
    uint64_t sum = 0;
    for (uint64_t i = 0; i < bytes; i++) {
        sum += p[i];
    }
    sink = sum;
}

static void ask(const fvi_gguf *g, const fvi_gguf_entry *e) {
    char key[256];
    size_t n = e->key.size < sizeof key - 1 ? e->key.size : sizeof key - 1;
    memcpy(key, e->key.data, n);
    key[n] = '\0';
    uint32_t u = 7;
    float f = 0.5f;
    bool flag = true;
    fvi_string s;
    fv_status status = fvi_gguf_u32(g, key, true, 3, 1000, &u);
    FUZZ_CHECK(status == FV_OK ? u >= 3 && u <= 1000 : status == FV_ERR_FORMAT && u == 7);
    FUZZ_CHECK(fvi_gguf_f32(g, key, false, &f) == FV_OK ? f - f == 0 : f == 0.5f); /* finite, or as it was */
    fvi_gguf_bool(g, key, &flag);
    if (fvi_gguf_string(g, key, &s) == FV_OK && s.data != NULL) {
        touch(s.data, s.size);
    }
    touch(e->data, e->bytes);
    const uint8_t *cursor = NULL;
    for (uint64_t i = 0; e->type == FVI_GGUF_ARRAY && e->element == FVI_GGUF_STRING && i < e->count; i++) {
        s = fvi_gguf_next_string(e, &cursor);
        touch(s.data, s.size);
    }
    FUZZ_CHECK(cursor == NULL || cursor == e->data + e->bytes);
}

static void walk(const fvi_gguf *g) {
    for (int64_t i = 0; i < g->n_entries && i < 64; i++) {
        ask(g, &g->entry[i]);
    }
    for (int64_t i = 0; i < g->n_tensors; i++) {
        const fvi_gguf_tensor *t = &g->tensor[i];
        FUZZ_CHECK((const uint8_t *)t->data == g->map + t->offset && t->offset + t->bytes <= g->map_bytes);
        FUZZ_CHECK(fvi_gguf_type_name(t->file_type) != NULL);
        touch(t->data, t->bytes);
    }
    FUZZ_CHECK(fvi_gguf_find_tensor(g, "no such tensor") == NULL);
    fv_file *file;
    if (fvi_file_from_gguf(g, &file) != FV_OK) {
        return;
    }
    for (int64_t i = 0; i < g->n_entries; i++) {
        const fv_file_entry *e = fv_file_metadata(file, i);
        FUZZ_CHECK(e->offset + e->bytes <= g->map_bytes && strlen(e->value) < 4096 && strlen(e->type) > 1);
    }
    for (int64_t i = 0; i < g->n_tensors; i++) {
        FUZZ_CHECK(strlen(fv_file_tensor(file, i)->value) > 0);
    }
    FUZZ_CHECK(fv_file_version(file) == 2 || fv_file_version(file) == 3);
    fv_file_destroy(file);
}

static void parse(fv_context *ctx, const uint8_t *data, size_t size, const char *path) {
    uint8_t *copy = fuzz_copy(data, size);
    fvi_gguf *g;
    fv_status status = path != NULL ? fvi_gguf_open(ctx, path, &g) : fvi_gguf_parse(ctx, "fuzz", copy, size, &g);
    if (status == FV_OK) {
        walk(g);
        fvi_gguf_destroy(g);
    } else {
        FUZZ_CHECK(g == NULL && fv_message(ctx)[0] != '\0');
    }
    free(copy);
}

static void check(const uint8_t *data, size_t size, const char *path, long long failing) {
    alloc_fail a;
    fv_context *ctx = alloc_fail_begin(&a, 1);
    FUZZ_CHECK(ctx != NULL);
    alloc_fail_arm(&a, failing);
    parse(ctx, data, size, path);
    FUZZ_CHECK(a.peak <= MOST_PER_BYTE * (long long)size + MOST_BESIDES);
    FUZZ_CHECK(alloc_fail_end(&a, ctx) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    check(data, size, NULL, 0);
    long long failing = fuzz_failing(data, size);
    if (failing > 0) {
        fuzz_file file = fuzz_open(data, size);
        check(data, size, file.path, failing);
        check(data, size, failing % 2 == 0 ? "/dev/null" : "/absent", 0);
        fuzz_close(&file);
    }
    return 0;
}
