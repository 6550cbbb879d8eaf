/* npy_golden.h - arrays in tests/golden, as numpy.save writes them: version 1, little endian, C order. Programs run in the
 * project's root. */
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

static inline npy_array npy_golden(const char *path) {
    npy_array a = {0};
    unsigned char head[10];
    char text[1024] = {0};
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

/* How many of the pairs of a selection differ from the array's bits, lowest first, in DIRECTORY/NAME.npy. */
static inline int64_t golden_differs(const char *directory, const char *name, const unsigned char *at, int64_t pairs) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s.npy", directory, name);
    npy_array bits = npy_golden(path);
    int64_t differ = 0, bytes = 1;
    for (int i = 0; i < bits.rank; i++) {
        bytes *= bits.shape[i];
    }
    CHECK(bytes == (pairs + 7) / 8, "%s: %lld bytes for %lld pairs", path, (long long)bytes, (long long)pairs);
    for (int64_t i = 0; bits.data != NULL && i < pairs && i / 8 < bytes; i++) {
        differ += (bits.data[i / 8] >> (i % 8) & 1) != at[i];
    }
    free(bits.data);
    return differ;
}

#endif
