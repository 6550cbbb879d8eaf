/* test_gguf.c - what a right GGUF file gives: values, tensors, the listing, the default model, failing memory. */
#include "alloc_fail.h"
#include "gguf_sample.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char default_model[] = "models/fovea-27m-32k-q8_0.gguf";

static fv_context *ctx;

static int setup(void **state) {
    (void)state;
    return fv_context_create(&(fv_context_options){.threads = 1, .level = FV_LEVEL_BEST}, &ctx) == FV_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    fv_context_destroy(ctx);
    return 0;
}

static fvi_gguf *parse(const uint8_t *image, size_t size) {
    fvi_gguf *g;
    if (fvi_gguf_parse(ctx, "sample", image, size, &g) != FV_OK) {
        fail_msg("%s", fv_message(ctx));
    }
    return g;
}

static void message_has(const char *part) {
    if (strstr(fv_message(ctx), part) == NULL) {
        fail_msg("'%s' is not in: %s", part, fv_message(ctx));
    }
}

static void check_number(const fvi_gguf *g, const char *key, float wanted) {
    float v = 0;
    assert_int_equal(fvi_gguf_f32(g, key, true, &v), FV_OK);
    assert_true(v == wanted);
}

static void check_tensors(const fvi_gguf *g, uint32_t alignment) {
    assert_int_equal(g->n_tensors, 8);
    for (int t = FV_F32; t <= FV_Q4_1; t++) {
        char name[16];
        snprintf(name, sizeof name, "w.%s", fv_dtype_name((fv_dtype)t));
        const fvi_gguf_tensor *w = fvi_gguf_find_tensor(g, name);
        assert_non_null(w);
        assert_int_equal(w->dtype, t);
        assert_int_equal(w->rank, 2);
        assert_true(w->shape[0] == 64 && w->shape[1] == 3 && w->shape[2] == 1 && w->shape[3] == 1);
        assert_int_equal(w->bytes, fv_dtype_bytes((fv_dtype)t, 64 * 3));
        assert_int_equal(w->offset % alignment, 0);
        assert_ptr_equal(w->data, g->map + w->offset);
        assert_string_equal(fvi_gguf_type_name(w->file_type), fv_dtype_name((fv_dtype)t));
    }
    const fvi_gguf_tensor *other = fvi_gguf_find_tensor(g, "w.q5_0");
    assert_int_equal(other->dtype, FV_DTYPE_COUNT);
    assert_int_equal(other->file_type, 6);
    assert_int_equal(other->bytes, 22);
    assert_null(fvi_gguf_find_tensor(g, "w.q5"));
}

static void test_versions_and_alignments(void **state) {
    (void)state;
    static const uint32_t alignment[] = {8, 16, 32, 64, 4096};
    for (uint32_t version = 2; version <= 3; version++) {
        for (size_t a = 0; a < sizeof alignment / sizeof *alignment; a++) {
            size_t size;
            uint8_t *image = sample_image(version, alignment[a], &size);
            fvi_gguf *g = parse(image, size);
            assert_int_equal(g->version, version);
            assert_int_equal(g->n_entries, 19);
            check_tensors(g, alignment[a]);
            fvi_gguf_destroy(g);
            free(image);
        }
    }
}

static void test_tensor_values(void **state) {
    (void)state;
    float v[64], least = 1e9f;
    for (int i = 0; i < 64; i++) {
        v[i] = (float)(i * 37 % 64) - 20;
        least = fminf(least, v[i]);
    }
    gguf_builder b = gb_begin();
    gb_tensor(&b, "f32", FV_F32, 1, (int64_t[]){64}, v);
    gb_tensor(&b, "q8_0", FV_Q8_0, 2, (int64_t[]){32, 2}, v);
    size_t size;
    uint8_t *image = gb_image(&b, &size);
    fvi_gguf *g = parse(image, size);
    assert_memory_equal(fvi_gguf_find_tensor(g, "f32")->data, v, sizeof v);
    const uint8_t *q = fvi_gguf_find_tensor(g, "q8_0")->data;
    uint16_t half;
    memcpy(&half, q, 2);
    for (int i = 0; i < 32; i++) {
        float back = fvi_f16_to_f32(half) * (float)(int8_t)q[2 + i];
        assert_true(fabsf(back - v[i]) < 0.3f);
    }
    fvi_gguf_destroy(g);
    free(image);
    gb_end(&b);
}

static void test_numbers(void **state) {
    (void)state;
    size_t size;
    uint8_t *image = sample_image(3, 32, &size);
    fvi_gguf *g = parse(image, size);
    check_number(g, "v.u8", 200);
    check_number(g, "v.i8", -5);
    check_number(g, "v.u16", 60000);
    check_number(g, "v.i16", -3000);
    check_number(g, "v.u32", 4000000000.f);
    check_number(g, "v.i32", -7);
    check_number(g, "v.f32", 0.5f);
    check_number(g, "v.bool", 1);
    check_number(g, "v.u64", 1e19f);
    check_number(g, "v.i64", -5e9f);
    check_number(g, "v.f64", 0.1f);
    uint32_t u = 5;
    assert_int_equal(fvi_gguf_u32(g, "v.u16", true, 60000, 60000, &u), FV_OK);
    assert_int_equal(u, 60000);
    assert_int_equal(fvi_gguf_u32(g, "v.u32", true, 0, UINT32_MAX, &u), FV_OK);
    assert_true(u == 4000000000u);
    u = 5;
    assert_int_equal(fvi_gguf_u32(g, "absent", false, 0, 9, &u), FV_OK);
    assert_int_equal(u, 5);
    bool flag = false;
    assert_int_equal(fvi_gguf_bool(g, "v.bool", &flag), FV_OK);
    assert_true(flag);
    assert_int_equal(fvi_gguf_bool(g, "absent", &flag), FV_OK);
    assert_true(flag);
    fvi_gguf_destroy(g);
    free(image);
}

static void test_wrong_numbers(void **state) {
    (void)state;
    size_t size;
    uint8_t *image = sample_image(3, 32, &size);
    fvi_gguf *g = parse(image, size);
    uint32_t u = 5;
    float f = 5;
    bool flag = true;
    assert_int_equal(fvi_gguf_u32(g, "absent", true, 0, 9, &u), FV_ERR_FORMAT);
    message_has("sample: the metadata has no 'absent'");
    static const char *const bad[] = {"v.u8", "v.i8", "v.i32", "v.f32", "v.u64", "v.i64", "v.string", "a.f32"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char wanted[64];
        size_t after_type = sample_record(image, size, bad[i]) + 8 + strlen(bad[i]) + 4;
        size_t value = after_type + (strcmp(bad[i], "a.f32") == 0 ? 12 : 0);
        snprintf(wanted, sizeof wanted, "sample: offset 0x%zx: key '%s':", value, bad[i]);
        assert_int_equal(fvi_gguf_u32(g, bad[i], false, 1, 100, &u), FV_ERR_FORMAT);
        message_has(wanted);
    }
    assert_int_equal(fvi_gguf_u32(g, "v.u8", false, 201, 300, &u), FV_ERR_FORMAT);
    message_has("a whole number from 201 to 300 is right");
    assert_int_equal(u, 5);
    assert_int_equal(fvi_gguf_f32(g, "v.string", false, &f), FV_ERR_FORMAT);
    message_has("its type is string, a number is right");
    assert_int_equal(fvi_gguf_bool(g, "v.u8", &flag), FV_ERR_FORMAT);
    fvi_gguf_destroy(g);
    free(image);
}

static void test_infinite_numbers(void **state) {
    (void)state;
    const double huge = 1e300, none = NAN;
    gguf_builder b = gb_begin();
    gb_value(&b, "huge", FVI_GGUF_F64, &huge);
    gb_value(&b, "none", FVI_GGUF_F64, &none);
    gb_f32(&b, "inf", INFINITY);
    size_t size;
    uint8_t *image = gb_image(&b, &size);
    fvi_gguf *g = parse(image, size);
    static const char *const key[] = {"huge", "none", "inf"};
    for (int i = 0; i < 3; i++) {
        float f = 5;
        uint32_t u = 5;
        assert_int_equal(fvi_gguf_f32(g, key[i], true, &f), FV_ERR_FORMAT);
        message_has("a finite f32 is right");
        assert_int_equal(fvi_gguf_u32(g, key[i], true, 0, UINT32_MAX, &u), FV_ERR_FORMAT);
    }
    fvi_gguf_destroy(g);
    free(image);
    gb_end(&b);
}

static void test_strings(void **state) {
    (void)state;
    size_t size;
    uint8_t *image = sample_image(3, 32, &size);
    fvi_gguf *g = parse(image, size);
    fvi_string s;
    assert_int_equal(fvi_gguf_string(g, "last", &s), FV_OK);
    assert_true(s.size == 3 && memcmp(s.data, "end", 3) == 0);
    assert_int_equal(fvi_gguf_string(g, "absent", &s), FV_OK);
    assert_null(s.data);
    assert_int_equal(fvi_gguf_string(g, "v.u32", &s), FV_ERR_FORMAT);
    message_has("its type is u32, a string is right");
    assert_int_equal(fvi_gguf_string(g, "a.string", &s), FV_ERR_FORMAT);
    message_has("its type is array of string, a string is right");
    const fvi_gguf_entry *e = fvi_gguf_find(g, "a.string");
    static const char *const wanted[] = {"a", "", "caf\xc3\xa9", "tab\there"};
    assert_int_equal(e->count, 4);
    const uint8_t *cursor = NULL;
    for (int i = 0; i < 4; i++) {
        s = fvi_gguf_next_string(e, &cursor);
        assert_int_equal(s.size, strlen(wanted[i]));
        assert_memory_equal(s.data, wanted[i], s.size);
    }
    assert_ptr_equal(cursor, e->data + e->bytes);
    e = fvi_gguf_find(g, "a.none");
    assert_true(e->count == 0 && e->bytes == 0);
    fvi_gguf_destroy(g);
    free(image);
}

static const fv_file_entry *listed(const fv_file *f, const char *name) {
    for (int64_t i = 0; fv_file_metadata(f, i) != NULL; i++) {
        if (strcmp(fv_file_metadata(f, i)->name, name) == 0) {
            return fv_file_metadata(f, i);
        }
    }
    for (int64_t i = 0; fv_file_tensor(f, i) != NULL; i++) {
        if (strcmp(fv_file_tensor(f, i)->name, name) == 0) {
            return fv_file_tensor(f, i);
        }
    }
    fail_msg("'%s' is not listed", name);
    return NULL;
}

static void check_listed(const fv_file *f, const char *name, const char *type, const char *value) {
    const fv_file_entry *e = listed(f, name);
    assert_string_equal(e->type, type);
    assert_string_equal(e->value, value);
}

static void test_listing(void **state) {
    (void)state;
    size_t size;
    uint8_t *image = sample_image(2, 32, &size);
    fvi_gguf *g = parse(image, size);
    fv_file *f;
    assert_int_equal(fvi_file_from_gguf(g, &f), FV_OK);
    assert_int_equal(fv_file_version(f), 2);
    check_listed(f, "v.u8", "u8", "200");
    check_listed(f, "v.i8", "i8", "-5");
    check_listed(f, "v.u16", "u16", "60000");
    check_listed(f, "v.i16", "i16", "-3000");
    check_listed(f, "v.u32", "u32", "4000000000");
    check_listed(f, "v.i32", "i32", "-7");
    check_listed(f, "v.f32", "f32", "0.5");
    check_listed(f, "v.bool", "bool", "true");
    check_listed(f, "v.u64", "u64", "10000000000000000000");
    check_listed(f, "v.i64", "i64", "-5000000000");
    check_listed(f, "v.f64", "f64", "0.10000000000000001");
    check_listed(f, "v.string", "string", "line\\nnext \\x1b[31m \\xff end");
    check_listed(f, "a.f32", "f32[3]", "[1.5, -2.25, 3.00000006e+20]");
    check_listed(f, "a.bool", "bool[3]", "[true, false, true]");
    check_listed(f, "a.none", "u64[0]", "[]");
    check_listed(f, "a.string", "string[4]", "[\"a\", \"\", \"caf\xc3\xa9\", \"tab\\there\"]");
    check_listed(f, "w.q8_0", "q8_0", "64 x 3");
    check_listed(f, "w.q5_0", "q5_0", "32");
    assert_int_equal(listed(f, "w.q5_0")->bytes, 22);
    assert_null(fv_file_metadata(f, -1));
    assert_null(fv_file_metadata(f, 19));
    assert_null(fv_file_tensor(f, 8));
    fvi_gguf_destroy(g);
    assert_string_equal(fv_file_metadata(f, 0)->value, "llama"); /* a listing outlives its file */
    fv_file_destroy(f);
    free(image);
}

static void test_long_values(void **state) {
    (void)state;
    char text[1000];
    int32_t many[100];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (int i = 0; i < 100; i++) {
        many[i] = i - 1;
    }
    gguf_builder b = gb_begin();
    gb_string(&b, "text", text);
    gb_array(&b, "many", FVI_GGUF_I32, many, 100);
    size_t size;
    uint8_t *image = gb_image(&b, &size);
    fvi_gguf *g = parse(image, size);
    fv_file *f;
    assert_int_equal(fvi_file_from_gguf(g, &f), FV_OK);
    assert_true(strlen(listed(f, "text")->value) < 300);
    assert_non_null(strstr(listed(f, "text")->value, "x... (999 bytes)"));
    check_listed(f, "many", "i32[100]", "[-1, 0, 1, 2, 3, 4, 5, 6, ... 92 more]");
    assert_int_equal(listed(f, "many")->bytes, 400);
    fv_file_destroy(f);
    fvi_gguf_destroy(g);
    free(image);
    gb_end(&b);
}

static void test_nothing_in_it(void **state) {
    (void)state;
    gguf_builder b = gb_begin();
    size_t size;
    uint8_t *image = gb_image(&b, &size);
    assert_int_equal(size, 24);
    fvi_gguf *g = parse(image, size);
    fv_file *f;
    assert_int_equal(fvi_file_from_gguf(g, &f), FV_OK);
    assert_null(fv_file_metadata(f, 0));
    assert_null(fv_file_tensor(f, 0));
    fv_file_destroy(f);
    fv_file_destroy(NULL);
    fvi_gguf_destroy(g);
    fvi_gguf_destroy(NULL);
    free(image);
}

static void test_default_model(void **state) {
    (void)state;
    if (access(default_model, R_OK) != 0) {
        skip();
    }
    fvi_gguf *g;
    assert_int_equal(fvi_gguf_open(ctx, default_model, &g), FV_OK);
    uint32_t layers = 0, context = 0;
    float base = 0;
    bool bos = false;
    assert_int_equal(fvi_gguf_u32(g, "llama.block_count", true, 1, 1000, &layers), FV_OK);
    assert_int_equal(fvi_gguf_u32(g, "llama.context_length", true, 1, 1u << 30, &context), FV_OK);
    assert_int_equal(fvi_gguf_f32(g, "llama.rope.freq_base", true, &base), FV_OK);
    assert_int_equal(fvi_gguf_bool(g, "tokenizer.ggml.add_bos_token", &bos), FV_OK);
    assert_true(layers == 8 && context == 32768 && base == 1e6f && bos);
    assert_int_equal(g->n_entries, 22);
    assert_int_equal(fvi_gguf_find(g, "tokenizer.ggml.tokens")->count, 8192);
    const fvi_gguf_tensor *t = fvi_gguf_find_tensor(g, "token_embd.weight");
    assert_true(t->dtype == FV_Q8_0 && t->shape[0] == 512 && t->shape[1] == 8192 && t->bytes == 4456448);
    int64_t weights = 0;
    for (int64_t i = 0; i < g->n_tensors; i++) {
        weights += gb_elements(g->tensor[i].rank, g->tensor[i].shape);
    }
    assert_true(weights > 26000000 && weights < 28000000);
    fvi_gguf_destroy(g);
}

static void test_every_allocation_fails(void **state) {
    (void)state;
    char path[] = "/tmp/fovea-gguf-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    size_t size;
    uint8_t *image = sample_image(3, 32, &size);
    assert_true(gb_save(path, image, size));
    free(image);
    long long n = 1;
    for (;; n++) {
        alloc_fail a;
        fv_context *failing = alloc_fail_begin(&a, 1);
        assert_non_null(failing);
        alloc_fail_arm(&a, n);
        fv_file *f = NULL;
        fv_status status = fv_file_open(failing, path, &f);
        fv_file_destroy(f);
        if (a.failed) {
            assert_int_equal(status, FV_ERR_MEMORY);
            assert_null(f);
            assert_non_null(strstr(fv_message(failing), path));
        }
        assert_int_equal(alloc_fail_end(&a, failing), 0);
        if (!a.failed) {
            assert_int_equal(status, FV_OK);
            break;
        }
    }
    print_message("%lld allocations, each failed once\n", n - 1);
    assert_true(n > 5);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions_and_alignments),
        cmocka_unit_test(test_tensor_values),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_wrong_numbers),
        cmocka_unit_test(test_infinite_numbers),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_listing),
        cmocka_unit_test(test_long_values),
        cmocka_unit_test(test_nothing_in_it),
        cmocka_unit_test(test_default_model),
        cmocka_unit_test(test_every_allocation_fails),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
