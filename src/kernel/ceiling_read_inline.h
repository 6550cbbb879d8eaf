/* ceiling_read_inline.h - reading memory, compiled for each instruction set: one stream or four, and asking ahead or leaving
 * that to the processor. Which is fastest differs between machines by a tenth, so all are tried. */
#ifndef FVI_CEILING_READ_INLINE_H
#define FVI_CEILING_READ_INLINE_H

#include "kernel/ceiling.h"

#define INLINE static inline __attribute__((always_inline))

typedef uint64_t words __attribute__((vector_size(64)));
enum { LINE = sizeof(words), BLOCK = 8 * LINE };

/* `ahead` bytes are asked for before they are read, 0 for none; `once`: as data that no cache needs to keep. */
INLINE uint64_t read_streams(const char *p, size_t n, int streams, size_t ahead, bool once) {
    words acc[8] = {0};
    size_t part = n / (size_t)streams;
    for (size_t at = 0; at < part; at += BLOCK) {
        for (int s = 0; s < streams; s++) {
            const char *from = p + (size_t)s * part + at;
            FVI_UNROLL
            for (int i = 0; i < 8; i++) {
                if (ahead > 0 && once) {
                    __builtin_prefetch(from + ahead + i * LINE, 0, 0);
                } else if (ahead > 0) {
                    __builtin_prefetch(from + ahead + i * LINE, 0, 3);
                }
                acc[i] ^= *(const words *)(const void *)(from + i * LINE);
            }
        }
    }
    uint64_t all = 0;
    FVI_UNROLL
    for (int i = 0; i < 8; i++) {
        for (int j = 0; j < 8; j++) {
            all ^= acc[i][j];
        }
    }
    return all;
}

static uint64_t read_one(const void *p, size_t n) { return read_streams(p, n, 1, 0, false); }
static uint64_t read_one_ahead(const void *p, size_t n) { return read_streams(p, n, 1, 8192, true); }
static uint64_t read_four(const void *p, size_t n) { return read_streams(p, n, 4, 0, false); }
static uint64_t read_four_ahead(const void *p, size_t n) { return read_streams(p, n, 4, 1024, false); }

static void fill_reads(fvi_ceiling_ops *ops) {
    ops->read[0] = read_one;
    ops->read[1] = read_one_ahead;
    ops->read[2] = read_four;
    ops->read[3] = read_four_ahead;
}

#endif
