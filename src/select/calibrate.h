/* calibrate.h - what a method finds offline: the numbers of a profile, from the queries and keys of some prompts.
 *
 * A method that has it names an fvi_calibration in its fvi_selector. For each layer and head `add` is called with each prompt
 * whole, and then `find` once. `memory` is the head's own, zero before the first prompt. */
#ifndef FVI_CALIBRATE_H
#define FVI_CALIBRATE_H

#include "select/select.h"

typedef struct fvi_calibrate_facts {
    const double *value; /* the method's parameters */
    fvi_extent extent;   /* of a prompt: n_q = n_kv */
    int64_t prompts;
    double budget; /* share of the causal pairs that the method may visit; 0: not given */
} fvi_calibrate_facts;

struct fvi_calibration {
    size_t (*memory_bytes)(const fvi_calibrate_facts *facts);  /* kept for each layer and head */
    size_t (*scratch_bytes)(const fvi_calibrate_facts *facts); /* of a thread, in one call; NULL: none */
    void (*add)(const fvi_calibrate_facts *facts, const fvi_select *s, void *memory, void *scratch);
    /* How many numbers there will be at most, and the numbers; returns how many. */
    int64_t (*most)(const fvi_calibrate_facts *facts);
    int64_t (*find)(const fvi_calibrate_facts *facts, void *memory, void *scratch, double *number);
    /* NULL, or why it cannot be done so: a sentence that outlives the call. */
    const char *(*refuse)(const fvi_calibrate_facts *facts);
};

extern const fvi_calibration fvi_calibrate_minference, fvi_calibrate_theta, fvi_calibrate_dam, fvi_calibrate_sale,
    fvi_calibrate_spargeattn, fvi_calibrate_dhsa;

#endif
