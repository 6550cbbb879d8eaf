/* test_npy.c - .npy files: what is written comes back, what NumPy writes is read, what is wrong is refused with its offset. */
#include "npy.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char path[64], error[512];

static int setup(void **state) {
    (void)state;
    strcpy(path, "/tmp/fovea-npy-XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state) {
    (void)state;
    return unlink(path);
}

/* A file in memory: head of the version, this dictionary as it is, `elements` zero bytes. */
static uint8_t *make_file(int version, const char *dictionary, size_t elements, size_t *size) {
    size_t length = strlen(dictionary), head = version == 1 ? 10 : 12;
    uint8_t *file = calloc(1, head + length + elements + 1);
    memcpy(file, "\x93NUMPY", 6);
    file[6] = (uint8_t)version;
    for (size_t i = 8; i < head; i++) {
        file[i] = (uint8_t)(length >> 8 * (i - 8));
    }
    memcpy(file + head, dictionary, length);
    *size = head + length + elements;
    return file;
}

/* Parses an exact copy, so that a sanitizer sees one byte too far. */
static bool parse(const uint8_t *file, size_t size, npy *out) {
    uint8_t *copy = malloc(size > 0 ? size : 1);
    memcpy(copy, file, size);
    memset(error, 0, sizeof error);
    bool good = npy_parse(copy, size, "x.npy", out, error, sizeof error);
    free(copy);
    assert_true(good ? out->data != NULL : out->data == NULL);
    assert_true(good || strncmp(error, "x.npy: offset 0x", 16) == 0);
    return good;
}

static void check_roundtrip(fv_dtype dtype, int rank, const int64_t *shape) {
    npy a = {.dtype = dtype, .rank = rank}, b;
    int64_t n = 1;
    for (int i = 0; i < rank; i++) {
        a.shape[i] = shape[i];
        n *= shape[i];
    }
    size_t bytes = fv_dtype_bytes(dtype, n);
    uint8_t *data = malloc(bytes + 1);
    for (size_t i = 0; i < bytes; i++) {
        data[i] = (uint8_t)(i * 31 + 7);
    }
    a.data = data;
    assert_true(npy_write(path, &a, error, sizeof error));
    if (!npy_read(path, &b, error, sizeof error)) {
        fail_msg("%s", error);
    }
    assert_int_equal(b.dtype, dtype);
    assert_int_equal(b.rank, rank);
    assert_memory_equal(a.shape, b.shape, sizeof a.shape);
    assert_int_equal(b.bytes, bytes);
    assert_memory_equal(b.data, data, bytes);
    assert_int_equal((uintptr_t)b.data % 64, 0);
    npy_free(&b);
    free(data);
}

static void test_roundtrip(void **state) {
    (void)state;
    static const fv_dtype dtype[] = {FV_F32, FV_F16, FV_BF16, FV_I32};
    for (int t = 0; t < 4; t++) {
        check_roundtrip(dtype[t], 1, (int64_t[]){1});
        check_roundtrip(dtype[t], 1, (int64_t[]){1001});
        check_roundtrip(dtype[t], 2, (int64_t[]){3, 5});
        check_roundtrip(dtype[t], 3, (int64_t[]){2, 7, 64});
        check_roundtrip(dtype[t], 4, (int64_t[]){2, 3, 5, 7});
        check_roundtrip(dtype[t], 3, (int64_t[]){2, 0, 64});
    }
}

static void test_written_bytes(void **state) {
    (void)state;
    const int32_t v[2] = {1, -1};
    npy a = {.dtype = FV_I32, .rank = 1, .shape = {2}, .data = (void *)(uintptr_t)v};
    assert_true(npy_write(path, &a, error, sizeof error));
    uint8_t file[256];
    FILE *f = fopen(path, "rb");
    size_t n = fread(file, 1, sizeof file, f);
    fclose(f);
    assert_int_equal(n, 128 + 8);
    assert_memory_equal(file, "\x93NUMPY\1\0\x76\0{'descr': '<i4', 'fortran_order': False, 'shape': (2,), } ", 66);
    assert_int_equal(file[127], '\n');
    assert_memory_equal(file + 128, "\1\0\0\0\xff\xff\xff\xff", 8);
}

static void test_what_cannot_be_written(void **state) {
    (void)state;
    float v[4] = {0};
    npy a = {.dtype = FV_Q8_0, .rank = 1, .shape = {2}, .data = v};
    assert_false(npy_write(path, &a, error, sizeof error));
    a = (npy){.dtype = FV_F32, .rank = 5, .data = v};
    assert_false(npy_write(path, &a, error, sizeof error));
    a = (npy){.dtype = FV_F32, .rank = 1, .shape = {4}, .data = v};
    assert_false(npy_write("/absent/x.npy", &a, error, sizeof error));
    assert_non_null(strstr(error, "/absent/x.npy: cannot write: No such file"));
    if (access("/dev/full", W_OK) == 0) {
        assert_false(npy_write("/dev/full", &a, error, sizeof error));
        assert_non_null(strstr(error, "/dev/full: cannot write its"));
    }
}

static void test_versions_and_spellings(void **state) {
    (void)state;
    static const char *const right[] = {
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }     \n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}",
        "{\"shape\":(2,3,),\"descr\":\"<f4\",\"fortran_order\":False}\n",
        " { 'fortran_order' : False , 'shape' : ( 2 ,\t3 ) , 'descr' : '<f4' , } \n",
    };
    for (int version = 1; version <= 3; version++) {
        for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
            npy a;
            size_t size;
            uint8_t *file = make_file(version, right[i], 24, &size);
            file[size - 24] = 0x7f;
            if (!parse(file, size, &a)) {
                fail_msg("%s", error);
            }
            assert_true(a.dtype == FV_F32 && a.rank == 2 && a.shape[0] == 2 && a.shape[1] == 3);
            assert_int_equal(*(const uint8_t *)a.data, 0x7f);
            npy_free(&a);
            free(file);
        }
    }
}

static void test_dtypes(void **state) {
    (void)state;
    static const struct {
        const char *descr;
        fv_dtype dtype;
    } row[] = {{"<f4", FV_F32}, {"<f2", FV_F16}, {"<u2", FV_BF16}, {"|V2", FV_BF16}, {"<V2", FV_BF16}, {"<i4", FV_I32}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char text[96];
        npy a;
        size_t size;
        snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (3,), }\n", row[i].descr);
        uint8_t *file = make_file(1, text, fv_dtype_bytes(row[i].dtype, 3), &size);
        assert_true(parse(file, size, &a));
        assert_int_equal(a.dtype, row[i].dtype);
        npy_free(&a);
        free(file);
    }
}

#define HEAD "{'descr': '<f4', 'fortran_order': False, 'shape': "

/* A dictionary in a file of version 1 with 24 bytes of elements; `offset` is what the message blames, 0: any. */
static const struct {
    const char *dictionary, *part;
    int offset;
} wrong[] = {
    {"", "'{' expected", 10},
    {"   ", "'{' expected", 13},
    {"{", "a quoted word expected", 11},
    {"{}", "each of descr, fortran_order and shape", 12},
    {"{'descr': '<f4', 'shape': (2, 3)}", "each of descr", 0},
    {"{'descr", "a closing quote expected", 17},
    {"{'descr' '<f4'", "':' expected", 19},
    {"{descr: '<f4'", "a quoted word expected", 11},
    {"{'descr': <f4", "a quoted word expected", 20},
    {"{'descr': '>f4', ", "elements of type '>f4'", 20},
    {"{'descr': '<f8', ", "elements of type '<f8'", 20},
    {"{'descr': '|b1', ", "elements of type '|b1'", 20},
    {"{'descr': '<f4\x1b[31m-and-much-longer-than-it', ", "elements of type '<f4?[31m-and-much-longe'", 20},
    {"{'descr': [('x', '<f4')], ", "a quoted word expected", 20},
    {"{'descr': '<f4' 'shape'", "',' or '}' expected", 26},
    {"{'descr': '<f4', 'descr': '<f4', ", "'descr' comes twice", 27},
    {"{'descr': '<f4', 'other': 1}", "'other' is not a field of it", 27},
    {"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3)}", "C order is read", 44},
    {"{'descr': '<f4', 'fortran_order': None, ", "True or False expected", 44},
    {"{'descr': '<f4', 'fortran_order': Fals", "True or False expected", 44},
    {HEAD "6}", "shape: '(' expected", 60},
    {HEAD "()}", "a tuple of 1 to 4 lengths", 62},
    {HEAD "(6)}", "a tuple of 1 to 4 lengths", 63},
    {HEAD "(,)}", "shape: a length expected", 61},
    {HEAD "(-6,)}", "shape: a length expected", 61},
    {HEAD "(2 3)}", "shape: ',' or ')' expected", 63},
    {HEAD "(2, 3", "shape: ',' or ')' expected", 65},
    {HEAD "(2,, 3)}", "shape: a length expected", 63},
    {HEAD "(2.0, 3)}", "shape: ',' or ')' expected", 62},
    {HEAD "(1, 1, 1, 2, 3)}", "1 to 4 lengths", 73},
    {HEAD "(9223372036854775808,)}", "a length below 2^63", 0},
    {HEAD "(99999999999999999999999,)}", "a length below 2^63", 0},
    {HEAD "(4294967296, 4294967296)}", "overflows 64 bits", 0},
    {HEAD "(4611686018427387904,)}", "overflows 64 bits", 0},
    {HEAD "(2, 4)}", "32 bytes of elements, but the file has 24", 67},
    {HEAD "(2, 2)}", "16 bytes of elements, but the file has 24", 67},
    {HEAD "(2, 0)}", "0 bytes of elements, but the file has 24", 67},
    {HEAD "(1000000000000,)}", "4000000000000 bytes of elements, but the file has 24", 0},
    {HEAD "(2, 3)} x", "nothing more after '}'", 68},
    {HEAD "(2, 3)", "',' or '}' expected", 0},
    {HEAD "(2, 3),", "a quoted word expected", 67},
};

static void test_wrong_dictionaries(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char start[40];
        npy a;
        size_t size;
        uint8_t *file = make_file(1, wrong[i].dictionary, 24, &size);
        bool good = parse(file, size, &a);
        snprintf(start, sizeof start, "x.npy: offset 0x%x: ", wrong[i].offset);
        bool blamed = wrong[i].offset == 0 || strncmp(error, start, strlen(start)) == 0;
        if (good || !blamed || strstr(error, wrong[i].part) == NULL) {
            fail_msg("%s\n'%s' and '%s' expected, got: %s", wrong[i].dictionary, start, wrong[i].part, error);
        }
        free(file);
    }
    print_message("%zu wrong headers refused\n", sizeof wrong / sizeof *wrong);
}

static void test_wrong_heads(void **state) {
    (void)state;
    static const struct {
        int at;
        uint8_t value;
        const char *part;
    } change[] = {{0, 'x', "offset 0x0: not a .npy file"},  {5, 'y', "not a .npy file"},
                  {6, 0, "offset 0x6: version 0.0"},        {6, 4, "version 4.0 (1 to 3 are read)"},
                  {9, 0xff, "offset 0x8: a header of 653"}, {6, 2, "offset 0x8: a header of "}};
    for (size_t i = 0; i < sizeof change / sizeof *change; i++) {
        npy a;
        size_t size;
        uint8_t *file = make_file(1, HEAD "(2, 3), }\n", 24, &size);
        file[change[i].at] = change[i].value;
        assert_false(parse(file, size, &a));
        if (strstr(error, change[i].part) == NULL) {
            fail_msg("'%s' expected, got: %s", change[i].part, error);
        }
        free(file);
    }
}

static void test_every_truncation(void **state) {
    (void)state;
    for (int version = 1; version <= 3; version++) {
        npy a;
        size_t size;
        uint8_t *file = make_file(version, HEAD "(2, 3), }\n", 24, &size);
        for (size_t n = 0; n < size; n++) {
            assert_false(parse(file, n, &a));
        }
        assert_true(parse(file, size, &a));
        npy_free(&a);
        free(file);
    }
}

static void test_random_changes(void **state) {
    (void)state;
    const uint64_t seed = 4711;
    print_message("seed %llu\n", (unsigned long long)seed);
    fvi_rng rng = {seed};
    int accepted = 0;
    for (int i = 0; i < 30000; i++) {
        npy a;
        size_t size;
        uint8_t *file = make_file(1 + i % 3, HEAD "(2, 3), }\n", 24, &size);
        for (int64_t n = 1 + fvi_rng_below(&rng, 3); n > 0; n--) {
            file[fvi_rng_below(&rng, (int64_t)size)] = (uint8_t)fvi_rng_next(&rng);
        }
        if (parse(file, size, &a)) {
            accepted++;
            npy_free(&a);
        }
        free(file);
    }
    print_message("%d of 30000 accepted\n", accepted);
    assert_true(accepted > 0 && accepted < 30000);
}

static void check_unreadable(const char *name, const char *part) {
    npy a;
    assert_false(npy_read(name, &a, error, sizeof error));
    assert_null(a.data);
    assert_int_equal(strncmp(error, name, strlen(name)), 0);
    if (strstr(error, part) == NULL) {
        fail_msg("'%s' expected, got: %s", part, error);
    }
}

static void test_what_is_no_file(void **state) {
    (void)state;
    char name[96];
    check_unreadable("/tmp", "a directory, not a file");
    check_unreadable("/dev/zero", "a device or pipe, not a file");
    check_unreadable("/absent/x.npy", "cannot open: No such file");
    check_unreadable(path, "needs 8 bytes, but the file ends at 0");
    snprintf(name, sizeof name, "%s.pipe", path);
    assert_int_equal(mkfifo(name, 0600), 0);
    check_unreadable(name, "a device or pipe, not a file");
    unlink(name);
    if (geteuid() != 0) {
        assert_int_equal(chmod(path, 0), 0);
        check_unreadable(path, "cannot open: Permission denied");
        assert_int_equal(chmod(path, 0600), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_roundtrip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_written_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_written, setup, teardown),
        cmocka_unit_test(test_versions_and_spellings),
        cmocka_unit_test(test_dtypes),
        cmocka_unit_test(test_wrong_dictionaries),
        cmocka_unit_test(test_wrong_heads),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_random_changes),
        cmocka_unit_test_setup_teardown(test_what_is_no_file, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
