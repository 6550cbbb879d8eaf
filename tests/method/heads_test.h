/* heads_test.h - the heads on which a selector meets its reference: random ones, ones with a structure that suits it, and those
 * of a language model (tests/golden/real), cut to lengths that references in double can afford. */
#ifndef FOVEA_HEADS_TEST_H
#define FOVEA_HEADS_TEST_H

#include "npy_golden.h"

enum { REAL_D = 64, REAL_CUTS = 3 };

/* out (h, n, REAL_D) = the first positions of the first heads of tests/golden/real/NAME.npy, which are f16. */
static inline void real_rows(const char *name, int64_t h, int64_t n, float *out) {
    char path[80];
    snprintf(path, sizeof path, "real/%s", name);
    npy_array a = npy_golden(path);
    bool fits = a.data != NULL && strcmp(a.type, "<f2") == 0 && a.rank == 3 && a.shape[0] >= h && a.shape[1] >= n;
    CHECK(fits && a.shape[2] == REAL_D, "%s.npy is not %lld heads of %lld rows of f16 or more", path, (long long)h, (long long)n);
    for (int64_t i = 0; fits && i < h * n * REAL_D; i++) {
        int64_t head = i / (n * REAL_D), at = head * a.shape[1] * REAL_D + i % (n * REAL_D);
        uint16_t half = (uint16_t)(a.data[2 * at] + 256 * a.data[2 * at + 1]);
        int exponent = half >> 10 & 31;
        float size = exponent == 0 ? ldexpf(half & 1023, -24) : ldexpf((half & 1023) + 1024, exponent - 25);
        out[i] = half >> 15 ? -size : size;
    }
    free(a.data);
}

/* Each KV head with its group's queries is of another layer; beyond 768 positions there is one. */
static inline heads heads_real(int64_t h_q, int64_t h_kv, int64_t n) {
    heads x = heads_make(7, h_q, h_kv, n, REAL_D);
    for (int64_t g = 0; g < h_kv; g++) {
        bool late = g > 0 || n > 768;
        real_rows(late ? "long-q" : "q", h_q / h_kv, n, x.q + g * (h_q / h_kv) * n * REAL_D);
        real_rows(late ? "long-k" : "k", 1, n, x.k + g * n * REAL_D);
        real_rows(late ? "long-v" : "v", 1, n, x.v + g * n * REAL_D);
    }
    return x;
}

/* The cuts at which a method meets its reference: three query heads of one group, two groups of two, and a longer text. */
static inline heads heads_real_cut(int cut) {
    static const int64_t size[REAL_CUTS][3] = {{3, 1, 700}, {4, 2, 449}, {2, 1, 1500}};
    return heads_real(size[cut][0], size[cut][1], size[cut][2]);
}

typedef heads heads_maker(uint64_t seed, int64_t h_q, int64_t h_kv, int64_t n, int64_t d);
typedef void heads_check(fv_context *ctx, const void *set, heads *x); /* of one setting, on these heads */

static inline void on_real_heads(fv_context *ctx, heads_check *check, const void *set) {
    for (int cut = 0; cut < REAL_CUTS; cut++) {
        heads x = heads_real_cut(cut);
        check(ctx, set, &x);
        heads_free(&x);
    }
}

static inline void on_all_heads(fv_context *ctx, heads_maker *structured, heads_check *check, const void *set) {
    static const int64_t size[][4] = {{4, 2, 1, 32},   {4, 4, 63, 64},  {4, 2, 65, 32},
                                      {4, 4, 200, 64}, {4, 2, 700, 32}, {2, 2, 1100, 64}};
    for (size_t k = 0; k < 2 * sizeof size / sizeof *size; k++) {
        const int64_t *z = size[k / 2];
        heads x = (k % 2 == 0 ? heads_make : structured)(k + 17, z[0], z[1], z[2], z[3]);
        check(ctx, set, &x);
        heads_free(&x);
    }
    on_real_heads(ctx, check, set);
}

#endif
