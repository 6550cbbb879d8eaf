/* test_cache.c - append, fork, truncate and read against a plain model of what a cache holds; every allocation refused once. */
#include "alloc_fail.h"
#include "base/rng.h"
#include "cache/cache.h"
#include "fovea/experimental.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- rows whose numbers say which layer, head, entry and column they are ---- */

enum { LAYERS = 2, HEADS = 3, DK = 24, DV = 40, MOST = 400 };

static const fv_cache_desc desc_f32 = {LAYERS, HEADS, DK, DV, FV_F32, FV_F32, false, false};

static float value_of(int layer, int64_t head, int64_t entry, int64_t column, int tag) {
    return (float)(tag * 1000000 + layer * 300000 + head * 100000 + entry * 200 + column);
}

/* Entries [from, from + n) of a layer, row-major. */
static float *rows_of(int layer, int64_t from, int64_t n, int64_t d, int tag) {
    float *x = malloc((size_t)(HEADS * n * d + 1) * sizeof *x);
    for (int64_t h = 0; h < HEADS; h++) {
        for (int64_t e = 0; e < n; e++) {
            for (int64_t i = 0; i < d; i++) {
                x[(h * n + e) * d + i] = value_of(layer, h, from + e, i, tag);
            }
        }
    }
    return x;
}

static fv_status append(fv_cache *cache, int layer, int64_t from, int64_t n, int tag) {
    float *k = rows_of(layer, from, n, DK, tag), *v = rows_of(layer, from, n, DV, tag + 1);
    fv_tensor kt = fv_tensor_view(k, FV_F32, 1, HEADS, n, DK), vt = fv_tensor_view(v, FV_F32, 1, HEADS, n, DV);
    fv_status status = fv_cache_append(cache, layer, &kt, &vt);
    free(k);
    free(v);
    return status;
}

/* Entries [from, to) of a layer carry `tag`, by fv_cache_read and in the pages. */
static void check_entries(const fv_cache *cache, int layer, int64_t from, int64_t to, int tag) {
    static float k[MOST * DK], v[MOST * DV];
    for (int64_t h = 0; h < HEADS; h++) {
        assert_int_equal(fv_cache_read(cache, layer, h, from, to - from, k, v), FV_OK);
        for (int64_t e = from; e < to; e++) {
            const fvi_page *page = fvi_cache_page(cache, layer, h, e / FVI_PAGE);
            assert_int_equal(page->position[e % FVI_PAGE], e);
            assert_ptr_equal((void *)((uintptr_t)page->k % 64), NULL);
            assert_ptr_equal((void *)((uintptr_t)page->v % 64), NULL);
            for (int64_t i = 0; i < DK; i++) {
                assert_true(k[(e - from) * DK + i] == value_of(layer, h, e, i, tag));
            }
            for (int64_t i = 0; i < DV; i++) {
                assert_true(v[(e - from) * DV + i] == value_of(layer, h, e, i, tag + 1));
            }
        }
    }
}

static void check_layer(const fv_cache *cache, int layer, int64_t length, int tag) {
    assert_int_equal(fv_cache_length(cache, layer), length);
    assert_int_equal(fvi_cache_next_position(cache, layer), length);
    check_entries(cache, layer, 0, length, tag);
    for (int64_t h = 0; h < HEADS; h++) {
        for (int64_t p = 0; p < fvi_cache_head_pages(cache, layer, h); p++) {
            const fvi_page *page = fvi_cache_page(cache, layer, h, p);
            int64_t n = fvi_min(FVI_PAGE, length - p * FVI_PAGE);
            assert_int_equal(page->n, n);
            assert_int_equal(page->min_position, p * FVI_PAGE);
            assert_int_equal(page->max_position, p * FVI_PAGE + n - 1);
        }
    }
}

/* ---- tests ---- */

static void pieces_and_whole(void **state) {
    (void)state;
    alloc_fail m;
    fv_context *ctx = alloc_fail_begin(&m, 1);
    size_t before = (size_t)m.bytes;
    static const int64_t cut[] = {0, 1, 1, 3, 63, 64, 65, 127, 128, 200, 331};
    fv_cache *cache;
    assert_int_equal(fv_cache_create(ctx, &desc_f32, &cache), FV_OK);
    for (size_t i = 1; i < sizeof cut / sizeof cut[0]; i++) {
        for (int layer = 0; layer < LAYERS; layer++) {
            assert_int_equal(append(cache, layer, cut[i - 1], cut[i] - cut[i - 1], 1), FV_OK);
            check_layer(cache, layer, cut[i], 1);
        }
    }
    assert_int_equal(fv_cache_bytes(cache), (size_t)m.bytes - before);
    fv_cache *whole;
    assert_int_equal(fv_cache_create(ctx, &desc_f32, &whole), FV_OK);
    assert_int_equal(append(whole, 1, 0, 331, 1), FV_OK);
    check_layer(whole, 1, 331, 1);
    check_layer(whole, 0, 0, 1);
    fv_cache_destroy(whole);
    fv_cache_destroy(cache);
    fv_cache_destroy(NULL);
    assert_int_equal(m.bytes, before);
    assert_int_equal(alloc_fail_end(&m, ctx), 0);
}

static void forks_do_not_see_each_other(void **state) {
    (void)state;
    alloc_fail m;
    fv_context *ctx = alloc_fail_begin(&m, 1);
    for (int64_t length = 60; length <= 70; length++) {
        fv_cache *a, *b;
        assert_int_equal(fv_cache_create(ctx, &desc_f32, &a), FV_OK);
        assert_int_equal(append(a, 0, 0, length, 1), FV_OK);
        size_t alone = (size_t)m.bytes;
        assert_int_equal(fv_cache_fork(a, &b), FV_OK);
        assert_true((size_t)m.bytes - alone < 8192); /* tables only */
        assert_ptr_equal(fvi_cache_page(a, 0, 0, 0), fvi_cache_page(b, 0, 0, 0));
        assert_int_equal(append(b, 0, length, 10, 5), FV_OK);
        check_layer(a, 0, length, 1);
        assert_int_equal(append(a, 0, length, 20, 3), FV_OK);
        assert_int_equal(fv_cache_length(b, 0), length + 10);
        check_entries(b, 0, 0, length, 1);
        check_entries(b, 0, length, length + 10, 5);
        check_entries(a, 0, 0, length, 1);
        check_entries(a, 0, length, length + 20, 3);
        assert_true((fvi_cache_page(a, 0, 0, 0) == fvi_cache_page(b, 0, 0, 0)) == (length >= 64));
        fv_cache_destroy(a);
        assert_int_equal(append(b, 0, length + 10, 64, 5), FV_OK);
        check_entries(b, 0, length, length + 74, 5);
        fv_cache_destroy(b);
    }
    assert_int_equal(alloc_fail_end(&m, ctx), 0);
}

static void truncate_of_a_fork(void **state) {
    (void)state;
    alloc_fail m;
    fv_context *ctx = alloc_fail_begin(&m, 1);
    fv_cache *a, *b;
    assert_int_equal(fv_cache_create(ctx, &desc_f32, &a), FV_OK);
    assert_int_equal(append(a, 0, 0, 190, 1), FV_OK);
    assert_int_equal(append(a, 1, 0, 120, 1), FV_OK);
    assert_int_equal(fv_cache_fork(a, &b), FV_OK);
    assert_int_equal(fv_cache_truncate(b, 150), FV_OK);
    check_layer(a, 0, 190, 1);
    check_layer(b, 0, 150, 1);
    check_layer(b, 1, 120, 1);
    assert_int_equal(append(b, 0, 150, 30, 7), FV_OK);
    check_layer(a, 0, 190, 1);
    check_entries(b, 0, 0, 150, 1);
    check_entries(b, 0, 150, 180, 7);
    fv_cache_destroy(a);
    check_entries(b, 0, 150, 180, 7);
    fv_cache_destroy(b);
    assert_int_equal(alloc_fail_end(&m, ctx), 0);
}

static void truncate_frees_and_goes_on(void **state) {
    (void)state;
    alloc_fail m;
    fv_context *ctx = alloc_fail_begin(&m, 1);
    fv_cache *cache;
    assert_int_equal(fv_cache_create(ctx, &desc_f32, &cache), FV_OK);
    assert_int_equal(append(cache, 0, 0, 300, 1), FV_OK);
    static const int64_t to[] = {300, 299, 257, 256, 255, 130, 64, 63, 1, 0};
    size_t last = fv_cache_bytes(cache);
    for (size_t i = 0; i < sizeof to / sizeof to[0]; i++) {
        size_t held = (size_t)m.bytes;
        assert_int_equal(fv_cache_truncate(cache, to[i]), FV_OK);
        check_layer(cache, 0, to[i], 1);
        assert_int_equal(held - (size_t)m.bytes, last - fv_cache_bytes(cache));
        if (i > 0 && (to[i - 1] + 63) / 64 != (to[i] + 63) / 64) {
            assert_true(fv_cache_bytes(cache) < last);
        }
        assert_int_equal(append(cache, 0, to[i], 70, 9), FV_OK);
        check_entries(cache, 0, 0, to[i], 1);
        check_entries(cache, 0, to[i], to[i] + 70, 9);
        assert_int_equal(fv_cache_truncate(cache, to[i]), FV_OK);
        last = fv_cache_bytes(cache);
    }
    assert_int_equal(fv_cache_truncate(cache, 1000), FV_OK);
    assert_int_equal(fv_cache_truncate(cache, -1), FV_ERR_ARGUMENT);
    fv_cache_destroy(cache);
    assert_int_equal(alloc_fail_end(&m, ctx), 0);
}

/* Each pair of types, rows, columns and heads in every order and direction, against the scalar conversions. */
static uint64_t encode(fv_dtype dtype, float f) {
    if (dtype == FV_F32) {
        uint32_t u;
        memcpy(&u, &f, 4);
        return u;
    }
    return dtype == FV_F16 ? fvi_f32_to_f16(f) : fvi_f32_to_bf16(f);
}

static float decode(fv_dtype dtype, const void *p) {
    uint16_t h;
    float f;
    memcpy(&f, p, dtype == FV_F32 ? 4 : 2);
    memcpy(&h, p, 2);
    return dtype == FV_F32 ? f : dtype == FV_F16 ? fvi_f16_to_f32(h) : fvi_bf16_to_f32(h);
}

static float awkward(fvi_rng *rng) {
    static const float list[] = {0, -0.0f, 65504, 65519, 65520, -70000, 1e-8f, 5.96e-8f, 6.1e-5f, 3e38f, INFINITY, 2049, 2051};
    uint64_t pick = fvi_rng_next(rng) % 20;
    return pick < 13 ? list[pick] : (float)((fvi_rng_unit(rng) - .5) * exp2(fvi_rng_unit(rng) * 60 - 30));
}

static void store(uint8_t *at, fv_dtype dtype, float f) {
    uint64_t u = encode(dtype, f);
    memcpy(at, &u, dtype == FV_F32 ? 4 : 2);
}

static void convert_case(fv_context *ctx, fv_dtype from, fv_dtype to, int order, fvi_rng *rng) {
    enum { H = 2, N = 67, D = 19 };
    static uint8_t data[4 * H * N * D];
    size_t size = from == FV_F32 ? 4 : 2;
    for (int64_t i = 0; i < H * N * D; i++) {
        store(data + (size_t)i * size, from, awkward(rng));
    }
    fv_tensor x = fv_tensor_view(data, from, 1, H, N, D), y = x;
    if (order == 1) { /* (d, n, h) in memory */
        x.stride[1] = 1, x.stride[2] = H, x.stride[3] = H * N;
    } else if (order == 2) { /* all backwards */
        x.data = data + (H * N * D - 1) * size;
        x.stride[1] = -N * D, x.stride[2] = -D, x.stride[3] = -1;
    } else if (order == 3) { /* one row for all */
        x.stride[1] = 0, x.stride[2] = 0;
    }
    fv_cache *cache;
    assert_int_equal(fv_cache_create(ctx, &(fv_cache_desc){1, H, D, D, to, to, false, false}, &cache), FV_OK);
    assert_int_equal(fv_cache_append(cache, 0, &x, &y), FV_OK);
    static uint8_t k[4 * N * D], v[4 * N * D];
    size_t out = to == FV_F32 ? 4 : 2;
    for (int64_t h = 0; h < H; h++) {
        assert_int_equal(fv_cache_read(cache, 0, h, 0, N, k, v), FV_OK);
        for (int64_t e = 0; e < N * D; e++) {
            int64_t at = h * x.stride[1] + e / D * x.stride[2] + e % D * x.stride[3];
            uint64_t want = encode(to, decode(from, (uint8_t *)x.data + at * (int64_t)size)), got = 0;
            memcpy(&got, k + (size_t)e * out, out);
            assert_int_equal(got, want);
            want = encode(to, decode(from, data + (size_t)(h * N * D + e) * size));
            memcpy(&got, v + (size_t)e * out, out);
            assert_int_equal(got, want);
        }
    }
    fv_cache_destroy(cache);
}

static void any_type_and_stride(void **state) {
    (void)state;
    fvi_rng rng = {20240517};
    print_message("seed %llu\n", (unsigned long long)rng.state);
    for (int level = FV_LEVEL_BEST; level <= FV_LEVEL_C; level++) {
        alloc_fail m;
        fv_context *ctx = alloc_fail_begin(&m, 1);
        if (level == FV_LEVEL_C) {
            ctx->cpu = (fvi_cpu){0};
        }
        for (int c = 0; c < 36; c++) {
            convert_case(ctx, (fv_dtype)(c % 3), (fv_dtype)(c / 3 % 3), c / 9, &rng);
        }
        assert_int_equal(alloc_fail_end(&m, ctx), 0);
    }
}

static void refuses(fv_cache *cache, int layer, fv_tensor k, fv_tensor v, fv_status status, const char *word) {
    assert_int_equal(fv_cache_append(cache, layer, &k, &v), status);
    assert_non_null(strstr(fv_message(cache->ctx), word));
    check_layer(cache, 0, 5, 1);
}

/* d_v = 0: wide rows of K alone, also where their numbers do not stand side by side; and attention over them. */
static void rows_alone(void **state) {
    (void)state;
    enum { D = 700, N = 70, W = 20 };
    alloc_fail m;
    fv_context *ctx = alloc_fail_begin(&m, 1);
    size_t before = (size_t)m.bytes;
    fv_cache_desc desc = {.layers = 1, .h_kv = 1, .d_k = D, .d_v = 0, .k_dtype = FV_F16, .v_dtype = FV_F16};
    fv_cache *cache, *fork;
    float *x = malloc(sizeof(float) * N * D);
    for (int i = 0; i < N * D; i++) {
        x[i] = (float)(i % 2039);
    }
    fv_tensor whole = fv_tensor_view(x, FV_F32, 1, 1, 40, D), turned = whole;
    turned.data = x + 40; /* (D, N): element (e, c) at c * N + e */
    turned.shape[2] = 30;
    turned.stride[2] = 1;
    turned.stride[3] = N;
    assert_int_equal(fv_cache_create(ctx, &desc, &cache), FV_OK);
    assert_int_equal(fv_cache_append(cache, 0, &whole, NULL), FV_OK);
    assert_int_equal(fv_cache_append(cache, 0, &turned, NULL), FV_OK);
    assert_int_equal(fv_cache_bytes(cache), (size_t)m.bytes - before);
    assert_true(fv_cache_bytes(cache) < 1.1 * 128 * D * 2); /* two pages of 64 rows, and nothing for V */
    assert_int_equal(fv_cache_fork(cache, &fork), FV_OK);
    assert_int_equal(fv_cache_truncate(fork, 65), FV_OK);
    uint16_t *back = malloc(sizeof(uint16_t) * N * D);
    assert_int_equal(fv_cache_read(cache, 0, 0, 0, N, back, back), FV_OK);
    for (int e = 0; e < N; e++) {
        for (int c = 0; c < D; c++) {
            float want = e < 40 ? x[e * D + c] : x[c * N + e];
            assert_true(fvi_f16_to_f32(back[e * D + c]) == want);
        }
    }
    float *w = calloc(W * D, sizeof *w), *out = malloc(sizeof(float) * D);
    const fv_el_layer layer = {.d_model = D, .h = 2, .d_head = W / 2, .w_q = w, .w_k = w, .w_v = w, .w_o = w};
    for (int64_t n = 1;; n++) {
        alloc_fail_arm(&m, n);
        fv_status status = fv_el_attention(ctx, &layer, fork, 0, x, 1, true, out);
        assert_int_equal(status, m.failed ? FV_ERR_MEMORY : FV_OK);
        if (!m.failed) {
            assert_true(n > 2);
            break;
        }
    }
    free(x);
    free(back);
    free(w);
    free(out);
    fv_cache_destroy(fork);
    fv_cache_destroy(cache);
    assert_int_equal(alloc_fail_end(&m, ctx), 0);
}

static void errors(void **state) {
    (void)state;
    alloc_fail m;
    fv_context *ctx = alloc_fail_begin(&m, 1);
    fv_cache *cache;
    static const fv_cache_desc bad[] = {
        {0, 1, 8, 8, FV_F32, FV_F32, false, false},    {1, 0, 8, 8, FV_F32, FV_F32, false, false},
        {1, 1, 0, 8, FV_F32, FV_F32, false, false},    {1, 1, 8, 257, FV_F32, FV_F32, false, false},
        {1, 1, 257, 8, FV_F32, FV_F32, false, false},  {1, 1, 16385, 0, FV_F32, FV_F32, false, false},
        {1, 1, 48, 32, FV_Q8_0, FV_F32, false, true},  {1, 1, 32, 80, FV_F32, FV_Q4_0, true, false},
        {1, 1, 512, 0, FV_Q8_0, FV_F32, false, false}, {1, 1, 512, 0, FV_F32, FV_F32, true, false},
        {1, 1, 32, 32, FV_Q4_1, FV_F32, false, false}, {1, 1, 32, 32, FV_F32, (fv_dtype)77, false, false},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(fv_cache_create(ctx, &bad[i], &cache), i < 10 ? FV_ERR_ARGUMENT : FV_ERR_UNSUPPORTED);
        assert_null(cache);
    }
    assert_int_equal(fv_cache_create(ctx, &desc_f32, &cache), FV_OK);
    assert_int_equal(append(cache, 0, 0, 5, 1), FV_OK);
    static float x[HEADS * 4 * DV];
    fv_tensor k = fv_tensor_view(x, FV_F32, 1, HEADS, 4, DK), v = fv_tensor_view(x, FV_F32, 1, HEADS, 4, DV), t;
    refuses(cache, -1, k, v, FV_ERR_ARGUMENT, "layer -1");
    refuses(cache, LAYERS, k, v, FV_ERR_ARGUMENT, "layer 2");
    refuses(cache, 0, v, k, FV_ERR_ARGUMENT, "k has rank 4");
    refuses(cache, 0, k, k, FV_ERR_ARGUMENT, "v has rank 4");
    t = v, t.shape[2] = 3;
    refuses(cache, 0, k, t, FV_ERR_ARGUMENT, "v has");
    t = k, t.shape[0] = 2;
    refuses(cache, 0, t, v, FV_ERR_ARGUMENT, "(2,");
    t = k, t.rank = 3;
    refuses(cache, 0, t, v, FV_ERR_ARGUMENT, "rank 3");
    t = k, t.dtype = FV_Q8_0;
    refuses(cache, 0, t, v, FV_ERR_UNSUPPORTED, "q8_0");
    t = k, t.data = NULL;
    refuses(cache, 0, t, v, FV_ERR_ARGUMENT, "no data");
    t = k, t.shape[2] = INT32_MAX - 4;
    fv_tensor u = v;
    u.shape[2] = INT32_MAX - 4;
    refuses(cache, 0, t, u, FV_ERR_RANGE, "position 5");
    assert_int_equal(fv_cache_read(cache, 0, 0, 3, 3, x, NULL), FV_ERR_RANGE);
    assert_int_equal(fv_cache_read(cache, 0, 0, -1, 1, x, NULL), FV_ERR_RANGE);
    assert_int_equal(fv_cache_read(cache, 0, HEADS, 0, 1, x, NULL), FV_ERR_ARGUMENT);
    assert_int_equal(fv_cache_read(cache, 0, 0, 5, 0, x, NULL), FV_OK);
    fv_cache_destroy(cache);
    assert_int_equal(alloc_fail_end(&m, ctx), 0);
}

/* Create, append, fork, append, truncate. At the first error everything must be as it was before that call. */
static fv_status story(fv_context *ctx, fv_cache **a, fv_cache **b) {
    fv_status status = fv_cache_create(ctx, &desc_f32, a);
    if (status != FV_OK) {
        return status;
    }
    if ((status = append(*a, 0, 0, 100, 1)) != FV_OK) {
        check_layer(*a, 0, 0, 1);
        return status;
    }
    if ((status = fv_cache_fork(*a, b)) != FV_OK) {
        return status;
    }
    if ((status = append(*b, 0, 100, 1200, 1)) != FV_OK) {
        check_layer(*b, 0, 100, 1);
        check_layer(*a, 0, 100, 1);
        return append(*b, 0, 100, 200, 1) == FV_OK ? check_layer(*b, 0, 300, 1), status : FV_ERR_STATE;
    }
    if ((status = fv_cache_truncate(*a, 70)) != FV_OK) {
        check_layer(*a, 0, 100, 1);
        return status;
    }
    if ((status = append(*a, 0, 70, 64, 1)) != FV_OK) {
        check_layer(*a, 0, 70, 1);
        return status;
    }
    check_entries(*b, 0, 0, 100, 1);
    check_layer(*a, 0, 134, 1);
    return FV_OK;
}

static void each_allocation_fails_once(void **state) {
    (void)state;
    fv_status status = FV_ERR_MEMORY;
    long long n = 0;
    while (status != FV_OK) {
        alloc_fail m;
        fv_context *ctx = alloc_fail_begin(&m, 1);
        size_t before = (size_t)m.bytes;
        alloc_fail_arm(&m, ++n);
        fv_cache *a = NULL, *b = NULL;
        status = story(ctx, &a, &b);
        assert_true(status == FV_OK || status == FV_ERR_MEMORY);
        size_t bytes = (size_t)m.bytes - before;
        if (a != NULL && b == NULL) {
            assert_int_equal(bytes, fv_cache_bytes(a));
        }
        fv_cache_destroy(b);
        fv_cache_destroy(a);
        assert_int_equal(m.bytes, before);
        assert_int_equal(alloc_fail_end(&m, ctx), 0);
    }
    print_message("%lld allocations refused one by one\n", n - 1);
    assert_true(n > 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_and_whole),           cmocka_unit_test(forks_do_not_see_each_other),
        cmocka_unit_test(truncate_of_a_fork),         cmocka_unit_test(truncate_frees_and_goes_on),
        cmocka_unit_test(any_type_and_stride),        cmocka_unit_test(errors),
        cmocka_unit_test(each_allocation_fails_once), cmocka_unit_test(rows_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
