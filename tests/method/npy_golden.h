/* npy_golden.h - arrays in tests/golden, as numpy.save writes them: version 1, little endian, C order; and selections that
 * official code made, a bit a pair. Programs run in the project's root. */
#ifndef FOVEA_NPY_GOLDEN_H
#define FOVEA_NPY_GOLDEN_H

#include "method_test.h"

typedef struct npy_array {
    unsigned char *data; /* NULL: the file cannot be read; free() it */
    char type[8];        /* "|u1", "<f4", ... */
    int64_t shape[6];
    int rank;
} npy_array;

/* The header says {'descr': '|u1', 'fortran_order': False, 'shape': (4, 200, 25), }. */
static inline bool npy_header(const char *text, npy_array *a) {
    const char *type = strstr(text, "'descr': '"), *shape = strstr(text, "'shape': (");
    if (type == NULL || shape == NULL || strstr(text, "'fortran_order': False") == NULL) {
        return false;
    }
    sscanf(type + 10, "%7[^']", a->type);
    char *at;
    for (const char *next = shape + 10; a->rank < 6; next = at + 1) {
        long long size = strtoll(next, &at, 10);
        if (at == next) {
            break;
        }
        a->shape[a->rank++] = size;
        if (*at != ',') {
            break;
        }
    }
    return true;
}

/* tests/golden/NAME.npy */
static inline npy_array npy_golden(const char *name) {
    npy_array a = {0};
    unsigned char head[10];
    char text[1024] = {0}, path[160];
    snprintf(path, sizeof path, "tests/golden/%s.npy", name);
    FILE *f = fopen(path, "rb");
    size_t bytes = 0;
    if (f != NULL && fread(head, 1, 10, f) == 10 && memcmp(head, "\x93NUMPY\x01", 7) == 0) {
        size_t size = head[8] + 256u * head[9];
        if (size < sizeof text && fread(text, 1, size, f) == size && npy_header(text, &a)) {
            bytes = (size_t)(a.type[2] - '0');
            for (int i = 0; i < a.rank; i++) {
                bytes *= (size_t)a.shape[i];
            }
            a.data = malloc(bytes + 1);
        }
    }
    if (a.data != NULL && fread(a.data, 1, bytes, f) != bytes) {
        free(a.data);
        a.data = NULL;
    }
    if (f != NULL) {
        fclose(f);
    }
    CHECK(a.data != NULL, "%s cannot be read: run this in the project's root", path);
    return a;
}

/* The pairs of a selection, in C order, are the bits of tests/golden/NAME.npy, lowest first. */
static inline void golden_bits_hold(const char *name, const char *recipe, const unsigned char *at, int64_t pairs) {
    npy_array bits = npy_golden(name);
    int64_t differ = 0;
    bool fits = bits.data != NULL && bits.rank == 1 && strcmp(bits.type, "|u1") == 0 && bits.shape[0] == (pairs + 7) / 8;
    CHECK(fits, "%s.npy is not %lld bytes for %lld pairs", name, (long long)(pairs + 7) / 8, (long long)pairs);
    for (int64_t i = 0; fits && i < pairs; i++) {
        int golden = bits.data[i / 8] >> (i % 8) & 1;
        if (golden != at[i] && differ++ == 0) {
            printf("  pair %lld: golden %d\n", (long long)i, golden);
        }
    }
    CHECK(differ == 0, "%s differs from %s in %lld of %lld pairs", recipe, name, (long long)differ, (long long)pairs);
    free(bits.data);
}

#endif
