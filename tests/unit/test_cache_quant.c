/* test_cache_quant.c - caches of quantised and rotated entries: the same bytes however entries came, bytes counted exactly, forks
 * and cuts inside a page, entries put back as they were read; every allocation refused once. */
#include "alloc_fail.h"
#include "base/rng.h"
#include "cache/cache.h"
#include "kernel/convert.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { HEADS = 2, DK = 96, DV = 32, MOST = 331, ROW = DK * 4 };

static const fv_cache_desc descs[] = {
    {1, HEADS, DK, DV, FV_Q8_0, FV_Q8_0, false, false}, {1, HEADS, DK, DV, FV_Q4_0, FV_Q4_0, true, true},
    {1, HEADS, DK, DV, FV_Q8_0, FV_Q4_0, false, true},  {1, HEADS, DK, DV, FV_BF16, FV_Q8_0, true, false},
    {1, HEADS, DK, DV, FV_Q4_0, FV_F32, false, true},
};
enum { DESCS = sizeof descs / sizeof descs[0] };

static float k_rows[HEADS * MOST * DK], v_rows[HEADS * MOST * DV], other_k[HEADS * MOST * DK], other_v[HEADS * MOST * DV];

static int fill(void **state) {
    (void)state;
    fvi_rng rng = {20260101};
    for (int i = 0; i < HEADS * MOST * DK; i++) {
        k_rows[i] = (float)(fvi_rng_unit(&rng) - .5) * (i % 17 == 0 ? 20 : 1);
        other_k[i] = (float)fvi_rng_unit(&rng);
        v_rows[i / 3] = (float)(fvi_rng_unit(&rng) - .5);
        other_v[i / 3] = -v_rows[i / 3];
    }
    return 0;
}

/* Entries [from, from + n) of (HEADS, MOST, d). */
static fv_tensor rows_of(const float *x, int64_t d, int64_t from, int64_t n) {
    fv_tensor t = fv_tensor_view(x + from * d, FV_F32, 1, HEADS, MOST, d);
    t.shape[2] = n;
    return t;
}

static fv_status append(fv_cache *cache, int64_t from, int64_t n, bool other) {
    fv_tensor k = rows_of(other ? other_k : k_rows, DK, from, n), v = rows_of(other ? other_v : v_rows, DV, from, n);
    return fv_cache_append(cache, 0, &k, &v);
}

static fv_cache *new_cache(fv_context *ctx, const fv_cache_desc *desc) {
    fv_cache *cache;
    assert_int_equal(fv_cache_create(ctx, desc, &cache), FV_OK);
    return cache;
}

/* Entries [from, to) of both caches are the same bytes. */
static void assert_same(const fv_cache *a, const fv_cache *b, int64_t from, int64_t to) {
    static uint8_t k[2][MOST * ROW], v[2][MOST * ROW];
    const fv_cache_desc d = fv_cache_describe(a);
    size_t n = (size_t)(to - from), k_bytes = n * fv_dtype_bytes(d.k_dtype, DK), v_bytes = n * fv_dtype_bytes(d.v_dtype, DV);
    for (int h = 0; h < HEADS; h++) {
        assert_int_equal(fv_cache_read(a, 0, h, from, to - from, k[0], v[0]), FV_OK);
        assert_int_equal(fv_cache_read(b, 0, h, from, to - from, k[1], v[1]), FV_OK);
        assert_memory_equal(k[0], k[1], k_bytes);
        assert_memory_equal(v[0], v[1], v_bytes);
    }
}

/* What is read is near what went in. */
static void assert_near(const fv_cache *cache, int64_t n) {
    static uint8_t k[MOST * ROW], v[MOST * ROW];
    const fv_cache_desc d = fv_cache_describe(cache);
    double most = d.k_dtype == FV_Q4_0 ? 1.4 : d.k_dtype == FV_Q8_0 ? 0.05 : 0.05; /* |k| <= 10 */
    for (int h = 0; h < HEADS; h++) {
        assert_int_equal(fv_cache_read(cache, 0, h, 0, n, k, v), FV_OK);
        for (int64_t e = 0; e < n; e++) {
            float x[DK];
            assert_true(fvi_convert_to_f32(d.k_dtype, k + (size_t)e * fv_dtype_bytes(d.k_dtype, DK), DK, x));
            if (d.rotate_k) {
                cache->quant.rotate(x, DK);
            }
            for (int i = 0; i < DK; i++) {
                assert_true(fabs((double)(x[i] - k_rows[(h * MOST + e) * DK + i])) <= most);
            }
        }
    }
}

static void any_chunking(void **state) {
    (void)state;
    static const int64_t cut[] = {0, 1, 2, 5, 63, 64, 65, 127, 128, 200, MOST};
    for (int c = 0; c < DESCS; c++) {
        alloc_fail m;
        fv_context *ctx = alloc_fail_begin(&m, 1);
        fv_cache *whole = new_cache(ctx, &descs[c]);
        assert_int_equal(append(whole, 0, MOST, false), FV_OK);
        assert_near(whole, MOST);
        fv_cache *pieces = new_cache(ctx, &descs[c]);
        for (size_t i = 1; i < sizeof cut / sizeof cut[0]; i++) {
            assert_int_equal(append(pieces, cut[i - 1], cut[i] - cut[i - 1], false), FV_OK);
        }
        assert_same(whole, pieces, 0, MOST);
        fv_cache_destroy(pieces);
        ctx->cpu = (fvi_cpu){0};
        fv_cache *portable = new_cache(ctx, &descs[c]);
        assert_int_equal(append(portable, 0, MOST, false), FV_OK);
        assert_same(whole, portable, 0, MOST);
        fv_cache_destroy(portable);
        fv_cache_destroy(whole);
        assert_int_equal(alloc_fail_end(&m, ctx), 0);
    }
}

/* Numbers of other types, and of rows whose numbers stand apart. */
static void any_source(void **state) {
    (void)state;
    static uint16_t f16[HEADS * MOST * DK], bf16[HEADS * MOST * DK];
    static float turned[HEADS * MOST * DK], wide[HEADS * MOST * DK];
    fv_context *ctx;
    assert_int_equal(fv_context_create(NULL, &ctx), FV_OK);
    const fv_cache_desc desc = {1, HEADS, DK, DK, FV_Q8_0, FV_Q4_0, true, false};
    for (int type = FV_F16; type <= FV_BF16; type++) {
        for (int i = 0; i < HEADS * MOST * DK; i++) {
            f16[i] = fvi_f32_to_f16(k_rows[i]);
            bf16[i] = fvi_f32_to_bf16(k_rows[i]);
            wide[i] = type == FV_F16 ? fvi_f16_to_f32(f16[i]) : fvi_bf16_to_f32(bf16[i]);
        }
        for (int e = 0; e < HEADS * MOST; e++) { /* (d, h n) in memory */
            for (int i = 0; i < DK; i++) {
                turned[i * HEADS * MOST + e] = wide[e * DK + i];
            }
        }
        fv_tensor a = fv_tensor_view(type == FV_F16 ? f16 : bf16, (fv_dtype)type, 1, HEADS, MOST, DK);
        fv_tensor b = fv_tensor_view(wide, FV_F32, 1, HEADS, MOST, DK), c = b;
        c.data = turned;
        c.stride[1] = MOST, c.stride[2] = 1, c.stride[3] = HEADS * MOST;
        fv_cache *x = new_cache(ctx, &desc), *y = new_cache(ctx, &desc);
        assert_int_equal(fv_cache_append(x, 0, &a, &c), FV_OK);
        assert_int_equal(fv_cache_append(y, 0, &b, &a), FV_OK);
        uint8_t k[2][34 * DK / 32], v[2][18 * DK / 32];
        for (int64_t e = 0; e < MOST; e++) {
            assert_int_equal(fv_cache_read(x, 0, 1, e, 1, k[0], v[0]), FV_OK);
            assert_int_equal(fv_cache_read(y, 0, 1, e, 1, k[1], v[1]), FV_OK);
            assert_memory_equal(k[0], k[1], sizeof k[0]);
            assert_memory_equal(v[0], v[1], sizeof v[0]);
        }
        fv_cache_destroy(x);
        fv_cache_destroy(y);
    }
    fv_context_destroy(ctx);
}

/* A page is its header and what the formats say, to the byte. */
static void bytes_are_those_of_the_formats(void **state) {
    (void)state;
    for (int c = 0; c < 3; c++) {
        alloc_fail m;
        fv_context *ctx = alloc_fail_begin(&m, 1);
        size_t before = (size_t)m.bytes, entry = fv_dtype_bytes(descs[c].k_dtype, DK) + fv_dtype_bytes(descs[c].v_dtype, DV);
        size_t page = fv_cache_page_bytes(&descs[c], 1) / HEADS;
        assert_true(page >= 64 * entry && page <= 64 * entry + 320);
        fv_cache *cache = new_cache(ctx, &descs[c]);
        assert_int_equal(append(cache, 0, 129, false), FV_OK);
        assert_int_equal(fv_cache_bytes(cache), (size_t)m.bytes - before);
        assert_int_equal(cache->page_bytes, page);
        assert_int_equal(fv_cache_page_bytes(&descs[c], 129), 3 * HEADS * page);
        const fvi_page *first = fvi_cache_page(cache, 0, 0, 0);
        assert_int_equal((uintptr_t)first->k % 64 + (uintptr_t)first->v % 64, 0);
        fv_cache_destroy(cache);
        assert_int_equal(alloc_fail_end(&m, ctx), 0);
    }
    fv_cache_desc huge = {65536, 65536, 256, 256, FV_Q8_0, FV_Q8_0, false, false};
    assert_true(fv_cache_page_bytes(&huge, INT32_MAX) == SIZE_MAX);
}

/* Forks and cuts around a page's end: what one holds does not change when the other goes another way. */
static void forks_and_cuts(void **state) {
    (void)state;
    static const int64_t at[] = {1, 63, 64, 65, 100, 128, 130};
    for (int c = 0; c < DESCS; c++) {
        alloc_fail m;
        fv_context *ctx = alloc_fail_begin(&m, 1);
        fv_cache *whole = new_cache(ctx, &descs[c]), *another = new_cache(ctx, &descs[c]);
        assert_int_equal(append(whole, 0, MOST, false), FV_OK);
        assert_int_equal(append(another, 0, MOST, true), FV_OK);
        for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
            fv_cache *a = new_cache(ctx, &descs[c]), *b;
            assert_int_equal(append(a, 0, 130, false), FV_OK);
            assert_int_equal(fv_cache_fork(a, &b), FV_OK);
            assert_int_equal(fv_cache_truncate(b, at[i]), FV_OK);
            assert_int_equal(append(b, at[i], 90, true), FV_OK);
            assert_same(b, whole, 0, at[i]);
            assert_same(b, another, at[i], at[i] + 90);
            assert_same(a, whole, 0, 130);
            assert_int_equal(fv_cache_truncate(a, at[i]), FV_OK);
            assert_int_equal(append(a, at[i], 200, false), FV_OK);
            assert_same(a, whole, 0, at[i] + 200);
            assert_same(b, another, at[i], at[i] + 90);
            fv_cache_destroy(a);
            fv_cache_destroy(b);
        }
        fv_cache_destroy(whole);
        fv_cache_destroy(another);
        assert_int_equal(alloc_fail_end(&m, ctx), 0);
    }
}

/* (HEADS, n) rows as fv_cache_read gives them. */
static void read_all(const fv_cache *cache, int64_t from, int64_t n, uint8_t *k, uint8_t *v) {
    const fv_cache_desc d = fv_cache_describe(cache);
    for (int64_t h = 0; h < HEADS; h++) {
        assert_int_equal(fv_cache_read(cache, 0, h, from, n, k + (size_t)(h * n) * fv_dtype_bytes(d.k_dtype, DK),
                                       v + (size_t)(h * n) * fv_dtype_bytes(d.v_dtype, DV)),
                         FV_OK);
    }
}

static void read_and_put_back(void **state) {
    (void)state;
    static uint8_t k[HEADS * MOST * ROW], v[HEADS * MOST * ROW];
    for (int c = 0; c < DESCS; c++) {
        fv_context *ctx;
        assert_int_equal(fv_context_create(NULL, &ctx), FV_OK);
        fv_cache *cache = new_cache(ctx, &descs[c]), *again = new_cache(ctx, &descs[c]);
        assert_int_equal(append(cache, 0, MOST, false), FV_OK);
        for (int64_t from = 0; from < MOST;) {
            int64_t n = fvi_min(from == 0 ? 100 : 91, MOST - from);
            read_all(cache, from, n, k, v);
            assert_int_equal(fv_cache_restore(again, 0, n, k, v), FV_OK);
            from += n;
        }
        assert_int_equal(fv_cache_length(again, 0), MOST);
        assert_same(cache, again, 0, MOST);
        assert_int_equal(append(again, 0, 40, false), FV_OK); /* it goes on */
        assert_int_equal(fv_cache_restore(again, 1, 1, k, v), FV_ERR_ARGUMENT);
        assert_non_null(strstr(fv_message(ctx), "fv_cache_restore: layer 1"));
        assert_int_equal(fv_cache_restore(again, 0, -1, k, v), FV_ERR_RANGE);
        assert_int_equal(fv_cache_restore(again, 0, 1, k, NULL), FV_ERR_ARGUMENT);
        assert_non_null(strstr(fv_message(ctx), "v has no data"));
        assert_int_equal(fv_cache_restore(again, 0, 0, NULL, NULL), FV_OK);
        fv_tensor no_k = fv_tensor_view(NULL, FV_F32, 1, HEADS, 0, DK), no_v = fv_tensor_view(NULL, FV_F32, 1, HEADS, 0, DV);
        assert_int_equal(fv_cache_append(again, 0, &no_k, &no_v), FV_OK);
        assert_int_equal(fv_cache_length(again, 0), MOST + 40);
        fv_cache_destroy(cache);
        fv_cache_destroy(again);
        fv_context_destroy(ctx);
    }
}

static void what_cannot_be(void **state) {
    (void)state;
    fv_context *ctx;
    fv_cache *cache;
    assert_int_equal(fv_context_create(NULL, &ctx), FV_OK);
    const fv_cache_desc narrow = {1, 1, 80, 64, FV_Q8_0, FV_F16, false, false};
    assert_int_equal(fv_cache_create(ctx, &narrow, &cache), FV_ERR_ARGUMENT);
    assert_non_null(strstr(fv_message(ctx), "d_k is 80 and its format q8_0, which takes widths that are multiples of 32"));
    cache = new_cache(ctx, &descs[0]);
    static uint8_t blocks[HEADS * 34 * DK / 32];
    fv_tensor k = fv_tensor_view(blocks, FV_Q8_0, 1, HEADS, 1, DK), v = fv_tensor_view(v_rows, FV_F32, 1, HEADS, 1, DV);
    assert_int_equal(fv_cache_append(cache, 0, &k, &v), FV_ERR_UNSUPPORTED);
    assert_non_null(strstr(fv_message(ctx), "k is q8_0, must be f32, f16 or bf16"));
    fv_cache_destroy(cache);
    fv_context_destroy(ctx);
}

/* At the first error everything is as it was before that call. */
static fv_status story(fv_context *ctx, fv_cache **a, fv_cache **b) {
    static uint8_t k[HEADS * 100 * ROW], v[HEADS * 100 * ROW];
    fv_status status = fv_cache_create(ctx, &descs[1], a);
    if (status != FV_OK || (status = append(*a, 0, 100, false)) != FV_OK || (status = fv_cache_fork(*a, b)) != FV_OK) {
        return status;
    }
    read_all(*a, 0, 100, k, v);
    if ((status = fv_cache_restore(*b, 0, 100, k, v)) != FV_OK) {
        assert_int_equal(fv_cache_length(*b, 0), 100);
        assert_same(*a, *b, 0, 100);
        return status;
    }
    assert_same(*a, *b, 0, 100);
    return fv_cache_truncate(*a, 70);
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
        fv_cache_destroy(b);
        fv_cache_destroy(a);
        assert_int_equal(m.bytes, before);
        assert_int_equal(alloc_fail_end(&m, ctx), 0);
    }
    print_message("%lld allocations refused one by one\n", n - 1);
    assert_true(n > 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_chunking),
        cmocka_unit_test(any_source),
        cmocka_unit_test(forks_and_cuts),
        cmocka_unit_test(bytes_are_those_of_the_formats),
        cmocka_unit_test(read_and_put_back),
        cmocka_unit_test(what_cannot_be),
        cmocka_unit_test(each_allocation_fails_once),
    };
    return cmocka_run_group_tests(tests, fill, NULL);
}
