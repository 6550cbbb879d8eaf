/* fuzz.h - what the fuzzers share. Each defines LLVMFuzzerTestOneInput; libFuzzer drives it, or replay.c with files.
 *
 * Memory comes from an allocator that counts, so that leaks, wrong sizes and overruns are findings without a sanitizer too. */
#ifndef FOVEA_FUZZ_H
#define FOVEA_FUZZ_H

#include "alloc_fail.h"
#include "base/base.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A finding: what must hold does not. */
#define FUZZ_CHECK(what)                                                                                                         \
    do {                                                                                                                         \
        if (!(what)) {                                                                                                           \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what);                                            \
            abort();                                                                                                             \
        }                                                                                                                        \
    } while (0)

/* The data as a file that has a name; fuzz_close takes it away. */
typedef struct fuzz_file {
    int fd;
    char path[40];
} fuzz_file;

static inline fuzz_file fuzz_open(const void *data, size_t size) {
    fuzz_file f = {.fd = memfd_create("fuzz", MFD_CLOEXEC)};
    FUZZ_CHECK(f.fd >= 0);
    FUZZ_CHECK(write(f.fd, data, size) == (ssize_t)size);
    snprintf(f.path, sizeof f.path, "/proc/self/fd/%d", f.fd);
    return f;
}

static inline void fuzz_close(const fuzz_file *f) { close(f->fd); }

/* A copy that ends where the data ends and starts at 64 bytes, as a mapping does. */
static inline uint8_t *fuzz_copy(const uint8_t *data, size_t size) {
    uint8_t *copy = NULL;
    FUZZ_CHECK(posix_memalign((void **)&copy, 64, size > 0 ? size : 1) == 0);
    memcpy(copy, data, size);
    return copy;
}

/* A number from the data that decides which request for memory fails, 0: none. */
static inline long long fuzz_failing(const uint8_t *data, size_t size) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ data[i]) * 16777619u;
    }
    return hash % 4 == 0 ? hash / 4 % 12 : 0;
}

#endif
