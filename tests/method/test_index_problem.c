/* test_index_problem.c - methods that make an index, in problems of all kinds: key masks, a window, packed sequences, batches of
 * lengths of their own, more or fewer queries than keys. What a run weighs is the method's set and the problem's masks together,
 * in company as alone. And tiles folded side by side, which takes few threads for many tiles. */
#include "index_test.h"

typedef struct method {
    const char *recipe;
    bool both;  /* it takes problems that are not causal */
    bool cross; /* it takes no others */
    bool sifts; /* leaves out more while scores are folded: the index is not the set */
    bool mixes; /* weighs pairs, or has entries that are no keys: what a run weighs is left to its own test */
} method;

static const method methods[] = {
    {.recipe = "prefill=block-topk:blocks=2:fallback=0"},
    {.recipe = "prefill=dhsa:budget=96:local=48:sinks=4:chunk=8:fallback=0"},
    {.recipe = "prefill=dilated:size=40:dilation=3:fallback=0"},
    {.recipe = "prefill=flexprefill:gamma=.5:min=1:tau=0:fallback=0"},
    {.recipe = "prefill=hepos:stride=2:fallback=0", .both = true, .cross = true},
    {.recipe = "prefill=hip:k=32:window=64:sinks=4:fallback=0"},
    {.recipe = "prefill=hyper-attention:block=16:samples=0:least=48:projections=4:chunk=64:fallback=0", .both = true},
    {.recipe = "prefill=hyper-attention:block=16:samples=24:least=48:projections=4:chunk=64:fallback=0", .mixes = true},
    {.recipe = "prefill=longheads:chunk=64:length=256:fallback=0"},
    {.recipe = "prefill=lsg:block=64:sparse=64:factor=4:fallback=0", .both = true},
    {.recipe = "prefill=lsg:block=64:sparse=64:factor=4:reduction=3:fallback=0", .mixes = true},
    {.recipe = "prefill=lsg:block=64:sparse=64:factor=4:reduction=5:fallback=0", .mixes = true},
    {.recipe = "prefill=masformer:dense=0:size=60:fallback=0", .both = true},
    {.recipe = "prefill=minference:vertical=35:slash=110:fallback=0"},
    {.recipe = "prefill=minference:kind=1:blocks=2:fallback=0"},
    {.recipe = "prefill=moa:beta=.3:fallback=0", .both = true},
    {.recipe = "prefill=oracle:density=.4:fallback=0"},
    {.recipe = "prefill=power-attention:block=16:window=2:fallback=0", .both = true},
    {.recipe = "prefill=random:density=.3:columns=1:fallback=0", .both = true},
    {.recipe = "prefill=row-topk:k=20:fallback=0", .both = true},
    {.recipe = "prefill=s2-attention:block=16:local=2:fallback=0", .both = true},
    {.recipe = "prefill=sale:threshold=40:local=64:dense=0:fallback=0"},
    {.recipe = "prefill=sample-attention:alpha=.4:fallback=0"},
    {.recipe = "prefill=spargeattn:sim=.1:cdf=.5:pv=6:fallback=0", .both = true, .sifts = true},
    {.recipe = "prefill=sparse-fixed:length=50:cells=10:groups=2:fallback=0", .both = true},
    {.recipe = "prefill=sparse-strided:stride=20:form=1:fallback=0", .both = true},
    {.recipe = "prefill=star-attention:block=64:anchor=20:query=30:fallback=0", .both = true},
    {.recipe = "prefill=top-theta:theta=3:k=10:fallback=0", .both = true, .sifts = true},
    {.recipe = "prefill=xattention:threshold=.5:stride=8:fallback=0"},
};
enum { METHODS = sizeof methods / sizeof *methods };

/* ---- one sequence: what is weighed ------------------------------------------------------------------------------------- */

typedef struct shape {
    int64_t n_q, n_kv, window, sinks;
    bool causal;
    const uint8_t *mask; /* (n_kv) or NULL */
} shape;

/* (h_q, n_q, n_kv) bytes. */
typedef struct seen_pairs {
    const shape *z;
    unsigned char *at;
    int64_t head;
} seen_pairs;

static int take(void *user, const fv_index_tile *t) {
    seen_pairs *s = user;
    for (int64_t r = 0; r < t->n; r++) {
        const int64_t i = t->row != NULL ? t->row[r] : t->first + r;
        for (int64_t j = 0; j < t->n_kv; j++) {
            s->at[(t->head * s->z->n_q + i) * s->z->n_kv + j] = fv_index_sees(t, i, j);
        }
    }
    return 0;
}

static fv_plan *plan_of(fv_context *ctx, const char *recipe, fv_problem problem, fv_status *status) {
    fv_recipe *r = NULL;
    fv_plan *plan = NULL;
    *status = fv_recipe_parse(ctx, recipe, &r);
    problem.recipe = r;
    *status = *status == FV_OK ? fv_plan_create(ctx, &problem, &plan) : *status;
    fv_recipe_destroy(r);
    return plan;
}

static void *workspace_of(const fv_plan *plan) {
    size_t bytes = fv_plan_workspace(plan);
    void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
    memset(workspace, 0xff, bytes);
    return workspace;
}

static fv_problem problem_of(const heads *x, const shape *z) {
    fv_problem p = fv_problem_default();
    p.h_q = x->h_q;
    p.h_kv = x->h_kv;
    p.n_q = z->n_q;
    p.n_kv = z->n_kv;
    p.d_k = p.d_v = x->d;
    p.causal = z->causal;
    p.window = z->window;
    p.sinks = z->sinks;
    p.has_key_mask = z->mask != NULL;
    return p;
}

/* The first n_q queries over the first n_kv keys. */
static fv_run run_of(const heads *x, const shape *z) {
    fv_run run = part_run(x, 0, z->n_q, z->n_kv);
    run.out = fv_tensor_view(x->out, FV_F32, 1, x->h_q, z->n_q, x->d);
    run.lse = x->lse;
    run.key_mask = z->mask;
    return run;
}

/* Index (NULL: not wanted), output and log-sum-exp. */
static fv_run_stats run_shape(fv_context *ctx, const char *recipe, heads *x, const shape *z, unsigned char *index) {
    fv_status status;
    fv_plan *plan = plan_of(ctx, recipe, problem_of(x, z), &status);
    fv_run_stats stats = {0};
    CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
    if (status != FV_OK) {
        return stats;
    }
    void *workspace = workspace_of(plan);
    fv_run run = run_of(x, z);
    seen_pairs s = {z, index, 0};
    status = index == NULL ? FV_OK : fv_plan_index(plan, &run, workspace, fv_plan_workspace(plan), take, &s);
    CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
    run.stats = &stats;
    CHECK(fv_plan_run(plan, &run, workspace, fv_plan_workspace(plan)) == FV_OK, "%s: %s", recipe, fv_message(ctx));
    free(workspace);
    fv_plan_destroy(plan);
    return stats;
}

static bool pair_seen(const void *arg, int64_t i, int64_t j) {
    const seen_pairs *s = arg;
    return j < s->z->n_kv && s->at[(s->head * s->z->n_q + i) * s->z->n_kv + j];
}

static int64_t count(const unsigned char *at, int64_t n) {
    int64_t sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += at[i];
    }
    return sum;
}

/* Rows of x->out and x->lse are those of the pairs. */
static void weighs(const char *recipe, const heads *x, seen_pairs s) {
    double worst = 0, out[64];
    const shape *z = s.z;
    int64_t wrong = 0;
    for (s.head = 0; s.head < x->h_q; s.head++) {
        for (int64_t i = 0; i < z->n_q; i += 3) {
            const int64_t row = s.head * z->n_q + i;
            double lse = reference_row(x, s.head, i, pair_seen, &s, out);
            bool empty = count(s.at + row * z->n_kv, z->n_kv) == 0;
            wrong += empty && x->lse[row] != -INFINITY;
            worst = empty ? worst : fmax(worst, fabs(lse - x->lse[row]));
            for (int64_t c = 0; c < x->d; c++) {
                worst = fmax(worst, fabs((empty ? 0 : out[c]) - x->out[row * x->d + c]));
            }
        }
    }
    CHECK(worst < 2e-5 && wrong == 0, "%s, %lld x %lld, causal %d, mask %d, window %lld: off by %g, %lld empty rows have a sum",
          recipe, (long long)z->n_q, (long long)z->n_kv, z->causal, z->mask != NULL, (long long)z->window, worst,
          (long long)wrong);
}

/* Of the method's set without the problem's masks those pairs are weighed that the masks leave. */
static void shape_holds(fv_context *ctx, const method *m, heads *x, const shape *z) {
    const shape bare = {.n_q = z->n_q, .n_kv = z->n_kv, .causal = z->causal};
    const int64_t pairs = x->h_q * z->n_q * z->n_kv;
    unsigned char *alone = calloc((size_t)pairs, 1), *index = calloc((size_t)pairs, 1);
    run_shape(ctx, m->recipe, x, &bare, alone);
    fv_run_stats stats = run_shape(ctx, m->recipe, x, z, index);
    int64_t differ = 0;
    for (int64_t p = 0; p < pairs; p++) {
        int64_t j = p % z->n_kv, i = p / z->n_kv % z->n_q + z->n_kv - z->n_q;
        bool within = z->window == 0 || (i - j < z->window && (z->causal || j - i < z->window)) || j < z->sinks;
        differ += index[p] != (alone[p] && within);
        index[p] = index[p] && (z->mask == NULL || z->mask[j]);
    }
    CHECK(differ == 0, "%s, %lld x %lld, causal %d: a mask and a window change %lld pairs of the index", m->recipe,
          (long long)z->n_q, (long long)z->n_kv, z->causal, (long long)differ);
    int64_t weighed = count(index, pairs);
    if (!m->sifts) {
        CHECK((int64_t)stats.exact_pairs == weighed, "%s, %lld x %lld: weighed %llu pairs of %lld", m->recipe, (long long)z->n_q,
              (long long)z->n_kv, (unsigned long long)stats.exact_pairs, (long long)weighed);
        weighs(m->recipe, x, (seen_pairs){z, index, 0});
    } else {
        CHECK((int64_t)stats.exact_pairs <= weighed, "%s: weighs more than its index", m->recipe);
    }
    free(alone);
    free(index);
}

/* Every third key is hidden, the first ones and a whole block of keys too. */
static void make_mask(uint8_t *mask, int64_t n) {
    for (int64_t j = 0; j < n; j++) {
        mask[j] = j >= 3 && j % 3 != 1 && (j < 128 || j >= 192);
    }
}

static void shapes_hold(fv_context *ctx, const method *m) {
    static const int64_t length[][2] = {{300, 300}, {90, 260}, {260, 90}, {1, 200}, {65, 64}};
    uint8_t mask[300];
    make_mask(mask, 300);
    for (int k = 0; k < 5; k++) {
        const int64_t n_q = length[k][0], n_kv = length[k][1];
        heads x = heads_make((uint64_t)k + 3, 4, 2, n_q > n_kv ? n_q : n_kv, 32);
        for (int causal = m->both ? 0 : 1; causal < (m->cross ? 1 : 2); causal++) {
            shape_holds(ctx, m, &x, &(shape){.n_q = n_q, .n_kv = n_kv, .causal = causal == 1});
            shape_holds(ctx, m, &x, &(shape){.n_q = n_q, .n_kv = n_kv, .causal = causal == 1, .mask = mask});
            shape_holds(ctx, m, &x,
                        &(shape){.n_q = n_q, .n_kv = n_kv, .causal = causal == 1, .window = 70, .sinks = 5, .mask = mask});
        }
        heads_free(&x);
    }
}

/* ---- in company -------------------------------------------------------------------------------------------------------- */

enum { H_Q = 4, H_KV = 2, D = 32 };

/* Contiguous rows, b times n_q and n_kv of them; or of a pack, with b = 1. */
typedef struct rows {
    int64_t b, n_q, n_kv;
    float *q, *k, *v, *out, *lse;
} rows;

static rows rows_make(uint64_t seed, int64_t b, int64_t n_q, int64_t n_kv) {
    rows r = {.b = b, .n_q = n_q, .n_kv = n_kv};
    r.q = numbers(&seed, b * H_Q * n_q * D, 3);
    r.k = numbers(&seed, b * H_KV * n_kv * D, 3);
    r.v = numbers(&seed, b * H_KV * n_kv * D, 1);
    r.out = numbers(&seed, b * H_Q * n_q * D, 1);
    r.lse = numbers(&seed, b * H_Q * n_q, 1);
    return r;
}

static void rows_free(rows *r) {
    free(r->q);
    free(r->k);
    free(r->v);
    free(r->out);
    free(r->lse);
}

/* `operands` has what is not rows. */
static void run_rows(fv_context *ctx, const char *recipe, fv_problem problem, fv_run operands, const rows *r) {
    problem.h_q = H_Q;
    problem.h_kv = H_KV;
    problem.d_k = problem.d_v = D;
    problem.causal = true;
    problem.has_key_mask = operands.key_mask != NULL;
    fv_status status;
    fv_plan *plan = plan_of(ctx, recipe, problem, &status);
    CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
    if (plan == NULL) {
        return;
    }
    void *workspace = workspace_of(plan);
    operands.q = fv_tensor_view(r->q, FV_F32, r->b, H_Q, r->n_q, D);
    operands.k = fv_tensor_view(r->k, FV_F32, r->b, H_KV, r->n_kv, D);
    operands.v = fv_tensor_view(r->v, FV_F32, r->b, H_KV, r->n_kv, D);
    operands.out = fv_tensor_view(r->out, FV_F32, r->b, H_Q, r->n_q, D);
    operands.lse = r->lse;
    CHECK(fv_plan_run(plan, &operands, workspace, fv_plan_workspace(plan)) == FV_OK, "%s: %s", recipe, fv_message(ctx));
    free(workspace);
    fv_plan_destroy(plan);
}

/* of (h, all, width): rows from .. from + n - 1 of each head. */
static void cut(const float *x, int64_t h, int64_t all, int64_t from, int64_t n, int64_t width, float *out) {
    for (int64_t head = 0; head < h; head++) {
        memcpy(out + head * n * width, x + (head * all + from) * width, (size_t)(n * width) * sizeof *out);
    }
}

/* What company gave rows q0.. of the sequence is what it gives alone. `company` begins at the sequence's heads. */
static void alone_is_same(fv_context *ctx, const char *recipe, const rows *company, int64_t q0, int64_t n_q, int64_t k0,
                          int64_t n_kv, const uint8_t *mask, const char *what) {
    if (n_q == 0) {
        return;
    }
    rows one = rows_make(1, 1, n_q, n_kv);
    cut(company->q, H_Q, company->n_q, q0, n_q, D, one.q);
    cut(company->k, H_KV, company->n_kv, k0, n_kv, D, one.k);
    cut(company->v, H_KV, company->n_kv, k0, n_kv, D, one.v);
    fv_problem problem = fv_problem_default();
    problem.n_q = n_q;
    problem.n_kv = n_kv;
    run_rows(ctx, recipe, problem, (fv_run){.key_mask = mask}, &one);
    float *out = malloc((size_t)(H_Q * n_q * D) * sizeof *out), *lse = malloc((size_t)(H_Q * n_q) * sizeof *lse);
    cut(company->out, H_Q, company->n_q, q0, n_q, D, out);
    cut(company->lse, H_Q, company->n_q, q0, n_q, 1, lse);
    CHECK(memcmp(out, one.out, (size_t)(H_Q * n_q * D) * sizeof *out) == 0, "%s, %s: a sequence of %lld x %lld has other outputs",
          recipe, what, (long long)n_q, (long long)n_kv);
    CHECK(memcmp(lse, one.lse, (size_t)(H_Q * n_q) * sizeof *lse) == 0, "%s, %s: a sequence of %lld x %lld has other sums",
          recipe, what, (long long)n_q, (long long)n_kv);
    free(out);
    free(lse);
    rows_free(&one);
}

/* A pack of short and empty sequences, one of them with more keys than queries. */
static void pack_holds(fv_context *ctx, const char *recipe, bool masked) {
    static const int32_t q_start[] = {0, 1, 131, 131, 195, 285}, k_start[] = {0, 1, 131, 131, 195, 455};
    enum { SEQUENCES = 5, Q = 285, K = 455 };
    rows r = rows_make(11, 1, Q, K);
    uint8_t mask[K];
    make_mask(mask, K);
    mask[0] = 1;
    fv_problem problem = fv_problem_default();
    problem.b = SEQUENCES;
    problem.packed = true;
    problem.n_q = 130;
    problem.n_kv = 260;
    run_rows(ctx, recipe, problem, (fv_run){.q_start = q_start, .k_start = k_start, .key_mask = masked ? mask : NULL}, &r);
    for (int s = 0; s < SEQUENCES; s++) {
        alone_is_same(ctx, recipe, &r, q_start[s], q_start[s + 1] - q_start[s], k_start[s], k_start[s + 1] - k_start[s],
                      masked ? mask + k_start[s] : NULL, masked ? "packed with a key mask" : "packed");
    }
    rows_free(&r);
}

/* A batch whose sequences end at lengths of their own; what is past them is not a number. */
static void batch_holds(fv_context *ctx, const char *recipe) {
    enum { B = 3, N_Q = 70, N_KV = 200 };
    static const int32_t length[B] = {200, 70, 131};
    rows r = rows_make(12, B, N_Q, N_KV);
    for (int64_t i = 0; i < B * H_KV * N_KV * D; i++) {
        bool past = i / D % N_KV >= length[i / D / N_KV / H_KV];
        r.k[i] = past ? NAN : r.k[i];
        r.v[i] = past ? NAN : r.v[i];
    }
    fv_problem problem = fv_problem_default();
    problem.b = B;
    problem.n_q = N_Q;
    problem.n_kv = N_KV;
    run_rows(ctx, recipe, problem, (fv_run){.kv_length = length}, &r);
    for (int64_t s = 0; s < B; s++) {
        const rows own = {1,
                          N_Q,
                          N_KV,
                          r.q + s * H_Q * N_Q * D,
                          r.k + s * H_KV * N_KV * D,
                          r.v + s * H_KV * N_KV * D,
                          r.out + s * H_Q * N_Q * D,
                          r.lse + s * H_Q * N_Q};
        alone_is_same(ctx, recipe, &own, 0, N_Q, 0, length[s], NULL, "in a batch of lengths");
    }
    rows_free(&r);
}

/* ---- side by side ------------------------------------------------------------------------------------------------------ */

/* One thread has so many tiles that up to four of a head are folded side by side, 32 threads none: rows of K that were read tell.
 * No bit does. */
static void sharing_holds(const char *recipe, bool shares) {
    heads x = heads_make(21, 4, 2, 1000, 32), many = heads_make(21, 4, 2, 1000, 32);
    fv_context *one = NULL, *all = NULL;
    const fv_context_options single = {.threads = 1}, crowd = {.threads = 32};
    if (fv_context_create(&single, &one) == FV_OK && fv_context_create(&crowd, &all) == FV_OK) {
        fv_run_stats few = heads_run(one, recipe, &x), most = heads_run(all, recipe, &many);
        CHECK(memcmp(x.out, many.out, 4 * 1000 * 32 * sizeof(float)) == 0 &&
                  memcmp(x.lse, many.lse, 4 * 1000 * sizeof(float)) == 0,
              "%s: one thread and 32 differ", recipe);
        CHECK(few.exact_pairs == most.exact_pairs && few.visited_pairs == most.visited_pairs, "%s: pairs of 1 and of 32 threads",
              recipe);
        CHECK(!shares || 5 * few.k_rows < 3 * most.k_rows,
              "%s: one thread reads %llu rows of K, 32 read %llu: tiles share no leaf", recipe, (unsigned long long)few.k_rows,
              (unsigned long long)most.k_rows);
    }
    fv_context_destroy(one);
    fv_context_destroy(all);
    heads_free(&x);
    heads_free(&many);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    for (int i = 0; i < METHODS; i++) {
        if (!methods[i].mixes) {
            shapes_hold(ctx, &methods[i]);
        }
        if (!methods[i].cross) {
            pack_holds(ctx, methods[i].recipe, false);
            pack_holds(ctx, methods[i].recipe, true);
            batch_holds(ctx, methods[i].recipe);
            sharing_holds(methods[i].recipe, false);
        }
    }
    sharing_holds("prefill=minference:vertical=200:slash=60:fallback=0", true);
    sharing_holds("prefill=xattention:threshold=.9:fallback=0", true);
    sharing_holds("prefill=random:density=.5:fallback=0", true);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
