/* minference_calibrate.c - a head's pattern for a profile, by the search of minference_search.c on one prompt. */
#include "select/calibrate.h"
#include "select/minference_search.h"

#include <string.h>

enum { EVERY = 8 }; /* tiles of rows, of which recall is taken of one */

static const char *refuse(const fvi_calibrate_facts *f) {
    return f->prompts > 1 ? "its search looks at one prompt: give --prompts 1" : NULL;
}

static size_t memory_bytes(const fvi_calibrate_facts *f) {
    (void)f;
    return 3 * sizeof(double);
}

static size_t scratch_bytes(const fvi_calibrate_facts *f) { return fvi_minference_search_bytes(&f->extent); }

static void add(const fvi_calibrate_facts *f, const fvi_select *s, void *memory, void *scratch) {
    fvi_minference_found found[FVI_MINFERENCE_CANDIDATES];
    fvi_minference_search(s->sight, f->budget > 0 ? f->budget : 0.25, EVERY, scratch, found);
    memcpy(memory, found[0].number, sizeof found[0].number);
}

static int64_t most(const fvi_calibrate_facts *f) {
    (void)f;
    return 3;
}

static int64_t find(const fvi_calibrate_facts *f, void *memory, void *scratch, double *number) {
    (void)f;
    (void)scratch;
    memcpy(number, memory, 3 * sizeof *number);
    return 3;
}

const fvi_calibration fvi_calibrate_minference = {
    .memory_bytes = memory_bytes, .scratch_bytes = scratch_bytes, .add = add, .most = most, .find = find, .refuse = refuse};
