/* moa_search.h - MoA's offline search: which elastic span each head gets, from measured influences.
 *
 * Fu et al.: MoA: Mixture of Sparse Attention for Automatic Large Language Model Compression, 2024, and
 * thu-nics/MoA (elastic_generate.py, optimizer.py): a rule (alpha, beta) a head, least loss at each profiled length, mean density
 * within a bound at each length. The losses of several lengths are several objectives: each is made least in turn while the
 * others stay within limits (the epsilon-constraint method, four limits between the best and the worst value of each), and plans
 * that another beats in all are dropped. Which of the plans is best is for a measurement at a length that was not profiled.
 *
 * Differs: the code asks a commercial solver and we branch and bound, by Lagrangian bounds; its lower limits (on density, and of
 * each range of a loss) only cut plans off that are better, and are left out; so is its limit of two rules a layer, which served
 * its kernels. */
#ifndef FVI_MOA_SEARCH_H
#define FVI_MOA_SEARCH_H

#include "base/base.h"

typedef struct fvi_moa_rule {
    double alpha, beta;
} fvi_moa_rule;

/* What is searched: alpha from -shortest to profiled in steps of about `step`, `betas` values from 0 to 1. Rules whose span is
 * not positive at `shortest`, or longer than the prompt at `profiled` or `longest`, are left out. */
typedef struct fvi_moa_grid {
    int64_t shortest, profiled, longest; /* prompts: of all, of the longest that was profiled, of all */
    int64_t step, betas;                 /* 1024 and 9 in the paper */
} fvi_moa_grid;

/* Writes at most `room` rules, shorter spans at `longest` first; returns how many there are. */
int64_t fvi_moa_rules(const fvi_moa_grid *grid, fvi_moa_rule *out, int64_t room);
/* Blocks of 64 that a row may see of `blocks` before it, sink block included, as a share. */
double fvi_moa_density(fvi_moa_rule rule, int64_t blocks);
/* Influence (blocks, blocks; row by row) of the causal blocks that the rule hides. */
double fvi_moa_lost(fvi_moa_rule rule, const float *influence, int64_t blocks);

typedef struct fvi_moa_problem {
    int64_t heads, rules;
    int64_t losses;      /* profiled lengths */
    const double *loss;  /* (losses, heads, rules), not negative */
    int64_t budgets;     /* lengths with a density bound */
    const double *cost;  /* (budgets, rules): density */
    const double *bound; /* (budgets): of the mean density over heads */
    int64_t limit;       /* nodes that a choice may take; where they do not suffice, the best choice found counts */
} fvi_moa_problem;

enum { FVI_MOA_LOSSES = 4, FVI_MOA_LIMITS = 4 };

typedef struct fvi_moa_plans {
    int64_t n, room, heads, losses;
    int32_t *rule; /* (n, heads) */
    double *loss;  /* (n, losses) */
    bool exact;    /* no choice ran into the limit */
} fvi_moa_plans;

/* The plans that no other found one beats. FV_ERR_UNSUPPORTED where no choice keeps to the bounds. Release with
 * fvi_moa_plans_free, whatever the status. */
fv_status fvi_moa_search(fv_context *ctx, const fvi_moa_problem *problem, fvi_moa_plans *out);
void fvi_moa_plans_free(fv_context *ctx, fvi_moa_plans *plans);

#endif
