/* sale_calibrate.c - a head's threshold for a profile of SALE, as the official code finds it (its patch for calibration): from
 * 0.008, halved while the head's output differs from dense attention's by `error` * n or more, summed over its n rows and their
 * width; what comes to 0.0001 or less is 0, and the head dense. The next prompt goes on from there. n are the rows of trial.h. */
#include "select/calibrate.h"
#include "select/trial.h"

enum { DENSE = 2, ERROR = 3, PART = 32 }; /* places among the parameters */
static const double highest = 0.008, lowest = 0.0001;

typedef struct found {
    int64_t prompts;
    double threshold;
} found;

static const char *refuse(const fvi_calibrate_facts *f) {
    return f->extent.n_q <= (int64_t)f->value[DENSE] ? "prompts of up to `dense` keys lose nothing: give more --tokens" : NULL;
}

static size_t memory_bytes(const fvi_calibrate_facts *f) {
    (void)f;
    return sizeof(found);
}

static size_t scratch_bytes(const fvi_calibrate_facts *f) {
    return fvi_trial_bytes(&fvi_select_sale, f->value, &f->extent, PART);
}

static void add(const fvi_calibrate_facts *f, const fvi_select *select, void *memory, void *scratch) {
    found *at = memory;
    if (at->prompts++ == 0) {
        at->threshold = highest;
    }
    if (at->threshold == 0) {
        return;
    }
    fvi_trial trial = fvi_trial_open(&fvi_select_sale, f->value, select->sight, PART, scratch);
    trial.select.number = &at->threshold;
    trial.select.numbers = 1;
    fvi_select_sale.prepare(&trial.select);
    while (at->threshold > 0 && fvi_trial_run(&trial, 0).error >= f->value[ERROR] * (double)trial.rows) {
        at->threshold = at->threshold / 2 <= lowest ? 0 : at->threshold / 2;
    }
}

static int64_t most(const fvi_calibrate_facts *f) {
    (void)f;
    return 1;
}

static int64_t find(const fvi_calibrate_facts *f, void *memory, void *scratch, double *number) {
    (void)f;
    (void)scratch;
    *number = ((const found *)memory)->threshold;
    return 1;
}

const fvi_calibration fvi_calibrate_sale = {
    .memory_bytes = memory_bytes, .scratch_bytes = scratch_bytes, .add = add, .most = most, .find = find, .refuse = refuse};
