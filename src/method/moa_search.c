/* moa_search.c - MoA's offline search: which elastic span each head gets, from what each span loses.
 *
 * Fu et al.: MoA: Mixture of Sparse Attention for Automatic Large Language Model Compression, 2024, and
 * thu-nics/MoA (elastic_generate.py, optimizer.py): a rule (alpha, beta) a head, least loss at each profiled length, mean density
 * within a bound at each length. The losses of several lengths are several objectives: each is made least in turn while the
 * others stay within limits (the epsilon-constraint method, four limits between the best and the worst value of each), and plans
 * that another beats in all are dropped. Which of the plans is best is for a measurement at a length that was not profiled
 * (src/lab/calibrate_moa.c, where the losses come from too).
 *
 * Differs: the code asks a commercial solver and we branch and bound, by Lagrangian bounds; its lower limits (on density, and of
 * each range of a loss) only cut plans off that are better, and are left out; so is its limit of two rules a layer, which served
 * its kernels. */
#include "base/base.h"
#include "fovea/experimental.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 64, ROUNDS = 200 };

/* ---- rules ----------------------------------------------------------------------------------------------------------- */

static double span_at(fv_moa_rule r, int64_t n) { return r.alpha + r.beta * (double)n; }

int64_t fv_moa_rules(const fv_moa_grid *g, fv_moa_rule *out, int64_t room) {
    int64_t alphas = (g->profiled + g->shortest) / g->step + 1, n = 0;
    for (int64_t k = 0; k < alphas * g->betas; k++) {
        int64_t a = k / g->betas, b = k % g->betas;
        double part = alphas > 1 ? (double)a / (double)(alphas - 1) : 0;
        fv_moa_rule r = {-(double)g->shortest + part * (double)(g->profiled + g->shortest),
                         g->betas > 1 ? (double)b / (double)(g->betas - 1) : 0};
        if (span_at(r, g->shortest) <= 0 || span_at(r, g->profiled) > (double)g->profiled ||
            span_at(r, g->longest) > (double)g->longest) {
            continue;
        }
        int64_t at = fvi_min(n++, room);
        for (; at > 0 && span_at(out[at - 1], g->longest) > span_at(r, g->longest); at--) {
            if (at < room) {
                out[at] = out[at - 1];
            }
        }
        if (at < room) {
            out[at] = r;
        }
    }
    return n;
}

int64_t fv_moa_span(fv_moa_rule r, int64_t blocks) {
    double span = floor(r.alpha / BLOCK) + r.beta * (double)blocks;
    return span < 1 ? 1 : (int64_t)fmin(span, (double)blocks);
}

double fv_moa_density(fv_moa_rule r, int64_t blocks) {
    return (double)fvi_min(fv_moa_span(r, blocks) + 1, blocks) / (double)blocks;
}

/* ---- one choice: least loss of one kind under all limits --------------------------------------------------------------- */

/* Limits are rows: densities first, then losses. What is used of them is scaled, so that each limit is 1. */
typedef struct search {
    const fv_moa_problem *p;
    int64_t kind;         /* of loss, that is made least */
    int64_t rows;         /* limits */
    double *scale;        /* (rows): 0 where there is no limit */
    double *lambda;       /* (rows) the multipliers, and the best so far behind them */
    double *least;        /* (heads + 1, rows): what heads h.. use at least */
    double *floor;        /* (heads + 1): what heads h.. cost at least, uses priced */
    double *used;         /* (heads + 1, rows): by heads before h */
    double *lost;         /* (heads + 1): by heads before h */
    int32_t *order;       /* (heads, rules): by priced loss */
    int32_t *at, *choice; /* (heads) */
    double best;          /* INFINITY: none yet */
    bool exact;
} search;

static double loss_of(const fv_moa_problem *p, int64_t kind, int64_t head, int64_t rule) {
    return p->loss[(kind * p->heads + head) * p->rules + rule];
}

static double use(const search *s, int64_t row, int64_t head, int64_t rule) {
    const fv_moa_problem *p = s->p;
    return s->scale[row] * (row < p->budgets ? p->cost[row * p->rules + rule] : loss_of(p, row - p->budgets, head, rule));
}

static double priced(const search *s, const double *lambda, int64_t head, int64_t rule) {
    double sum = loss_of(s->p, s->kind, head, rule);
    for (int64_t k = 0; k < s->rows; k++) {
        sum += lambda[k] * use(s, k, head, rule);
    }
    return sum;
}

static bool within(double used) { return used <= 1 + 1e-9; }

/* Takes s->at as the choice if it keeps to the limits and is the best. */
static void offer(search *s) {
    double lost = 0;
    for (int64_t h = 0; h < s->p->heads; h++) {
        lost += loss_of(s->p, s->kind, h, s->at[h]);
    }
    bool good = lost < s->best;
    for (int64_t k = 0; k < s->rows && good; k++) {
        double used = 0;
        for (int64_t h = 0; h < s->p->heads; h++) {
            used += use(s, k, h, s->at[h]);
        }
        good = within(used);
    }
    if (good) {
        s->best = lost;
        memcpy(s->choice, s->at, (size_t)s->p->heads * sizeof *s->choice);
    }
}

/* The Lagrangian bound at `lambda`; s->at is the choice that attains it, `excess` what it uses beyond the limits. */
static double bound_at(search *s, const double *lambda, double *excess) {
    double sum = 0;
    for (int64_t k = 0; k < s->rows; k++) {
        excess[k] = s->scale[k] > 0 ? -1 : 0;
        sum -= s->scale[k] > 0 ? lambda[k] : 0;
    }
    for (int64_t h = 0; h < s->p->heads; h++) {
        double least = INFINITY;
        for (int64_t r = 0; r < s->p->rules; r++) {
            double cost = priced(s, lambda, h, r);
            if (cost < least) {
                least = cost;
                s->at[h] = (int32_t)r;
            }
        }
        sum += least;
        for (int64_t k = 0; k < s->rows; k++) {
            excess[k] += use(s, k, h, s->at[h]);
        }
    }
    return sum;
}

/* Multipliers by subgradient steps that shrink; choices met on the way are offered. */
static void find_prices(search *s) {
    double *lambda = s->lambda, *best = s->lambda + s->rows, *excess = s->lambda + 2 * s->rows, top = -INFINITY, size = 0;
    memset(lambda, 0, (size_t)(2 * s->rows) * sizeof *lambda);
    for (int64_t h = 0; h < s->p->heads; h++) {
        for (int64_t r = 0; r < s->p->rules; r++) {
            size += loss_of(s->p, s->kind, h, r) / (double)s->p->rules;
        }
    }
    for (int round = 0; round < ROUNDS; round++) {
        double bound = bound_at(s, lambda, excess), norm = 0;
        offer(s);
        if (bound > top) {
            top = bound;
            memcpy(best, lambda, (size_t)s->rows * sizeof *best);
        }
        for (int64_t k = 0; k < s->rows; k++) {
            norm += excess[k] * excess[k];
        }
        double step = norm > 0 ? size / (sqrt(norm) * (1 + round)) : 0;
        for (int64_t k = 0; k < s->rows; k++) {
            lambda[k] = s->scale[k] > 0 ? fmax(lambda[k] + step * excess[k], 0) : 0;
        }
    }
    memcpy(lambda, best, (size_t)s->rows * sizeof *best);
}

/* Rules of each head by priced loss, and what the heads from h on take at least. */
static void find_floors(search *s) {
    int64_t heads = s->p->heads, rules = s->p->rules;
    s->floor[heads] = 0;
    memset(s->least + heads * s->rows, 0, (size_t)s->rows * sizeof *s->least);
    for (int64_t h = heads - 1; h >= 0; h--) {
        int32_t *order = s->order + h * rules;
        for (int64_t r = 0; r < rules; r++) {
            int64_t at = r;
            for (; at > 0 && priced(s, s->lambda, h, order[at - 1]) > priced(s, s->lambda, h, r); at--) {
                order[at] = order[at - 1];
            }
            order[at] = (int32_t)r;
        }
        s->floor[h] = s->floor[h + 1] + priced(s, s->lambda, h, order[0]);
        for (int64_t k = 0; k < s->rows; k++) {
            double least = INFINITY;
            for (int64_t r = 0; r < rules; r++) {
                least = fmin(least, use(s, k, h, r));
            }
            s->least[h * s->rows + k] = s->least[(h + 1) * s->rows + k] + least;
        }
    }
}

/* Gives head h a rule: whether a choice that is better than the best can begin so. */
static bool enter(search *s, int64_t h, int32_t rule, bool *hopeless) {
    const double *used = s->used + h * s->rows;
    double *next = s->used + (h + 1) * s->rows, least = s->floor[h + 1];
    bool fits = true;
    s->lost[h + 1] = s->lost[h] + loss_of(s->p, s->kind, h, rule);
    least += s->lost[h + 1];
    for (int64_t k = 0; k < s->rows; k++) {
        next[k] = used[k] + use(s, k, h, rule);
        least += s->lambda[k] * (next[k] - (s->scale[k] > 0));
        fits = fits && within(next[k] + s->least[(h + 1) * s->rows + k]);
    }
    *hopeless = least >= s->best - 1e-12 * fabs(s->best); /* and so are the rules after it */
    return fits && !*hopeless;
}

/* Depth first, cheapest first. at[h] counts the rules of head h that were tried. */
static void branch(search *s, int32_t *tried) {
    int64_t heads = s->p->heads, h = 0;
    memset(s->used, 0, (size_t)s->rows * sizeof *s->used);
    s->lost[0] = 0;
    tried[0] = 0;
    for (int64_t nodes = 0; h >= 0; nodes++) {
        if (nodes >= s->p->limit) {
            s->exact = false;
            return;
        }
        bool hopeless = tried[h] >= s->p->rules;
        if (!hopeless) {
            s->at[h] = s->order[h * s->p->rules + tried[h]++];
            if (!enter(s, h, s->at[h], &hopeless)) {
                h -= hopeless;
            } else if (h == heads - 1) {
                offer(s);
            } else {
                tried[++h] = 0;
            }
        } else {
            h--;
        }
    }
}

/* ---- all plans ------------------------------------------------------------------------------------------------------- */

/* One block of memory for a search and what lies behind it. */
static size_t search_doubles(const fv_moa_problem *p) {
    size_t rows = (size_t)(p->budgets + p->losses), heads = (size_t)p->heads + 1;
    return 4 * rows + heads * (2 * rows + 2);
}

static size_t search_ints(const fv_moa_problem *p) { return (size_t)p->heads * (size_t)(p->rules + 3); }

static search lay_out(const fv_moa_problem *p, double *d, int32_t *i) {
    int64_t rows = p->budgets + p->losses, heads = p->heads + 1;
    search s = {.p = p, .rows = rows, .scale = d, .lambda = d + rows, .exact = true};
    s.least = d + 4 * rows;
    s.used = s.least + heads * rows;
    s.floor = s.used + heads * rows;
    s.lost = s.floor + heads;
    s.at = i;
    s.choice = i + p->heads;
    s.order = i + 3 * p->heads;
    return s;
}

/* Least loss of `kind` where loss e is at most most[e]; INFINITY: no such choice. */
static double choose(search *s, int64_t kind, const double *most) {
    const fv_moa_problem *p = s->p;
    s->kind = kind;
    s->best = INFINITY;
    for (int64_t k = 0; k < s->rows; k++) {
        double limit = k < p->budgets ? p->bound[k] * (double)p->heads : most[k - p->budgets];
        s->scale[k] = isinf(limit) ? 0 : 1 / fmax(limit, 1e-30);
    }
    find_prices(s);
    find_floors(s);
    branch(s, s->choice + p->heads);
    return s->best;
}

/* Adds the search's choice, unless a plan is as good in all; plans that it beats go. */
static void add_plan(fv_moa_plans *out, const search *s) {
    double loss[FV_MOA_LOSSES] = {0};
    for (int64_t e = 0; e < out->losses; e++) {
        for (int64_t h = 0; h < out->heads; h++) {
            loss[e] += loss_of(s->p, e, h, s->choice[h]);
        }
    }
    int64_t kept = 0;
    for (int64_t i = 0; i < out->n; i++) {
        bool no_worse = true, no_better = true;
        for (int64_t e = 0; e < out->losses; e++) {
            no_worse = no_worse && out->loss[i * out->losses + e] <= loss[e];
            no_better = no_better && out->loss[i * out->losses + e] >= loss[e];
        }
        if (no_worse) {
            return; /* then the new one has beaten none */
        }
        if (!no_better) {
            memmove(out->loss + kept * out->losses, out->loss + i * out->losses, (size_t)out->losses * sizeof *out->loss);
            memmove(out->rule + kept * out->heads, out->rule + i * out->heads, (size_t)out->heads * sizeof *out->rule);
            kept++;
        }
    }
    memcpy(out->loss + kept * out->losses, loss, (size_t)out->losses * sizeof *out->loss);
    memcpy(out->rule + kept * out->heads, s->choice, (size_t)out->heads * sizeof *out->rule);
    out->n = kept + 1;
}

/* Each loss made least by itself: the range of each. False: nothing keeps to the bounds. */
static bool find_ranges(search *s, fv_moa_plans *out, double *low, double *high) {
    static const double free_of_limits[FV_MOA_LOSSES] = {INFINITY, INFINITY, INFINITY, INFINITY};
    for (int64_t e = 0; e < out->losses; e++) {
        low[e] = INFINITY;
        high[e] = -INFINITY;
    }
    for (int64_t kind = 0; kind < out->losses; kind++) {
        if (isinf(choose(s, kind, free_of_limits))) {
            return false;
        }
        add_plan(out, s);
        for (int64_t e = 0; e < out->losses; e++) {
            double loss = 0;
            for (int64_t h = 0; h < out->heads; h++) {
                loss += loss_of(s->p, e, h, s->choice[h]);
            }
            low[e] = fmin(low[e], loss);
            high[e] = fmax(high[e], loss);
        }
    }
    return true;
}

static int64_t cells(int64_t losses) {
    int64_t n = 1;
    for (int64_t e = 1; e < losses; e++) {
        n *= FV_MOA_LIMITS;
    }
    return n;
}

static bool search_all(search *s, fv_moa_plans *out) {
    double low[FV_MOA_LOSSES], high[FV_MOA_LOSSES], most[FV_MOA_LOSSES] = {0};
    if (!find_ranges(s, out, low, high)) {
        return false;
    }
    for (int64_t kind = 0; kind < out->losses; kind++) {
        for (int64_t cell = 0; cell < cells(out->losses) && out->losses > 1; cell++) {
            int64_t rest = cell;
            for (int64_t e = 0; e < out->losses; e++) {
                most[e] = INFINITY;
                if (e != kind) {
                    most[e] = low[e] + (high[e] - low[e]) * (double)(rest % FV_MOA_LIMITS + 1) / FV_MOA_LIMITS;
                    rest /= FV_MOA_LIMITS;
                }
            }
            if (!isinf(choose(s, kind, most))) {
                add_plan(out, s);
            }
        }
    }
    out->exact = s->exact;
    return true;
}

fv_status fv_moa_search(fv_context *ctx, const fv_moa_problem *p, fv_moa_plans *out) {
    *out = (fv_moa_plans){.heads = p->heads, .losses = p->losses};
    if (p->heads < 1 || p->rules < 1 || p->losses < 1 || p->losses > FV_MOA_LOSSES || p->budgets < 0) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "moa: %lld heads, %lld rules, %lld losses and %lld budgets; at least one head and rule, "
                        "1 to %d losses and no less than 0 budgets are right",
                        (long long)p->heads, (long long)p->rules, (long long)p->losses, (long long)p->budgets, FV_MOA_LOSSES);
    }
    out->room = p->losses * (cells(p->losses) + 1);
    size_t doubles = search_doubles(p), ints = search_ints(p);
    double *d = fvi_alloc(ctx, doubles, sizeof *d);
    int32_t *i = fvi_alloc(ctx, ints, sizeof *i);
    out->rule = fvi_alloc(ctx, (size_t)(out->room * p->heads), sizeof *out->rule);
    out->loss = fvi_alloc(ctx, (size_t)(out->room * p->losses), sizeof *out->loss);
    fv_status status = FV_OK;
    if (d == NULL || i == NULL || out->rule == NULL || out->loss == NULL) {
        status = fvi_fail(ctx, FV_ERR_MEMORY, "no memory for a search over %lld heads and %lld rules", (long long)p->heads,
                          (long long)p->rules);
    } else {
        search s = lay_out(p, d, i);
        if (!search_all(&s, out)) {
            status = fvi_fail(ctx, FV_ERR_UNSUPPORTED,
                              s.exact ? "moa: no choice of rules keeps to all density bounds; raise one, or search shorter spans"
                                      : "moa: no choice of rules was found within the limit of nodes; raise it");
        }
    }
    fvi_release(ctx, d, doubles, sizeof *d);
    fvi_release(ctx, i, ints, sizeof *i);
    return status;
}

void fv_moa_plans_free(fv_context *ctx, fv_moa_plans *plans) {
    fvi_release(ctx, plans->rule, (size_t)(plans->room * plans->heads), sizeof *plans->rule);
    fvi_release(ctx, plans->loss, (size_t)(plans->room * plans->losses), sizeof *plans->loss);
    *plans = (fv_moa_plans){0};
}
