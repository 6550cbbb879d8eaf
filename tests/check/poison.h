/* poison.h - buffers whose surroundings read as NaN and end at a page that must not be touched.
 *
 * A guard's bytes, inside and out, start as 0xff: NaN in f32, f16 and bf16. Its address is a multiple of `align` and, where
 * align is below 64, of nothing larger. With at_end the buffer lies as near to the forbidden page as that allows. */
#ifndef TEST_POISON_H
#define TEST_POISON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct guard {
    unsigned char *data;
    size_t size;
    unsigned char *map; /* readable pages from map + page */
    size_t map_size;    /* the forbidden pages at both ends included */
} guard;

enum { GUARD_PAGE = 4096, GUARD_MARGIN = 256 };

static inline guard guard_make(size_t size, size_t align, bool at_end) {
    size_t inner = (size + 2 * GUARD_MARGIN + GUARD_PAGE - 1) / GUARD_PAGE * GUARD_PAGE;
    guard g = {.size = size, .map_size = inner + 2 * GUARD_PAGE};
    g.map = mmap(NULL, g.map_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.map == MAP_FAILED || mprotect(g.map + GUARD_PAGE, inner, PROT_READ | PROT_WRITE) != 0) {
        fprintf(stderr, "no memory for a guarded buffer of %zu bytes\n", size);
        exit(1);
    }
    memset(g.map + GUARD_PAGE, 0xff, inner);
    uintptr_t at = (uintptr_t)g.map + GUARD_PAGE + (at_end ? inner - size : GUARD_MARGIN);
    at -= at % align;
    if (align < 64 && at % (2 * align) == 0) {
        at -= align;
    }
    g.data = (unsigned char *)at;
    return g;
}

/* Whether every byte around the buffer is as it was. */
static inline bool guard_intact(const guard *g) {
    const unsigned char *end = g->map + g->map_size - GUARD_PAGE;
    for (const unsigned char *p = g->map + GUARD_PAGE; p < g->data; p++) {
        if (*p != 0xff) {
            return false;
        }
    }
    for (const unsigned char *p = g->data + g->size; p < end; p++) {
        if (*p != 0xff) {
            return false;
        }
    }
    return true;
}

static inline void guard_free(guard *g) {
    munmap(g->map, g->map_size);
    *g = (guard){0};
}

#endif
