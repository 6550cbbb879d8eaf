/* fuzz_npy.c - any bytes as a .npy file; what is accepted must survive writing and reading. */
#include "fuzz.h"
#include "npy.h"

static void read_named(const uint8_t *data, size_t size, const npy *wanted) {
    char error[512];
    npy a;
    fuzz_file file = fuzz_open(data, size);
    bool good = npy_read(file.path, &a, error, sizeof error);
    FUZZ_CHECK(good == (wanted != NULL));
    if (good) {
        FUZZ_CHECK(a.bytes == wanted->bytes && memcmp(a.data, wanted->data, a.bytes) == 0);
        npy_free(&a);
    }
    fuzz_close(&file);
}

static void write_and_read(const npy *a) {
    char error[512];
    npy b;
    fuzz_file file = fuzz_open("", 0);
    FUZZ_CHECK(npy_write(file.path, a, error, sizeof error));
    FUZZ_CHECK(npy_read(file.path, &b, error, sizeof error));
    FUZZ_CHECK(a->dtype == b.dtype && a->rank == b.rank && memcmp(a->shape, b.shape, sizeof a->shape) == 0);
    FUZZ_CHECK(a->bytes == b.bytes && memcmp(a->data, b.data, b.bytes) == 0);
    npy_free(&b);
    fuzz_close(&file);
}

static void refused(const char *path) {
    char error[32];
    npy a;
    FUZZ_CHECK(!npy_read(path, &a, error, sizeof error) && a.data == NULL && error[0] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *copy = fuzz_copy(data, size);
    char error[512] = "";
    npy a;
    bool good = npy_parse(copy, size, "fuzz", &a, error, sizeof error);
    bool named = fuzz_failing(data, size) > 0;
    if (named) {
        read_named(data, size, good ? &a : NULL);
        refused("/dev/null");
        refused("/absent");
    }
    if (good) {
        FUZZ_CHECK(a.data != NULL && a.rank >= 1 && a.rank <= 4 && a.bytes <= size);
        if (named) {
            write_and_read(&a);
        }
        npy_free(&a);
    } else {
        FUZZ_CHECK(a.data == NULL && strncmp(error, "fuzz: offset 0x", 15) == 0);
    }
    free(copy);
    return 0;
}
