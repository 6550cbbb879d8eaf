/* spargeattn_calibrate.c - a head's sim, cdf and pv for a profile of SpargeAttn, as the official code tunes them (autotune.py of
 * thu-ml/SpargeAttn; the paper's section 3.6 asks for the same bounds by a grid). For each sim of -1, -15/16, .. 15/16: the least
 * cdf by bisection to 0.001 whose output is within `l1` of dense attention's, sum |o - dense| / sum |dense|; then the least pv by
 * bisection to 0.1 within `pv_l1`; until less than a tenth of the blocks is left out. Of sims in pairs, over all prompts, the
 * pair that left out most in sum; of it the largest sim, cdf and pv. A head that then leaves out no more than a tenth in the mean
 * is dense for good: sim 1, cdf 1.
 *
 * Deviations: the output is that of trial.h's rows, and what is left out is counted in their blocks; l1 is not rounded to four
 * places before it is compared; pv is what a row skips, as in spargeattn.c. As there, a tuned head's first block is always on
 * when it runs, and not while it is tuned. */
#include "select/calibrate.h"
#include "select/trial.h"

#include <math.h>
#include <string.h>

enum { SIM, CDF, TOPK, SINK, PV, L1, PV_L1, STEPS = 16, GROUPS = STEPS };
static const double least_sparsity = 0.1, cdf_step = 0.001, pv_step = 0.1, pv_while_cdf = 50;

typedef struct group {
    double sparsity, sim, cdf, pv; /* a sum and three maxima */
    int64_t n;
} group;

typedef struct tuned {
    bool dense;
    double number[3]; /* sim, cdf, pv */
    group at[GROUPS];
} tuned;

/* One head, one prompt. */
typedef struct tuner {
    const fvi_calibrate_facts *facts;
    fvi_trial trial;
    double value[FVI_PARAMETERS]; /* the method's, with what is tried */
} tuner;

static const char *refuse(const fvi_calibrate_facts *f) {
    return f->value[TOPK] > 0                  ? "topk goes by a share of blocks: there is nothing to find"
           : !(f->value[PV_L1] > f->value[L1]) ? "pv_l1 bounds what both stages lose: it has to be above l1"
                                               : NULL;
}

static size_t memory_bytes(const fvi_calibrate_facts *f) {
    (void)f;
    return sizeof(tuned);
}

static size_t scratch_bytes(const fvi_calibrate_facts *f) {
    return fvi_trial_bytes(&fvi_select_spargeattn, f->value, &f->extent, FVI_BLOCK);
}

static double left_out(const fvi_loss *loss) { return 1 - (double)loss->kept / (double)loss->seen; }

/* Bisects value[which] of low .. high, from `first`, for the least that keeps the error below `bound`; returns what the last one
 * tried left out. */
static double bisect(tuner *t, int which, double high, double first, double step, double bound) {
    double low = 0, *now = &t->value[which], sparsity = 0;
    *now = first;
    while (high - low > step) {
        const fvi_loss loss = fvi_trial_run(&t->trial, (float)t->value[PV]);
        sparsity = left_out(&loss);
        if (loss.error / loss.size < bound) {
            high = *now;
        } else {
            low = *now;
        }
        *now = (low + high) / 2;
    }
    return sparsity;
}

/* Tries one sim; returns the share of blocks that is left out. */
static double try_sim(tuner *t, double sim, tuned *to) {
    const double *bound = t->facts->value;
    t->value[SIM] = sim;
    t->value[PV] = pv_while_cdf;
    fvi_select_spargeattn.prepare(&t->trial.select);
    const double sparsity = bisect(t, CDF, 1, 0.1, cdf_step, bound[L1]);
    t->value[CDF] = t->value[CDF] > 1 - cdf_step ? 1 : t->value[CDF];
    bisect(t, PV, pv_while_cdf, 20, pv_step, bound[PV_L1]);
    group *g = &to->at[(int)((sim + 1) * STEPS) / 2];
    *g = g->n > 0 ? (group){g->sparsity + sparsity, fmax(g->sim, sim), fmax(g->cdf, t->value[CDF]), fmax(g->pv, t->value[PV]),
                            g->n + 1}
                  : (group){sparsity, sim, t->value[CDF], t->value[PV], 1};
    return sparsity;
}

static void add(const fvi_calibrate_facts *f, const fvi_select *select, void *memory, void *scratch) {
    tuned *to = memory;
    if (to->dense) {
        return;
    }
    tuner t = {.facts = f};
    memcpy(t.value, f->value, (PV_L1 + 1) * sizeof *t.value);
    t.value[SINK] = 0;
    t.trial = fvi_trial_open(&fvi_select_spargeattn, t.value, select->sight, FVI_BLOCK, scratch);
    for (int i = -STEPS; i < STEPS && try_sim(&t, (double)i / STEPS, to) >= least_sparsity; i++) {
    }
    const group *best = &to->at[0]; /* sim = -1 is always tried */
    for (int i = 1; i < GROUPS; i++) {
        best = to->at[i].n > 0 && to->at[i].sparsity > best->sparsity ? &to->at[i] : best;
    }
    to->dense = !(best->sparsity / (double)best->n > least_sparsity);
    to->number[0] = to->dense ? 1 : best->sim;
    to->number[1] = to->dense ? 1 : best->cdf;
    to->number[2] = best->pv;
}

static int64_t most(const fvi_calibrate_facts *f) {
    (void)f;
    return 3;
}

static int64_t find(const fvi_calibrate_facts *f, void *memory, void *scratch, double *number) {
    (void)f;
    (void)scratch;
    memcpy(number, ((const tuned *)memory)->number, 3 * sizeof *number);
    return 3;
}

const fvi_calibration fvi_calibrate_spargeattn = {
    .memory_bytes = memory_bytes, .scratch_bytes = scratch_bytes, .add = add, .most = most, .find = find, .refuse = refuse};
