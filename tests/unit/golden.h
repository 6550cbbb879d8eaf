/* golden.h - the compressed vocabularies and texts of tests/golden/tokenizer. Programs run in the project's root. */
#ifndef FOVEA_TEST_GOLDEN_H
#define FOVEA_TEST_GOLDEN_H

#include "model/gguf.h"
#include "model/vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

static const char *const golden_name[] = {"fovea", "smollm2", "gpt2", "qwen2", "mistral"};
enum { GOLDEN_NAMES = 5, GOLDEN_TEXTS = 1214 };

/* The whole file, one 0 byte behind it; NULL if it cannot be read. free() it. */
static inline char *golden_file(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    char *data = NULL;
    *size = 0;
    if (f != NULL && fseek(f, 0, SEEK_END) == 0) {
        long n = ftell(f);
        rewind(f);
        data = n >= 0 ? calloc((size_t)n + 1, 1) : NULL;
        *size = data != NULL ? fread(data, 1, (size_t)n, f) : 0;
    }
    if (f != NULL) {
        fclose(f);
    }
    return data;
}

/* tests/golden/tokenizer/NAME.END.gz, unpacked; likewise. */
static inline char *golden_unpack(const char *name, const char *end, size_t *size) {
    enum { MOST = 16 << 20 };
    char path[128];
    snprintf(path, sizeof path, "tests/golden/tokenizer/%s.%s.gz", name, end);
    gzFile f = gzopen(path, "rb");
    char *out = f != NULL ? malloc(MOST + 1) : NULL;
    int n = out != NULL ? gzread(f, out, MOST) : -1;
    bool good = f != NULL && gzclose(f) == Z_OK && n > 0;
    *size = good ? (size_t)n : 0;
    if (!good) {
        free(out);
        return NULL;
    }
    out[n] = '\0';
    return out;
}

/* The vocabulary of that name. */
static inline fv_status golden_vocab(fv_context *ctx, const char *name, fv_vocab **out) {
    size_t size;
    char *data = golden_unpack(name, "gguf", &size);
    fvi_gguf *g = NULL;
    *out = NULL;
    if (data == NULL) {
        return fvi_fail(ctx, FV_ERR_IO, "tests/golden/tokenizer/%s.gguf.gz cannot be read: run this in the project's root", name);
    }
    fv_status status = fvi_gguf_parse(ctx, name, data, size, &g);
    if (status == FV_OK) {
        status = fvi_vocab_from_gguf(ctx, g, out);
        fvi_gguf_destroy(g);
    }
    free(data);
    return status;
}

#endif
