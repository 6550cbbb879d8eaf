/* golden_test.h - selections that the official code made, in tests/golden/select: bits (h, n, n / 8 rounded up), the first key
 * the highest bit, as numpy.packbits leaves them. */
#ifndef FOVEA_GOLDEN_TEST_H
#define FOVEA_GOLDEN_TEST_H

#include "index_test.h"
#include "npy_golden.h"

/* The selection, causal mask included, equals tests/golden/select/NAME.npy. */
static inline void golden_equals(const char *name, const char *recipe, const selection *s) {
    char path[160];
    snprintf(path, sizeof path, "tests/golden/select/%s.npy", name);
    npy_array a = npy_golden(path);
    int64_t row = (s->n + 7) / 8, differ = 0;
    bool fits = a.data != NULL && a.rank == 3 && a.shape[0] == s->h && a.shape[1] == s->n && a.shape[2] == row;
    CHECK(fits, "%s does not have the shape (%lld, %lld, %lld)", path, (long long)s->h, (long long)s->n, (long long)row);
    for (int64_t p = 0; fits && p < s->h * s->n * s->n; p++) {
        int64_t i = p / s->n, j = p % s->n;
        int golden = a.data[i * row + j / 8] >> (7 - j % 8) & 1;
        if (golden != s->at[p] && differ++ == 0) {
            printf("  head %lld, row %lld, key %lld: golden %d\n", (long long)(i / s->n), (long long)(i % s->n), (long long)j,
                   golden);
        }
    }
    CHECK(differ == 0, "%s differs from %s in %lld pairs", recipe, path, (long long)differ);
    free(a.data);
}

#endif
