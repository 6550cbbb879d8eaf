/* cascade.c - passes, live state and traffic of a cascade of einsums, after FuseMax (Nayak et al., MICRO 2024), section III.
 *
 * Time is counted in half steps: 2n - 1 is during pass n, 2n is after it, 0 before the first. What is made key by key can be read
 * in the pass that makes it; what has taken in all keys only after it. An einsum that goes over all keys of an input waits for
 * the next odd time. Passes of one input: the same with only that input's traversals counting, since others may run meanwhile. */
#include "base/base.h"
#include "fovea/experimental.h"

#include <string.h>

enum { P = 1, E = 2, F = 4, KEY = 8, TILE = 16, MOST_EINSUMS = 32, MOST_INPUTS = 8, MOST_READS = 4, NAME = 16 };

typedef struct reference {
    char name[NAME];
    unsigned ranks;
    int maker; /* einsum, or -1 - input */
} reference;

typedef struct node {
    reference out, in[MOST_READS];
    int n_in;
    fv_einsum_op op;
    bool on_array;
    unsigned space;   /* ranks that it goes over */
    unsigned lineage; /* inputs whose keys it goes over */
    bool whole;       /* goes over all keys */
} node;

typedef struct graph {
    node node[MOST_EINSUMS];
    int n;
    reference input[MOST_INPUTS];
    int n_inputs;
    unsigned outer, full; /* the rank that runs over all keys at large; all key ranks */
} graph;

/* ---- reading a description ---- */

static fv_status wrong(fv_context *ctx, const fv_cascade *c, int i, const char *text, const char *what) {
    return fvi_fail(ctx, FV_ERR_ARGUMENT, "cascade %s, einsum %d, '%s': %s", c->name, i + 1, text, what);
}

static bool read_reference(const char *text, reference *out) {
    static const char letters[] = "pefmM";
    const char *colon = strchr(text, ':');
    if (colon == NULL || colon == text || colon - text >= NAME || colon[1] == '\0') {
        return false;
    }
    *out = (reference){.maker = -1};
    memcpy(out->name, text, (size_t)(colon - text));
    for (const char *s = colon + 1; *s != '\0'; s++) {
        const char *at = strchr(letters, *s);
        unsigned bit = at == NULL ? 0 : 1u << (at - letters);
        if (bit == 0 || out->ranks & bit) {
            return false;
        }
        out->ranks |= bit;
    }
    return true;
}

static fv_status read_einsums(fv_context *ctx, const fv_cascade *c, graph *g) {
    static const char form[] = "must be NAME:ranks, a name of at most 15 characters and each of p, e, f, m, M at most once";
    if (c->n < 1 || c->n > MOST_EINSUMS) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "cascade %s has %d einsums; it must be 1 to %d", c->name, c->n, MOST_EINSUMS);
    }
    g->n = c->n;
    for (int i = 0; i < c->n; i++) {
        node *e = &g->node[i];
        e->op = c->einsum[i].op;
        e->on_array = c->einsum[i].on_array;
        if ((unsigned)e->op > FV_EINSUM_DIVIDE || c->einsum[i].in[0] == NULL) {
            return wrong(ctx, c, i, c->einsum[i].out, "needs an operation and something to read");
        }
        if (!read_reference(c->einsum[i].out, &e->out)) {
            return wrong(ctx, c, i, c->einsum[i].out, form);
        }
        for (; e->n_in < MOST_READS && c->einsum[i].in[e->n_in] != NULL; e->n_in++) {
            if (!read_reference(c->einsum[i].in[e->n_in], &e->in[e->n_in])) {
                return wrong(ctx, c, i, c->einsum[i].in[e->n_in], form);
            }
        }
        e->space = e->out.ranks;
        for (int k = 0; k < e->n_in; k++) {
            e->space |= e->in[k].ranks;
        }
        for (int k = 0; k < i; k++) {
            if (strcmp(g->node[k].out.name, e->out.name) == 0) {
                return wrong(ctx, c, i, c->einsum[i].out, "is made twice");
            }
        }
        g->full |= e->space & (KEY | TILE);
    }
    g->outer = g->full & TILE ? TILE : KEY;
    return g->full & KEY ? FV_OK
                         : fvi_fail(ctx, FV_ERR_ARGUMENT, "cascade %s goes over no keys: no tensor has the rank m", c->name);
}

/* Finds what a reference names; inputs are entered as they come. */
static fv_status bind(fv_context *ctx, const fv_cascade *c, graph *g, int i, int k) {
    reference *r = &g->node[i].in[k];
    for (int j = 0; j < g->n; j++) {
        if (strcmp(g->node[j].out.name, r->name) == 0) {
            r->maker = j;
            if (r->ranks & ~g->node[j].out.ranks) {
                return wrong(ctx, c, i, c->einsum[i].in[k], "has ranks that the tensor is not made with");
            }
            if (j >= i && !(r->ranks & g->outer)) {
                return wrong(ctx, c, i, c->einsum[i].in[k], "is read before it is made, and has no tile before this one");
            }
            return FV_OK;
        }
    }
    int input = 0;
    while (input < g->n_inputs && strcmp(g->input[input].name, r->name) != 0) {
        input++;
    }
    if (input == MOST_INPUTS) {
        return wrong(ctx, c, i, c->einsum[i].in[k], "is one input too many; there may be 8");
    }
    if (input == g->n_inputs) {
        g->input[g->n_inputs++] = *r;
    }
    if (g->input[input].ranks != r->ranks) {
        return wrong(ctx, c, i, c->einsum[i].in[k], "has other ranks elsewhere");
    }
    r->maker = -1 - input;
    return FV_OK;
}

static void trace_lineage(graph *g) {
    for (int i = 0; i < g->n; i++) {
        node *e = &g->node[i];
        e->whole = (e->space & g->full) == g->full;
        for (int k = 0; k < e->n_in; k++) {
            const reference *r = &e->in[k];
            if (r->ranks & KEY) {
                e->lineage |= r->maker < 0 ? 1u << (-1 - r->maker) : g->node[r->maker].lineage;
            }
        }
    }
}

static fv_status read_cascade(fv_context *ctx, const fv_cascade *c, graph *g) {
    *g = (graph){.n = 0};
    fv_status status = read_einsums(ctx, c, g);
    for (int i = 0; i < g->n && status == FV_OK; i++) {
        for (int k = 0; k < g->node[i].n_in && status == FV_OK; k++) {
            status = bind(ctx, c, g, i, k);
        }
    }
    trace_lineage(g);
    return status;
}

/* ---- time ---- */

static int after_pass(int time) { return time + time % 2; }

/* When einsum e can read r, given when each einsum runs. */
static int available(const graph *g, const reference *r, const int *time) {
    if (r->maker < 0) {
        return 0;
    }
    const node *maker = &g->node[r->maker];
    bool key_by_key = (r->ranks & g->outer) != 0;
    return key_by_key || !(maker->space & g->outer) ? time[r->maker] : after_pass(time[r->maker]);
}

/* Earliest times where only traversals of `inputs` take a pass. False if an einsum waits for itself. */
static bool schedule(const graph *g, unsigned inputs, int time[MOST_EINSUMS]) {
    memset(time, 0, MOST_EINSUMS * sizeof *time);
    for (int round = 0; round <= g->n; round++) {
        bool changed = false;
        for (int i = 0; i < g->n; i++) {
            const node *e = &g->node[i];
            int at = 0;
            for (int k = 0; k < e->n_in; k++) {
                int ready = available(g, &e->in[k], time);
                at = ready > at ? ready : at;
            }
            at += e->whole && (e->lineage & inputs) && at % 2 == 0;
            changed |= at != time[i];
            time[i] = at;
        }
        if (!changed) {
            return true;
        }
    }
    return false;
}

static int passes_over(const graph *g, unsigned inputs, const int *time) {
    int most = 0;
    for (int i = 0; i < g->n; i++) {
        if (g->node[i].whole && (g->node[i].lineage & inputs) && (time[i] + 1) / 2 > most) {
            most = (time[i] + 1) / 2;
        }
    }
    return most;
}

/* ---- sizes ---- */

/* Elements of a tensor, or points of a space, over `queries` queries. */
static int64_t points(const graph *g, const fv_cascade_sizes *s, unsigned ranks, int64_t queries) {
    int64_t n = (ranks & P ? queries : 1) * (ranks & E ? s->e : 1) * (ranks & F ? s->f : 1);
    if ((ranks & g->full) == g->full) {
        return n * s->keys;
    }
    return ranks & TILE ? n * fvi_ceil_div(s->keys, s->tile) : ranks & KEY ? n * s->tile : n;
}

/* Elements that a query keeps beyond pass n: what is made key by key before its end and read later. */
static int64_t held_after(const graph *g, const fv_cascade_sizes *s, const int *time, int n) {
    int64_t held = 0;
    for (int i = 0; i < g->n; i++) {
        int last = 0;
        for (int j = 0; j < g->n; j++) {
            for (int k = 0; k < g->node[j].n_in; k++) {
                const reference *r = &g->node[j].in[k];
                last = r->maker == i && (r->ranks & g->outer) && time[j] > last ? time[j] : last;
            }
        }
        if ((g->node[i].out.ranks & g->outer) && time[i] < 2 * n && last >= 2 * n) {
            held += points(g, s, g->node[i].out.ranks & ~(unsigned)P, 1);
        }
    }
    return held;
}

/* Elements a query writes and reads again where nothing is held: a write, and a read for each later time of reading. */
static int64_t spilled(const graph *g, const fv_cascade_sizes *s, const int *time) {
    int64_t moved = 0;
    for (int i = 0; i < g->n; i++) {
        uint64_t later = 0; /* a bit a time */
        for (int j = 0; j < g->n; j++) {
            for (int k = 0; k < g->node[j].n_in; k++) {
                const reference *r = &g->node[j].in[k];
                if (r->maker == i && (r->ranks & g->outer) && time[j] > time[i]) {
                    later |= UINT64_C(1) << (time[j] < 63 ? time[j] : 63);
                }
            }
        }
        if (later != 0) {
            moved += points(g, s, g->node[i].out.ranks & ~(unsigned)P, 1) * (1 + fvi_count_bits(later));
        }
    }
    return moved;
}

static bool running(const graph *g, int i) {
    for (int j = 0; j <= i; j++) {
        for (int k = 0; k < g->node[j].n_in; k++) {
            if (g->node[j].in[k].maker == i) {
                return true;
            }
        }
    }
    return false;
}

/* A query's own inputs, running values, and sums over keys that are being taken. */
static int64_t state_of(const graph *g, const fv_cascade_sizes *s) {
    int64_t state = 0;
    for (int i = 0; i < g->n_inputs; i++) {
        state += g->input[i].ranks & P ? points(g, s, g->input[i].ranks & ~(unsigned)P, 1) : 0;
    }
    for (int i = 0; i < g->n; i++) {
        const node *e = &g->node[i];
        bool sum = !(e->out.ranks & g->full) && (e->space & g->full);
        if (sum || running(g, i)) {
            state += points(g, s, e->out.ranks & (E | F), 1);
        }
    }
    return state;
}

static void count_memory(const graph *g, const fv_cascade_sizes *s, const int *time, fv_cascade_report *out) {
    int64_t rows = s->rows > 0 ? fvi_min(s->rows, s->queries) : s->queries, blocks = fvi_ceil_div(s->queries, rows);
    int64_t at_once = 0, elements = 0; /* of a tile of inputs; moved an instance */
    for (int i = 0; i < g->n_inputs; i++) {
        unsigned ranks = g->input[i].ranks;
        bool keys = ranks & KEY;
        elements += points(g, s, ranks, s->queries) * (keys && !(ranks & P) ? blocks : 1);
        at_once += keys ? points(g, s, ranks & (E | F), 1) * (g->full & TILE ? s->tile : 1) : 0;
        out->input[i].rows = keys ? (uint64_t)(s->instances * blocks * out->input[i].passes * s->keys) : 0;
    }
    elements += points(g, s, g->node[g->n - 1].out.ranks, s->queries);
    for (int n = 1; n < out->passes; n++) {
        out->fibre_elements = fvi_max(out->fibre_elements, held_after(g, s, time, n));
    }
    out->state_elements = state_of(g, s);
    out->buffer_bytes = (uint64_t)((rows * (out->fibre_elements + out->state_elements) + at_once) * s->element_bytes);
    out->traffic_bytes = (uint64_t)(s->instances * elements * s->element_bytes);
    out->spill_bytes = (uint64_t)(s->instances * s->queries * spilled(g, s, time) * s->element_bytes);
}

static fv_status check_sizes(fv_context *ctx, const fv_cascade_sizes *s) {
    const struct {
        const char *name;
        int64_t value, least, most;
    } field[] = {{"keys", s->keys, 1, 1 << 30},
                 {"queries", s->queries, 1, 1 << 30},
                 {"e", s->e, 1, 1 << 14},
                 {"f", s->f, 1, 1 << 14},
                 {"tile", s->tile, 1, 1 << 30},
                 {"rows", s->rows, 0, 1 << 30},
                 {"instances", s->instances, 1, 4096},
                 {"element_bytes", s->element_bytes, 1, 8}};
    for (size_t i = 0; i < sizeof field / sizeof *field; i++) {
        if (field[i].value < field[i].least || field[i].value > field[i].most) {
            return fvi_fail(ctx, FV_ERR_ARGUMENT, "%s is %lld; it must be from %lld to %lld", field[i].name,
                            (long long)field[i].value, (long long)field[i].least, (long long)field[i].most);
        }
    }
    /* the largest product is points x bytes x instances; it must stay far below 2^63 */
    double largest = (double)s->keys * (double)s->queries * (double)fvi_max(s->e, s->f) * (double)s->instances * s->element_bytes;
    return largest < 0x1p58 ? FV_OK : fvi_fail(ctx, FV_ERR_RANGE, "these sizes make %g bytes; the most is 2^58", largest);
}

fv_status fv_cascade_analyse(fv_context *ctx, const fv_cascade *cascade, const fv_cascade_sizes *sizes, fv_cascade_report *out) {
    graph g;
    int time[MOST_EINSUMS];
    fv_status status = check_sizes(ctx, sizes);
    if (status == FV_OK) {
        status = read_cascade(ctx, cascade, &g);
    }
    if (status != FV_OK) {
        return status;
    }
    *out = (fv_cascade_report){.n_inputs = g.n_inputs};
    for (int i = 0; i < g.n_inputs; i++) {
        memcpy(out->input[i].name, g.input[i].name, NAME);
        if (schedule(&g, 1u << i, time)) {
            out->input[i].passes = passes_over(&g, 1u << i, time);
        }
        out->passes = out->input[i].passes > out->passes ? out->input[i].passes : out->passes;
    }
    if (!schedule(&g, UINT32_MAX, time)) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "cascade %s: a running tensor waits for the end of the pass that it runs in",
                        cascade->name);
    }
    count_memory(&g, sizes, time, out);
    for (int i = 0; i < g.n; i++) {
        uint64_t *ops = g.node[i].on_array ? out->array_ops : out->lane_ops;
        ops[g.node[i].op] += (uint64_t)(sizes->instances * points(&g, sizes, g.node[i].space, sizes->queries));
    }
    return FV_OK;
}

/* ---- time and energy ---- */

fv_cascade_machine fv_cascade_machine_default(void) {
    return (fv_cascade_machine){.rows = 256,
                                .columns = 256,
                                .lanes = 256,
                                .hz = 940e6,
                                .bytes_per_second = 400.0 * (1 << 30),
                                .buffer_bytes = 16 << 20,
                                .exp_macs = 6,
                                .pj_mac = 17.16,
                                .pj_add = 8.34,
                                .pj_max = 8.34,
                                .pj_divide = 36.25,
                                .pj_byte = 31.2};
}

static double cycles(const uint64_t *ops, int exp_macs) {
    return (double)ops[FV_EINSUM_MAC] + (double)ops[FV_EINSUM_ADD] + (double)ops[FV_EINSUM_MAX] + (double)ops[FV_EINSUM_DIVIDE] +
           (double)ops[FV_EINSUM_EXP] * (exp_macs + 1);
}

static double picojoules(const uint64_t *ops, const fv_cascade_machine *m) {
    return (double)ops[FV_EINSUM_MAC] * m->pj_mac + (double)ops[FV_EINSUM_ADD] * m->pj_add +
           (double)ops[FV_EINSUM_MAX] * m->pj_max + (double)ops[FV_EINSUM_DIVIDE] * m->pj_divide +
           (double)ops[FV_EINSUM_EXP] * (m->exp_macs * m->pj_mac + m->pj_add);
}

/* Queries in equal blocks of whole columns, the largest that fits. False if none does: then one block of columns. */
static fv_status fit_rows(fv_context *ctx, const fv_cascade *c, fv_cascade_sizes *s, const fv_cascade_machine *m, bool *fits) {
    int64_t groups = fvi_ceil_div(s->queries, m->columns);
    *fits = false;
    for (int64_t blocks = 1; blocks <= groups && !*fits; blocks++) {
        if (groups % blocks == 0) {
            fv_cascade_report r;
            s->rows = groups / blocks * m->columns;
            fv_status status = fv_cascade_analyse(ctx, c, s, &r);
            if (status != FV_OK) {
                return status;
            }
            *fits = r.buffer_bytes <= m->buffer_bytes;
        }
    }
    return FV_OK;
}

fv_status fv_cascade_estimate(fv_context *ctx, const fv_cascade *cascade, const fv_cascade_sizes *sizes,
                              const fv_cascade_machine *machine, fv_cascade_cost *out) {
    const fv_cascade_machine *m = machine;
    if (m->rows < 1 || m->columns < 1 || m->lanes < 1 || !(m->hz > 0) || !(m->bytes_per_second > 0) || m->exp_macs < 0) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "a machine needs rows, columns, lanes, hz and bytes_per_second above 0");
    }
    fv_cascade_sizes s = *sizes;
    fv_cascade_report r;
    bool fits;
    fv_status status = fv_cascade_analyse(ctx, cascade, sizes, &r);
    if (status == FV_OK) {
        status = fit_rows(ctx, cascade, &s, m, &fits);
    }
    if (status == FV_OK) {
        status = fv_cascade_analyse(ctx, cascade, &s, &r);
    }
    if (status != FV_OK) {
        return status;
    }
    *out = (fv_cascade_cost){.rows = fvi_min(s.rows, s.queries), .spilled = !fits};
    out->memory_bytes = r.traffic_bytes + (fits ? 0 : r.spill_bytes);
    out->array_seconds = cycles(r.array_ops, m->exp_macs) / ((double)m->rows * (double)m->columns * m->hz);
    out->lane_seconds = cycles(r.lane_ops, m->exp_macs) / ((double)m->lanes * m->hz);
    out->memory_seconds = (double)out->memory_bytes / m->bytes_per_second;
    double longest = out->array_seconds > out->lane_seconds ? out->array_seconds : out->lane_seconds;
    out->seconds = longest > out->memory_seconds ? longest : out->memory_seconds;
    out->joules = (picojoules(r.array_ops, m) + picojoules(r.lane_ops, m) + (double)out->memory_bytes * m->pj_byte) * 1e-12;
    return FV_OK;
}
