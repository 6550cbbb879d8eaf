/* test_real.c - every method that chooses keys, on heads of a language model (tests/golden/real): what a run weighs is what its
 * index says, rows see something and nothing after themselves, and no two methods choose the same.
 *
 * The set is read off the run itself: V is one-hot, 64 keys at a time, so that an output is the weight of a key. That holds for
 * rules, and for what is left out while scores are folded, as well. A new method of the prefill axis adds its line to `choices`.
 */
#include "heads_test.h"
#include "profiled_test.h"

enum { N = 768, D = 64, HEADS = 3, WORDS = N / 64, METHODS = 64 };

typedef struct choice {
    const char *name;
    const char *values;  /* parameters that leave 5% to 60% of the causal pairs; NULL: it is not compared */
    const char *because; /* it is not */
    int64_t calibrate;   /* its profile is found on the first so many positions; 0: it has none */
    double budget;       /* of the calibration; 0: its own */
    int64_t step;        /* it is asked after so many steps of a sequence; 0: it has no steps */
    bool both_ways;      /* it is for bidirectional attention: of its set the causal pairs are compared */
    bool sifts;          /* it leaves out more while scores are folded: the index is not the set */
    bool by_values;      /* its choice depends on V, so the index is read instead */
    bool empties;        /* a row may see nothing: all its scores are below a threshold that was found before */
} choice;

static const choice choices[] = {
    {.name = "block-topk", .values = ":blocks=4:fallback=0"},
    {.name = "dam", .values = ":fallback=0", .calibrate = 256, .budget = .5},
    {.name = "delta", .because = "its set is that of the method it stands around"},
    {.name = "dense", .because = "it sees all"},
    {.name = "dhsa", .values = ":budget=128:local=64:sinks=16:fallback=0"},
    {.name = "dilated", .values = ":size=384:dilation=3:fallback=0"},
    {.name = "faster-na", .values = ":width=32:height=24:window=13:fallback=0"},
    {.name = "flash-attention", .because = "it sees all"},
    {.name = "flexprefill", .values = ":gamma=.6:min=64:fallback=0"},
    {.name = "gali", .because = "it sees all"},
    {.name = "gna", .values = ":width=32:height=24:window=12:stride=4:fallback=0"},
    {.name = "halonet", .values = ":width=32:height=24:fallback=0"},
    {.name = "hepos", .values = ":stride=3:fallback=0", .both_ways = true},
    {.name = "hip", .values = ":k=64:window=64:sinks=4:fallback=0"},
    {.name = "hyper-attention", .values = ":block=64:samples=0:least=128:fallback=0"},
    {.name = "longheads", .values = ":chunk=64:length=256:fallback=0", .by_values = true},
    {.name = "lsg", .values = ":block=64:sparse=64:factor=4:fallback=0"},
    {.name = "masformer", .values = ":dense=0:size=128:fallback=0"},
    {.name = "minference", .values = ":vertical=32:slash=64:fallback=0"},
    {.name = "moa", .values = ":beta=.2:fallback=0"},
    {.name = "oracle", .values = ":density=.25:fallback=0"},
    {.name = "power-attention", .values = ":block=16:window=2:fallback=0"},
    {.name = "random", .values = ":density=.2:fallback=0"},
    {.name = "row-topk", .values = ":k=64:fallback=0"},
    {.name = "s2-attention", .values = ":local=2:fallback=0"},
    {.name = "sale", .values = ":threshold=.4:local=64:dense=64:fallback=0"},
    {.name = "sample-attention", .values = ":alpha=.5:fallback=0"},
    {.name = "self-attn-on2-memory", .because = "it sees all"},
    {.name = "sinks", .values = ":sinks=16:size=128"},
    {.name = "spargeattn", .values = ":sim=.1:cdf=.6:sink=1:pv=8:fallback=0", .sifts = true},
    {.name = "sparse-fixed", .values = ":fallback=0"},
    {.name = "sparse-strided", .values = ":stride=32:form=1:fallback=0"},
    {.name = "sparsed", .values = ":block=64:skip=0:steps=10:fallback=0", .step = 2, .both_ways = true},
    {.name = "star-attention", .values = ":block=128:anchor=64:fallback=0"},
    {.name = "top-theta", .values = ":k=64:fallback=0", .calibrate = N, .sifts = true, .empties = true},
    {.name = "window", .values = ":size=144"},
    {.name = "xattention", .values = ":threshold=.5:fallback=0"},
};

/* Bit j of word b of row h N + i: row i of head h weighs key 64 b + j. */
typedef struct weighed {
    const choice *c;
    uint64_t key[HEADS * N * WORDS];
} weighed;

static int64_t bits_of(uint64_t word) {
    int64_t n = 0;
    for (; word != 0; word &= word - 1) {
        n++;
    }
    return n;
}

/* The keys of word b up to position i. */
static uint64_t causal_word(int64_t i, int64_t b) {
    return 64 * b > i ? 0 : 64 * b + 63 <= i ? UINT64_MAX : UINT64_MAX >> (63 - i % 64);
}

/* ---- a recipe, ready to run ----------------------------------------------------------------------------------------- */

typedef struct bound {
    prepared p;
    fv_run run;
    fv_run_stats stats;
} bound;

static bool right(fv_context *ctx, const choice *c, fv_status status) {
    CHECK(status == FV_OK, "%s%s: %s", c->name, c->values, fv_message(ctx));
    return status == FV_OK;
}

/* The method's own calibration, with the recorded heads as its prompt. */
static fv_status find_profile(fv_context *ctx, const choice *c, fv_recipe *recipe, const heads *x) {
    const fv_calibration_options o = {.layers = 1,
                                      .h_q = x->h_q,
                                      .h_kv = x->h_kv,
                                      .d_k = D,
                                      .d_v = D,
                                      .tokens = c->calibrate,
                                      .prompts = 1,
                                      .budget = c->budget};
    const fv_run run = part_run(x, 0, c->calibrate, c->calibrate);
    return attach_found(ctx, recipe, &o, &run);
}

static bool bind(fv_context *ctx, const choice *c, const heads *x, bound *b) {
    char text[240];
    snprintf(text, sizeof text, "prefill=%s%s%s", c->name, c->calibrate > 0 ? "@found.json" : "", c->values);
    *b = (bound){.run = part_run(x, 0, N, N)};
    fv_problem problem = fv_problem_default();
    problem.h_q = x->h_q;
    problem.h_kv = x->h_kv;
    problem.n_q = problem.n_kv = N;
    problem.d_k = problem.d_v = D;
    problem.causal = !c->both_ways;
    fv_status status = fv_recipe_parse(ctx, text, &b->p.recipe);
    status = status == FV_OK && c->calibrate > 0 ? find_profile(ctx, c, b->p.recipe, x) : status;
    problem.recipe = b->p.recipe;
    if (!right(ctx, c, status) || !right(ctx, c, fv_plan_create(ctx, &problem, &b->p.plan))) {
        return false;
    }
    b->p.bytes = fv_plan_workspace(b->p.plan);
    b->p.workspace = aligned_alloc(64, (b->p.bytes + 63) / 64 * 64);
    b->run.state_bytes = fv_plan_state(b->p.plan);
    b->run.state = b->run.state_bytes > 0 ? aligned_alloc(64, (b->run.state_bytes + 63) / 64 * 64) : NULL;
    bool ready = true;
    for (; b->run.step < c->step && ready; b->run.step++) {
        ready = right(ctx, c, fv_plan_run(b->p.plan, &b->run, b->p.workspace, b->p.bytes));
    }
    return ready;
}

static bool run_bound(fv_context *ctx, const choice *c, bound *b) {
    b->stats = (fv_run_stats){0};
    b->run.stats = &b->stats;
    return right(ctx, c, fv_plan_run(b->p.plan, &b->run, b->p.workspace, b->p.bytes));
}

static void unbind(bound *b) {
    free(b->run.state);
    prepared_free(&b->p);
}

/* ---- what it weighs -------------------------------------------------------------------------------------------------- */

static int64_t pairs_of(const weighed *w) {
    int64_t pairs = 0;
    for (int64_t i = 0; i < HEADS * N * WORDS; i++) {
        pairs += bits_of(w->key[i]);
    }
    return pairs;
}

/* x->v is one-hot while this runs, another in each run, which must not matter. */
static bool read_off(fv_context *ctx, const choice *c, const heads *x, bound *b, weighed *w) {
    float *v = calloc(N * D, sizeof *v);
    b->run.v.data = v;
    bool good = true;
    for (int64_t block = 0; block < WORDS && good; block++) {
        memset(v, 0, N * D * sizeof *v);
        for (int64_t j = 0; j < 64; j++) {
            v[(block * 64 + j) * D + j] = 1;
        }
        good = run_bound(ctx, c, b);
        for (int64_t r = 0; r < HEADS * N; r++) {
            uint64_t word = 0;
            for (int64_t j = 0; j < 64; j++) {
                word |= (uint64_t)(x->out[r * D + j] > 0) << j;
            }
            w->key[r * WORDS + block] = word;
        }
    }
    CHECK((int64_t)b->stats.exact_pairs == pairs_of(w), "%s%s: says it weighs %llu pairs; %lld have a weight", c->name, c->values,
          (unsigned long long)b->stats.exact_pairs, (long long)pairs_of(w));
    free(v);
    b->run.v.data = x->v;
    return good;
}

/* The index says the same, and outputs with the recorded V are those of the set. */
static void index_holds(fv_context *ctx, const choice *c, heads *x, bound *b, weighed *w) {
    selection s = {HEADS, N, calloc(HEADS * N, N), 0};
    fv_status status = fv_plan_index(b->p.plan, &b->run, b->p.workspace, b->p.bytes, take_tile, &s);
    if (status == FV_ERR_UNSUPPORTED) { /* a rule */
        free(s.at);
        return;
    }
    right(ctx, c, status);
    CHECK(s.fell_back == 0, "%s%s: %lld tiles fell back to dense", c->name, c->values, (long long)s.fell_back);
    int64_t missing = 0, more = 0;
    for (int64_t i = 0; i < HEADS * N * N && c->by_values; i++) {
        w->key[i / 64] |= (uint64_t)s.at[i] << (i % 64);
    }
    for (int64_t i = 0; i < HEADS * N * N; i++) {
        bool weighs = w->key[i / 64] >> (i % 64) & 1;
        missing += weighs && !s.at[i];
        more += !weighs && s.at[i];
    }
    CHECK(missing == 0, "%s%s: weighs %lld pairs that its index has not", c->name, c->values, (long long)missing);
    CHECK(c->sifts || more == 0, "%s%s: its index has %lld pairs that are not weighed", c->name, c->values, (long long)more);
    if (!c->sifts && c->calibrate == 0 && c->step == 0) {
        char text[240];
        snprintf(text, sizeof text, "prefill=%s%s", c->name, c->values);
        run_holds_if(ctx, text, x, &s, 37, !c->both_ways);
    }
    free(s.at);
}

/* Every row sees a key, none a later one. Leaves the causal pairs alone in w. */
static double shape_holds(const choice *c, weighed *w) {
    int64_t empty = 0, later = 0, pairs = 0;
    for (int64_t r = 0; r < HEADS * N; r++) {
        uint64_t any = 0;
        for (int64_t b = 0; b < WORDS; b++) {
            uint64_t *word = &w->key[r * WORDS + b], seen = causal_word(r % N, b);
            any |= *word;
            later += bits_of(*word & ~seen);
            *word &= seen;
            pairs += bits_of(*word);
        }
        empty += any == 0;
    }
    CHECK(c->empties || empty == 0, "%s%s: %lld rows see nothing", c->name, c->values, (long long)empty);
    CHECK(c->both_ways || later == 0, "%s%s: %lld pairs are of later keys", c->name, c->values, (long long)later);
    return (double)pairs / ((double)HEADS * N * (N + 1) / 2);
}

/* Mean over rows of the mass that is missed, against dense attention of the same kind. */
static double mass_missed(fv_context *ctx, const choice *c, heads *x, bound *b) {
    float *lse = calloc(HEADS * N, sizeof *lse);
    double missed = 0;
    b->run.lse = lse;
    run_bound(ctx, c, b);
    heads_run_if(ctx, "", x, !c->both_ways);
    for (int64_t r = 0; r < HEADS * N; r++) {
        missed += 1 - exp((double)lse[r] - x->lse[r]);
    }
    free(lse);
    return missed / (HEADS * N);
}

static void holds(fv_context *ctx, const choice *c, heads *x, weighed *w) {
    bound b;
    w->c = c;
    if (bind(ctx, c, x, &b) && (c->by_values || read_off(ctx, c, x, &b, w))) {
        index_holds(ctx, c, x, &b, w);
        double missed = mass_missed(ctx, c, x, &b), density = shape_holds(c, w);
        CHECK(density >= .05 && density <= .6, "%s%s: %.1f%% of the causal pairs; choose values for 5%% to 60%%", c->name,
              c->values, 100 * density);
        printf("%-17s %5.1f%% of the causal pairs, misses %5.2f%% of the mass  %s\n", c->name, 100 * density, 100 * missed,
               c->values);
    }
    unbind(&b);
}

/* ---- all of them ----------------------------------------------------------------------------------------------------- */

static const choice *choice_of(const char *name) {
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        if (strcmp(choices[i].name, name) == 0) {
            return &choices[i];
        }
    }
    return NULL;
}

/* Pairs that both have, over those that one has. */
static double alike(const weighed *a, const weighed *b) {
    int64_t both = 0, some = 0;
    for (int64_t i = 0; i < HEADS * N * WORDS; i++) {
        both += bits_of(a->key[i] & b->key[i]);
        some += bits_of(a->key[i] | b->key[i]);
    }
    return (double)both / (double)some;
}

static void no_two_are_equal(weighed *const *set, int sets) {
    double most = 0;
    int one = 0, other = 0;
    for (int a = 0; a < sets; a++) {
        for (int b = 0; b < a; b++) {
            double share = alike(set[a], set[b]);
            CHECK(share < 0.98, "%s%s and %s%s choose the same, or %.1f%% of it", set[b]->c->name, set[b]->c->values,
                  set[a]->c->name, set[a]->c->values, 100 * share);
            one = share > most ? b : one;
            other = share > most ? a : other;
            most = share > most ? share : most;
        }
    }
    printf("%d sets; the nearest are %s and %s, with %.1f%% of their pairs in common\n", sets, set[one]->c->name,
           set[other]->c->name, 100 * most);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    heads x = heads_real(HEADS, 1, N);
    weighed *set[METHODS];
    int sets = 0;
    bool read = failures == 0;
    const fv_method *m;
    for (int i = 0; read && (m = fv_method_at(i)) != NULL; i++) {
        if (!(m->axes & FV_AXIS_PREFILL) || m->not_a_choice != NULL) {
            continue;
        }
        const choice *c = choice_of(m->name);
        CHECK(c != NULL, "%s is new: say in `choices` at which values it is compared", m->name);
        if (c != NULL && c->values == NULL) {
            printf("%-17s not compared: %s\n", c->name, c->because);
        }
        if (c != NULL && c->values != NULL && sets < METHODS) {
            set[sets] = calloc(1, sizeof **set);
            holds(ctx, c, &x, set[sets++]);
        }
    }
    CHECK(sets < METHODS, "more than %d methods: make METHODS larger", METHODS);
    if (sets > 0) {
        no_two_are_equal(set, sets);
    }
    for (int i = 0; i < sets; i++) {
        free(set[i]);
    }
    heads_free(&x);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
