/* test_gguf_hostile.c - files that lie: each is refused with the right status and a message that names file, offset and field;
 * cut at every length and with bytes changed at random, nothing crashes; memory and time stay within the file's size. */
#include "alloc_fail.h"
#include "gguf_sample.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static alloc_fail memory;
static fv_context *ctx;

static int setup(void **state) {
    (void)state;
    ctx = alloc_fail_begin(&memory, 1);
    return ctx != NULL ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    return alloc_fail_end(&memory, ctx);
}

/* Parses an exact copy, so that a sanitizer sees one byte too far; walks everything if it is accepted. */
static fv_status parse(const uint8_t *image, size_t size) {
    uint8_t *copy = malloc(size + 1);
    memcpy(copy, image, size);
    copy = realloc(copy, size > 0 ? size : 1);
    long long before = memory.bytes;
    fvi_gguf *g;
    fv_status status = fvi_gguf_parse(ctx, "bad.gguf", copy, size, &g);
    if (status == FV_OK) {
        fv_file *f;
        assert_int_equal(fvi_file_from_gguf(g, &f), FV_OK);
        fv_file_destroy(f);
        fvi_gguf_destroy(g);
    } else {
        assert_null(g);
    }
    assert_int_equal(memory.bytes, before);
    free(copy);
    return status;
}

static void check_message(const char *what, const char *start, const char *part) {
    const char *message = fv_message(ctx);
    if (strncmp(message, start, strlen(start)) != 0 || strstr(message, part) == NULL) {
        fail_msg("%s: '%s' and '%s' expected, got: %s", what, start, part, message);
    }
}

/* One changed field of the sample: `bytes` of `value` are written `at` bytes after the record's start (BEHIND its name: after
 * its end); the message's offset is `blamed` bytes from the same place, or the record's start, or any. */
typedef enum { HEADER, RECORD, BEHIND } origin;
enum { ANY = -1, ITS_RECORD = -2 };
typedef struct fault {
    const char *what;
    const char *name;
    origin origin;
    int at, bytes;
    uint64_t value;
    fv_status status;
    int blamed;
    const char *part;
} fault;

#define F          FV_ERR_FORMAT
#define U          FV_ERR_UNSUPPORTED
#define HUGE_COUNT (UINT64_C(1) << 61)

static const fault faults[] = {
    {"magic", NULL, HEADER, 0, 1, 'X', F, 0, "does not start with 'GGUF'"},
    {"version 0", NULL, HEADER, 4, 4, 0, F, 4, "version 0"},
    {"version 1", NULL, HEADER, 4, 4, 1, U, 4, "version 1 (2 and 3 are read)"},
    {"version 4", NULL, HEADER, 4, 4, 4, U, 4, "version 4"},
    {"big-endian", NULL, HEADER, 4, 4, 0x03000000, U, 4, "big-endian"},
    {"tensors 2^64-1", NULL, HEADER, 8, 8, UINT64_MAX, F, 8, "tensor count is 18446744073709551615"},
    {"tensors 2^32", NULL, HEADER, 8, 8, UINT64_C(1) << 32, F, 8, "holds at most"},
    {"tensors 2^63", NULL, HEADER, 8, 8, UINT64_C(1) << 63, F, 8, "holds at most"},
    {"metadata 2^64-1", NULL, HEADER, 16, 8, UINT64_MAX, F, 16, "metadata count is"},
    {"metadata 2^40", NULL, HEADER, 16, 8, UINT64_C(1) << 40, F, 16, "holds at most"},
    {"empty key", "v.u8", RECORD, 0, 8, 0, F, 0, "empty name"},
    {"key 2^64-1", "v.u8", RECORD, 0, 8, UINT64_MAX, F, 0, "key is said to have 18446744073709551615 bytes"},
    {"key past end", "v.u8", RECORD, 0, 8, 1 << 20, F, 0, "but the file has only"},
    {"value type 13", "v.u32", BEHIND, 0, 4, 13, F, 0, "key 'v.u32': value type 13 is unknown (0 to 12"},
    {"value type 2^32-1", "v.u32", BEHIND, 0, 4, UINT32_MAX, F, 0, "value type 4294967295"},
    {"element type 13", "a.f32", BEHIND, 4, 4, 13, F, 4, "key 'a.f32': element type 13 is unknown"},
    {"array of arrays", "a.f32", BEHIND, 4, 4, 9, U, 4, "key 'a.f32': an array of arrays"},
    {"f32 array 2^61", "a.f32", BEHIND, 8, 8, HUGE_COUNT, F, 16, "values of f32 need at least 4 bytes each"},
    {"f32 array 2^62", "a.f32", BEHIND, 8, 8, 2 * HUGE_COUNT, F, 16, "but the file has only"},
    {"bool array 2^64-1", "a.bool", BEHIND, 8, 8, UINT64_MAX, F, 16, "18446744073709551615 values of bool"},
    {"u64 array 2^61", "a.none", BEHIND, 8, 8, HUGE_COUNT, F, 16, "values of u64 need at least 8"},
    {"string array 2^61", "a.string", BEHIND, 8, 8, HUGE_COUNT, F, 16, "values of string need at least 8"},
    {"string array 100", "a.string", BEHIND, 8, 8, 100, F, ANY, "key 'a.string': a string is said to have"},
    {"string in array", "a.string", BEHIND, 16, 8, UINT64_MAX, F, 16,
     "key 'a.string': a string is said to have 1844674407370955"},
    {"2nd string in array", "a.string", BEHIND, 25, 8, 1 << 20, F, 25, "a string is said to have 1048576 bytes"},
    {"string 2^63", "v.string", BEHIND, 4, 8, UINT64_C(1) << 63, F, 4, "key 'v.string': a string is said to have"},
    {"bool 2", "v.bool", BEHIND, 4, 1, 2, F, 4, "key 'v.bool': a bool is 2 (0 or 1 are right)"},
    {"bool 255 in array", "a.bool", BEHIND, 18, 1, 255, F, 18, "key 'a.bool': a bool is 255"},
    {"alignment 0", "general.alignment", BEHIND, 4, 4, 0, F, 4, "whole number from 8 to 1048576"},
    {"alignment 4", "general.alignment", BEHIND, 4, 4, 4, F, 4, "its value is 4"},
    {"alignment 24", "general.alignment", BEHIND, 4, 4, 24, F, 4, "24 is not a power of two"},
    {"alignment 2^31", "general.alignment", BEHIND, 4, 4, UINT32_C(1) << 31, F, 4, "its value is 2147483648"},
    {"alignment f32", "general.alignment", BEHIND, 0, 4, FVI_GGUF_F32, F, 4, "key 'general.alignment'"},
    {"duplicate key", "v.i8", RECORD, 10, 2, 'u' | '8' << 8, F, 0, "key 'v.u8': this name was at offset 0x"},
    {"empty tensor name", "w.f16", RECORD, 0, 8, 0, F, 0, "a tensor with an empty name"},
    {"tensor name 2^64-1", "w.f16", RECORD, 0, 8, UINT64_MAX, F, 0, "tensor is said to have"},
    {"rank 0", "w.f16", BEHIND, 0, 4, 0, F, 0, "tensor 'w.f16': rank 0 (1 to 4"},
    {"rank 5", "w.f16", BEHIND, 0, 4, 5, F, 0, "tensor 'w.f16': rank 5"},
    {"dimension 0", "w.f16", BEHIND, 12, 8, 0, F, 12, "tensor 'w.f16': dimension 1 is 0"},
    {"dimension 2^63", "w.f16", BEHIND, 12, 8, UINT64_C(1) << 63, F, 12, "dimension 1 is 9223372036854775808"},
    {"shape 64 x 2^58", "w.f16", BEHIND, 12, 8, UINT64_C(1) << 58, F, 12, "dimension 1 is"},
    {"f32 64 x 2^56", "w.f32", BEHIND, 12, 8, UINT64_C(1) << 56, F, 20, "its size in bytes overflows"},
    {"type 4", "w.q8_0", BEHIND, 20, 4, 4, F, 20, "tensor 'w.q8_0': tensor type 4 is unknown"},
    {"type 31", "w.q8_0", BEHIND, 20, 4, 31, F, 20, "tensor type 31 is unknown"},
    {"type 40", "w.q8_0", BEHIND, 20, 4, 40, F, 20, "tensor type 40"},
    {"type 2^32-1", "w.q8_0", BEHIND, 20, 4, UINT32_MAX, F, 20, "tensor type 4294967295"},
    {"row of 48", "w.q8_0", BEHIND, 4, 8, 48, F, 20, "rows of 48 elements are not a multiple of the 32 of a q8_0 block"},
    {"row of 64 in q4_k", "w.q8_0", BEHIND, 20, 4, 12, F, 20, "not a multiple of the 256 of a q4_k block"},
    {"offset 1", "w.q8_0", BEHIND, 24, 8, 1, F, ITS_RECORD, "its data offset 1 is not a multiple of the alignment 32"},
    {"offset 16", "w.q8_0", BEHIND, 24, 8, 16, F, ITS_RECORD, "its data offset 16 is not a multiple of the alignment 32"},
    {"offset past end", "w.q8_0", BEHIND, 24, 8, 1 << 20, F, ITS_RECORD, "tensor 'w.q8_0': its 204 bytes end past the file's"},
    {"offset 2^64-32", "w.q8_0", BEHIND, 24, 8, UINT64_MAX - 31, F, ITS_RECORD, "end past the file's"},
    {"offset wraps", "w.q8_0", BEHIND, 24, 8, UINT64_MAX - 1023, F, ITS_RECORD, "end past the file's"},
    {"overlap", "w.q8_0", BEHIND, 24, 8, 0, F, ANY, "lies within another tensor's"},
    {"longer", "w.f32", BEHIND, 12, 8, 4, F, ANY, "lies within another tensor's"},
    {"last one longer", "w.last", BEHIND, 4, 8, 64, F, ITS_RECORD, "tensor 'w.last': its 256 bytes end past the file's"},
};

static void check_fault(const fault *f) {
    size_t size;
    uint8_t *image = sample_image(3, 32, &size);
    size_t base = 0, record = 0;
    if (f->origin != HEADER) {
        record = base = sample_record(image, size, f->name);
        assert_true(base != SIZE_MAX);
        base += f->origin == BEHIND ? 8 + strlen(f->name) : 0;
    }
    memcpy(image + base + f->at, &f->value, (size_t)f->bytes);
    fv_status status = parse(image, size);
    if (status != f->status) {
        fail_msg("%s: status '%s', '%s' expected", f->what, fv_status_name(status), fv_status_name(f->status));
    }
    char start[64] = "bad.gguf: offset 0x";
    if (f->blamed >= 0) {
        snprintf(start, sizeof start, "bad.gguf: offset 0x%zx: ", base + (size_t)f->blamed);
    } else if (f->blamed == ITS_RECORD) {
        snprintf(start, sizeof start, "bad.gguf: offset 0x%zx: ", record);
    }
    check_message(f->what, start, f->part);
    free(image);
}

static void test_faults(void **state) {
    (void)state;
    size_t n = sizeof faults / sizeof *faults;
    for (size_t i = 0; i < n; i++) {
        check_fault(&faults[i]);
    }
    print_message("%zu hostile files refused\n", n);
    assert_true(n >= 40);
}

static void test_duplicate_tensor(void **state) {
    (void)state;
    const int64_t one[] = {32};
    const float v[32] = {0};
    gguf_builder b = gb_begin();
    gb_tensor(&b, "twice", FV_F32, 1, one, v);
    gb_tensor(&b, "once", FV_F32, 1, one, v);
    gb_tensor(&b, "twice", FV_F32, 1, one, v);
    size_t size;
    uint8_t *image = gb_image(&b, &size);
    assert_int_equal(parse(image, size), FV_ERR_FORMAT);
    /* 24 bytes of header; the records have 37, 36 and 37 */
    check_message("duplicate tensor", "bad.gguf: offset 0x61: tensor 'twice':", "this name was at offset 0x18 before");
    free(image);
    gb_end(&b);
}

/* One byte that belongs to two tensors. */
static void test_overlap_of_a_byte(void **state) {
    (void)state;
    const uint8_t bytes[16] = {0};
    gguf_builder b = gb_begin();
    b.alignment = 8;
    gb_u32(&b, "general.alignment", 8);
    gb_raw(&b, "first", 24, 1, (int64_t[]){9}, bytes, 9);
    b.body.n = 8;
    gb_raw(&b, "second", 24, 1, (int64_t[]){8}, bytes, 8);
    size_t size;
    uint8_t *image = gb_image(&b, &size);
    assert_int_equal(parse(image, size), FV_ERR_FORMAT);
    check_message("overlap", "bad.gguf: offset 0x", "tensor 'second': its data at 0x");
    const uint64_t eight = 8;
    memcpy(image + sample_record(image, size, "first") + 8 + 5 + 4, &eight, 8);
    assert_int_equal(parse(image, size), FV_OK);
    free(image);
    gb_end(&b);
}

/* Counts that are off by one run into the next part of the file. */
static void test_counts_off_by_one(void **state) {
    (void)state;
    static const struct { int at, change; } change[] = {{8, 1}, {16, 1}, {16, -1}};
    for (int i = 0; i < 3; i++) {
        size_t size;
        uint8_t *image = sample_image(3, 32, &size);
        image[change[i].at] = (uint8_t)(image[change[i].at] + change[i].change);
        assert_int_equal(parse(image, size), FV_ERR_FORMAT);
        check_message("count", "bad.gguf: offset 0x", "");
        free(image);
    }
}

static void test_names_are_safe_to_print(void **state) {
    (void)state;
    gguf_builder b = gb_begin();
    char key[400];
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    memcpy(key, "\x1b[31m\n", 6);
    gb_u32(&b, key, 1);
    gb_u32(&b, key, 1);
    size_t size;
    uint8_t *image = gb_image(&b, &size);
    assert_int_equal(parse(image, size), FV_ERR_FORMAT);
    check_message("name", "bad.gguf: offset 0x", "key '?[31m?kkk");
    check_message("name", "bad.gguf: offset 0x", "kkk': this name was at offset 0x18 before");
    free(image);
    gb_end(&b);
}

static void test_every_truncation(void **state) {
    (void)state;
    size_t size;
    uint8_t *image = sample_image(3, 32, &size);
    for (size_t n = 0; n < size; n++) {
        fv_status status = parse(image, n);
        if (status != FV_ERR_FORMAT) {
            fail_msg("cut to %zu of %zu bytes: %s", n, size, fv_status_name(status));
        }
        check_message("cut", "bad.gguf: offset 0x", "");
    }
    assert_int_equal(parse(image, size), FV_OK);
    free(image);
}

static void test_random_changes(void **state) {
    (void)state;
    const uint64_t seed = 20240611;
    print_message("seed %llu\n", (unsigned long long)seed);
    fvi_rng rng = {seed};
    size_t size;
    uint8_t *image = sample_image(3, 32, &size), *changed = malloc(size);
    /* header, metadata and directory; the weights behind them have no meaning to the parser */
    int64_t head = (int64_t)sample_record(image, size, "w.last") + 34;
    int accepted = 0;
    for (int i = 0; i < 20000; i++) {
        memcpy(changed, image, size);
        for (int64_t n = 1 + fvi_rng_below(&rng, 3); n > 0; n--) {
            changed[fvi_rng_below(&rng, head)] = (uint8_t)fvi_rng_next(&rng);
        }
        fv_status status = parse(changed, size);
        assert_true(status == FV_OK || status == FV_ERR_FORMAT || status == FV_ERR_UNSUPPORTED);
        accepted += status == FV_OK;
    }
    print_message("%d of 20000 accepted\n", accepted);
    assert_true(accepted > 0);
    free(changed);
    free(image);
}

/* Counts that a file just could hold must not buy more memory than some multiple of it. */
static void test_memory_is_bounded(void **state) {
    (void)state;
    size_t size = 1 << 20;
    uint8_t *image = calloc(1, size);
    uint64_t most_tensors = (size - 16) / 33, most_entries = (size - 24) / 14;
    memcpy(image, "GGUF\3\0\0\0", 8);
    memcpy(image + 8, &most_tensors, 8);
    memcpy(image + 16, &most_entries, 8);
    long long before = memory.bytes;
    memory.peak = before;
    assert_int_equal(parse(image, size), FV_ERR_FORMAT);
    print_message("peak: %.1f times the file\n", (double)(memory.peak - before) / (double)size);
    assert_true(memory.peak - before < 9 * (long long)size);
    assert_true(memory.peak - before > (long long)size); /* the tables were made: the test bites */
    free(image);
}

/* A duplicate at the end of 300,000 names: with a loop over pairs this would take minutes. */
static void test_many_names(void **state) {
    (void)state;
    const int n = 300000;
    gguf_builder b = gb_begin();
    char key[32];
    for (int i = 0; i < n; i++) {
        snprintf(key, sizeof key, "common.prefix.%07d", i * 7 % n);
        gb_u32(&b, key, 1);
    }
    size_t size;
    uint8_t *image = gb_image(&b, &size);
    double start = fvi_seconds();
    assert_int_equal(parse(image, size), FV_OK);
    free(image);
    gb_u32(&b, "common.prefix.0000007", 1);
    image = gb_image(&b, &size);
    assert_int_equal(parse(image, size), FV_ERR_FORMAT);
    check_message("many", "bad.gguf: offset 0x", "key 'common.prefix.0000007': this name was at");
    double seconds = fvi_seconds() - start;
    print_message("%d names twice: %.2f s\n", n, seconds);
    assert_true(seconds < 20);
    free(image);
    gb_end(&b);
}

static void check_open(const char *path, fv_status wanted, const char *part) {
    fvi_gguf *g;
    fv_file *f;
    assert_int_equal(fvi_gguf_open(ctx, path, &g), wanted);
    assert_null(g);
    assert_int_equal(fv_file_open(ctx, path, &f), wanted);
    assert_null(f);
    check_message(path, path, part);
}

static void test_what_is_no_file(void **state) {
    (void)state;
    char dir[] = "/tmp/fovea-gguf-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    check_open(dir, FV_ERR_IO, "a directory, not a file");
    check_open("/dev/null", FV_ERR_IO, "a device or pipe, not a file");
    snprintf(path, sizeof path, "%s/absent", dir);
    check_open(path, FV_ERR_IO, "cannot open: No such file");
    assert_true(gb_save(path, "", 0));
    check_open(path, FV_ERR_FORMAT, "offset 0x0: the file is empty");
    assert_true(gb_save(path, "GG", 2));
    check_open(path, FV_ERR_FORMAT, "offset 0x0: magic needs 4 bytes, but the file ends at 2");
    if (geteuid() != 0) {
        assert_int_equal(chmod(path, 0), 0);
        check_open(path, FV_ERR_IO, "cannot open: Permission denied");
    }
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    check_open(path, FV_ERR_IO, "a device or pipe, not a file");
    unlink(path);
    rmdir(dir);
}

static int open_descriptors(void) {
    int fd = dup(0);
    close(fd);
    return fd;
}

static bool is_mapped(const void *address) {
    unsigned char resident;
    uintptr_t page = (uintptr_t)address & ~(uintptr_t)(sysconf(_SC_PAGESIZE) - 1);
    return mincore((void *)page, 1, &resident) == 0;
}

static void test_descriptors_are_closed(void **state) {
    (void)state;
    char path[] = "/tmp/fovea-gguf-XXXXXX";
    int before = open_descriptors(), fd = mkstemp(path);
    close(fd);
    size_t size;
    uint8_t *image = sample_image(3, 32, &size);
    assert_true(gb_save(path, image, size));
    fvi_gguf *g;
    assert_int_equal(fvi_gguf_open(ctx, path, &g), FV_OK);
    assert_true(g->mapped);
    assert_int_equal(open_descriptors(), before);
    unlink(path);
    assert_memory_equal(g->map, image, size);
    const void *map = g->map;
    assert_true(is_mapped(map));
    fvi_gguf_destroy(g);
    assert_false(is_mapped(map));
    free(image);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_duplicate_tensor),
        cmocka_unit_test(test_overlap_of_a_byte),
        cmocka_unit_test(test_counts_off_by_one),
        cmocka_unit_test(test_names_are_safe_to_print),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_random_changes),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_many_names),
        cmocka_unit_test(test_what_is_no_file),
        cmocka_unit_test(test_descriptors_are_closed),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
