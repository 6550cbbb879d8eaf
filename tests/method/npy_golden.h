/* npy_golden.h - selections of official code, kept as .npy files of uint8 that hold one bit a pair, in C order, lowest bit first.
 */
#ifndef FOVEA_NPY_GOLDEN_H
#define FOVEA_NPY_GOLDEN_H

#include "method_test.h"

/* The `bytes` bytes of the array in DIRECTORY/NAME.npy, to be freed; NULL, and a failure, if they are not there. */
static inline unsigned char *npy_bytes(const char *directory, const char *name, size_t bytes) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s.npy", directory, name);
    unsigned char head[10], *data = malloc(bytes + 1);
    FILE *file = fopen(path, "rb");
    bool right = file != NULL && fread(head, 1, sizeof head, file) == sizeof head && memcmp(head, "\x93NUMPY\x01", 7) == 0 &&
                 fseek(file, head[8] + 256 * head[9], SEEK_CUR) == 0 && fread(data, 1, bytes + 1, file) == bytes;
    if (file != NULL) {
        fclose(file);
    }
    CHECK(right, "%s: not an array of %zu bytes", path, bytes);
    if (!right) {
        free(data);
        data = NULL;
    }
    return data;
}

/* How many of the pairs of one head's selection, (n, n), differ from the golden one. */
static inline int64_t golden_differs(const char *directory, const char *name, const unsigned char *at, int64_t pairs) {
    unsigned char *bits = npy_bytes(directory, name, (size_t)(pairs + 7) / 8);
    int64_t differ = 0;
    for (int64_t i = 0; bits != NULL && i < pairs; i++) {
        differ += (bits[i / 8] >> (i % 8) & 1) != at[i];
    }
    free(bits);
    return differ;
}

#endif
