/* test_dhsa.c - chunks of keys against a choice in double that sorts all chunks, and against both forms of the official code; a
 * predictor of boundaries, trained on texts whose boundaries are known, against a network written out in double. */
#include "heads_test.h"
#include "profiled_test.h"
#include "structured_test.h"

enum { BLOCK = 128 };

typedef struct options {
    int64_t budget;
    double density;
    int64_t chunk, local, sinks, norm;
    const double *cut; /* a profile's */
    int64_t cuts;
} options;

typedef struct piece {
    int64_t from, to;
    double score;
} piece;

static int by_score(const void *a, const void *b) {
    const piece *x = a, *y = b;
    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    return x->from < y->from ? -1 : 1;
}

/* Chunks of keys 0 .. end - 1, as the profile and then the fixed length cut them. */
static int64_t pieces_of(const options *o, int64_t end, piece *p) {
    int64_t n = 0, from = 0;
    for (int64_t i = 0; i < o->cuts && from < end; i++) {
        int64_t to = (int64_t)o->cut[i] < end ? (int64_t)o->cut[i] : end;
        p[n++] = (piece){from, to, 0};
        from = to;
    }
    while (from < end) {
        int64_t to = from + o->chunk < end ? from + o->chunk : end;
        p[n++] = (piece){from, to, 0};
        from = to;
    }
    return n;
}

static double score_of(const heads *x, const options *o, int64_t head, int64_t first, int64_t last, const piece *p) {
    double score = 0;
    const float *q = x->q + head * x->n * x->d, *k = x->k + head / (x->h_q / x->h_kv) * x->n * x->d;
    for (int64_t c = 0; c < x->d; c++) {
        double mean_q = 0, mean_k = 0;
        for (int64_t i = first; i <= last; i++) {
            mean_q += q[i * x->d + c] / (double)(last + 1 - first);
        }
        for (int64_t j = p->from; j < p->to; j++) {
            mean_k += k[j * x->d + c] / (double)(p->to - p->from);
        }
        score += mean_q * mean_k;
    }
    return score * (o->norm ? sqrt((double)(p->to - p->from)) : 1);
}

/* Marks what queries first..last may see; false if two chunks at the edge are too close to tell. */
static bool choose(const heads *x, const options *o, int64_t head, int64_t first, int64_t last, unsigned char *mark) {
    int64_t end = last + 1;
    piece *p = malloc((size_t)end * sizeof *p);
    int64_t n = pieces_of(o, end, p);
    memset(mark, 0, (size_t)x->n);
    for (int64_t b = 0; b < n; b++) {
        p[b].score = score_of(x, o, head, first, last, &p[b]);
    }
    qsort(p, (size_t)n, sizeof *p, by_score);
    int64_t recent = o->local < end ? o->local : end, b = 0, left = end;
    if (o->density == 0) {
        recent = recent < o->budget ? recent : o->budget;
        left = o->budget - recent;
    }
    memset(mark + end - recent, 1, (size_t)recent);
    int64_t most = o->density == 0 ? n : (int64_t)floor(o->density * (double)n);
    most = most < 1 ? 1 : most;
    for (; b < most && left > 0; b++) {
        for (int64_t j = p[b].from; j < p[b].to && left > 0; j++) {
            left -= !mark[j];
            mark[j] = 1;
        }
    }
    bool sure = b == 0 || b == n || fabs(p[b - 1].score - p[b].score) > 1e-5 * fabs(p[b].score);
    int64_t out = o->density == 0 ? o->sinks : 0;
    for (int64_t j = 0; j < end && out > 0; j++) {
        out -= mark[j];
        mark[j] = 0;
    }
    for (int64_t j = 0; j < o->sinks - out && j < end; j++) {
        mark[j] = 1;
    }
    free(p);
    return sure;
}

static void recipe_of(const options *o, char *recipe, size_t size) {
    snprintf(recipe, size, "prefill=dhsa%s:budget=%d:density=%g:chunk=%d:local=%d:sinks=%d:norm=%d:fallback=0",
             o->cut != NULL ? "@cuts.json" : "", (int)o->budget, o->density, (int)o->chunk, (int)o->local, (int)o->sinks,
             (int)o->norm);
}

static selection select_by(fv_context *ctx, const options *o, const char *recipe, heads *x) {
    if (o->cut == NULL) {
        return select_all(ctx, recipe, x, true);
    }
    const double *const at[] = {o->cut, o->cut, o->cut, o->cut};
    const int64_t n[] = {o->cuts, o->cuts, o->cuts, o->cuts};
    return select_profiled(ctx, recipe, &(profiled){"dhsa", at, n}, x);
}

/* How many pairs of a head differ from the choice; adds the blocks that are too close to tell. */
static int64_t head_differs(const heads *x, const options *o, int64_t head, const selection *s, int64_t *unsure) {
    unsigned char *mark = malloc((size_t)x->n);
    int64_t wrong = 0;
    for (int64_t first = 0; first < x->n; first += BLOCK) {
        int64_t last = first + BLOCK < x->n ? first + BLOCK - 1 : x->n - 1;
        if (!choose(x, o, head, first, last, mark)) {
            ++*unsure;
            continue;
        }
        for (int64_t i = first; i <= last; i++) {
            for (int64_t j = 0; j < x->n; j++) {
                wrong += s->at[(head * x->n + i) * x->n + j] != (j <= i && mark[j]);
            }
        }
    }
    free(mark);
    return wrong;
}

static void holds(fv_context *ctx, const void *arg, heads *x) {
    const options *o = arg;
    char recipe[160];
    recipe_of(o, recipe, sizeof recipe);
    selection s = select_by(ctx, o, recipe, x);
    int64_t wrong = 0, unsure = 0;
    for (int64_t head = 0; head < x->h_q; head++) {
        wrong += head_differs(x, o, head, &s, &unsure);
    }
    CHECK(wrong == 0, "%s, n %lld, d %lld: %lld pairs differ", recipe, (long long)x->n, (long long)x->d, (long long)wrong);
    CHECK(unsure <= 1, "%s: %lld blocks of queries are too close to tell", recipe, (long long)unsure);
    if (o->cut == NULL) {
        run_holds(ctx, recipe, x, &s, x->n > 300 ? 37 : 1);
        chunks_hold(ctx, recipe, x, &s, 128);
        chunks_hold(ctx, recipe, x, &s, 384);
    }
    free(s.at);
}

/* ---- a predictor ---- */

enum { WINDOW = 4, HIDDEN = 8, SEGMENT = 128, APART = 8, HEADS = 4 };

/* Topics of random length one after another: their keys are alike, and queries like some topics much more than others. Marks
 * where topics begin, edge (n). */
static heads topics_make(uint64_t seed, int64_t n, int64_t d, unsigned char *edge) {
    heads x = heads_make(seed, HEADS, 2, n, d);
    float *topic = numbers(&seed, d, 1), *lengths = numbers(&seed, n, 1);
    memset(edge, 0, (size_t)n);
    for (int64_t i = 0, t = 0, end = 0; i < n; i++) {
        if (i == end) {
            free(topic);
            topic = numbers(&seed, d, 2);
            topic[0] = t % 2 == 0 ? 3 : -3;
            edge[i] = 1;
            end += 12 + (int64_t)(12 * fabsf(lengths[t++]));
        }
        for (int64_t h = 0; h < 2; h++) {
            for (int64_t c = 0; c < d; c++) {
                float *k = &x.k[(h * n + i) * d + c];
                *k = topic[c] + 0.1f * *k;
            }
        }
        for (int64_t h = 0; h < HEADS; h++) {
            x.q[(h * n + i) * d] = 4;
        }
    }
    free(topic);
    free(lengths);
    return x;
}

/* The profile of a text, or NULL. */
static fv_profile *trained_on(fv_context *ctx, const heads *x) {
    fv_recipe *recipe = NULL;
    fv_calibration *calibration = NULL;
    fv_profile *profile = NULL;
    fv_calibration_options o = {
        .layers = 1, .h_q = x->h_q, .h_kv = x->h_kv, .d_k = x->d, .d_v = x->d, .tokens = x->n, .prompts = 2};
    fv_run run = part_run(x, 0, x->n, x->n);
    fv_status status = fv_recipe_parse(ctx, "prefill=dhsa", &recipe);
    status = status == FV_OK ? fv_calibration_create(ctx, recipe, &o, &calibration) : status;
    status = status == FV_OK ? fv_calibration_add(calibration, &run) : status;
    status = status == FV_OK ? fv_calibration_add(calibration, &run) : status;
    status = status == FV_OK ? fv_calibration_find(calibration, &profile) : status;
    CHECK(status == FV_OK, "a calibration: %s", fv_message(ctx));
    fv_calibration_destroy(calibration);
    fv_recipe_destroy(recipe);
    return profile;
}

static double network(const double *w, const float *keys, int64_t d) {
    const int64_t width = 4 * d + 1;
    double x[1024] = {0}, logit = w[width * HIDDEN + 2 * HIDDEN], l = 0, r = 0;
    for (int64_t c = 0; c < d; c++) {
        for (int64_t i = 0; i < WINDOW; i++) {
            x[c] += keys[i * d + c] / (double)WINDOW;
            x[d + c] += keys[(WINDOW + i) * d + c] / (double)WINDOW;
        }
        x[2 * d + c] = fabs(x[c] - x[d + c]);
        x[3 * d + c] = x[c] * x[d + c];
        x[4 * d] += x[c] * x[d + c];
        l += x[c] * x[c];
        r += x[d + c] * x[d + c];
    }
    x[4 * d] /= sqrt(l * r);
    for (int64_t h = 0; h < HIDDEN; h++) {
        double unit = w[width * HIDDEN + h];
        for (int64_t i = 0; i < width; i++) {
            unit += x[i] * w[i * HIDDEN + h];
        }
        logit += unit > 0 ? unit * w[width * HIDDEN + HIDDEN + h] : 0;
    }
    return logit;
}

/* Where chunks begin after the first, and the end; -1 if two places are too close to tell. */
static int64_t predicted(const heads *x, int64_t head, int64_t chunk, const double *w, double *cut) {
    const float *k = x->k + head / (x->h_q / x->h_kv) * x->n * x->d;
    int64_t n = 0;
    for (int64_t first = 0; first < x->n; first += SEGMENT) {
        double logit[SEGMENT];
        bool taken[SEGMENT] = {true};
        for (int64_t p = 0; p < SEGMENT; p++) {
            const bool may = p > APART && p + APART < SEGMENT && first + p + WINDOW <= x->n;
            logit[p] = may ? network(w, k + (first + p - WINDOW) * x->d, x->d) : -INFINITY;
        }
        for (int64_t left = SEGMENT / chunk - 1; left > 0; left--) {
            int64_t best = 0;
            double next = -INFINITY;
            for (int64_t p = 1; p < SEGMENT; p++) {
                bool near = false;
                for (int64_t q = p - APART; q <= p + APART; q++) {
                    near = near || (q >= 0 && q < SEGMENT && taken[q]);
                }
                if (!near && logit[p] > logit[best]) {
                    next = logit[best];
                    best = p;
                } else if (!near && logit[p] > next) {
                    next = logit[p];
                }
            }
            if (best > 0 && logit[best] - next < 1e-4) {
                return -1;
            }
            taken[best] = true;
        }
        for (int64_t p = 0; p < SEGMENT && first + p < x->n; p++) {
            if (taken[p] && first + p > 0) {
                cut[n++] = (double)(first + p);
            }
        }
    }
    cut[n++] = (double)x->n;
    return n;
}

/* Of the topics that begin where a boundary may be: the share that has one within a key. */
static double edges_found(const unsigned char *edge, int64_t n, const double *cut, int64_t cuts) {
    int64_t all = 0, found = 0;
    for (int64_t i = 1; i < n - WINDOW; i++) {
        if (edge[i] && i % SEGMENT > APART && i % SEGMENT < SEGMENT - APART) {
            bool near = false;
            for (int64_t k = 0; k < cuts; k++) {
                near = near || fabs(cut[k] - (double)i) <= 1;
            }
            all++;
            found += near;
        }
    }
    return (double)found / (double)all;
}

static void parts_hold(fv_context *ctx, const char *recipe, const profiled *numbers, const heads *x, const selection *whole) {
    for (int64_t from = 0, n; from < x->n; from += n) {
        n = from + 256 < x->n ? 256 : x->n - from;
        prepared p = prepare_profiled(ctx, recipe, numbers, x);
        selection part = {x->h_q, x->n, calloc((size_t)(x->h_q * x->n), (size_t)x->n), from};
        fv_run run = part_run(x, from, n, from + n);
        CHECK(fv_plan_index(p.plan, &run, p.workspace, p.bytes, take_tile, &part) == FV_OK, "%s: %s", recipe, fv_message(ctx));
        for (int64_t head = 0; head < x->h_q; head++) {
            const int64_t at = (head * x->n + from) * x->n;
            CHECK(memcmp(part.at + at, whole->at + at, (size_t)(n * x->n)) == 0, "%s: rows %lld.. of head %lld differ in parts",
                  recipe, (long long)from, (long long)head);
        }
        prepared_free(&p);
        free(part.at);
    }
}

enum { LONGEST = 1024 };

/* Trained on one text, used on another: chunks are where the network in double says, and at the topics; edge NULL: there are none
 * that are known. */
static void predictor_holds_on(fv_context *ctx, heads text, heads x, int64_t chunk, const unsigned char *edge) {
    const int64_t n = x.n, d = x.d;
    fv_profile *profile = trained_on(ctx, &text), *again = trained_on(ctx, &text);
    const double *at[HEADS], *other;
    int64_t numbers[HEADS], m, unsure = 0;
    double found = 0;
    for (int64_t head = 0; head < HEADS; head++) {
        at[head] = fv_profile_get(profile, 0, head, &numbers[head]);
        other = fv_profile_get(again, 0, head, &m);
        CHECK(m == numbers[head] && memcmp(at[head], other, (size_t)m * sizeof *other) == 0, "head %d trains otherwise again",
              (int)head);
        CHECK(m == 4 + (4 * d + 1) * HIDDEN + 2 * HIDDEN + 1 && at[head][0] == -1, "head %d has %d numbers", (int)head, (int)m);
    }
    const profiled all = {"dhsa", at, numbers};
    char recipe[160];
    snprintf(recipe, sizeof recipe, "prefill=dhsa@file:budget=100:chunk=%d:local=20:sinks=8:fallback=0", (int)chunk);
    selection s = select_profiled(ctx, recipe, &all, &x);
    for (int64_t head = 0; head < HEADS; head++) {
        double cut[LONGEST];
        const int64_t count = predicted(&x, head, chunk, at[head] + 4, cut);
        options o = {.budget = 100, .chunk = chunk, .local = 20, .sinks = 8, .norm = 1, .cut = cut, .cuts = count};
        const int64_t wrong = count < 0 ? 0 : head_differs(&x, &o, head, &s, &unsure);
        CHECK(wrong == 0, "%s: n %d, head %d: %lld pairs differ", recipe, (int)n, (int)head, (long long)wrong);
        unsure += count < 0;
        found += n > 300 && edge != NULL ? edges_found(edge, n, cut, count) / HEADS : 1.0 / HEADS;
    }
    CHECK(unsure <= 2, "%s, n %d: %d are too close to tell", recipe, (int)n, (int)unsure);
    if (n > 300 && edge != NULL) {
        printf("n %d, d %d, chunk %d: %.0f%% of topics found\n", (int)n, (int)d, (int)chunk, 100 * found);
    }
    CHECK(chunk != 16 || found > 0.9, "%s, n %d: %g of topics found", recipe, (int)n, found);
    parts_hold(ctx, recipe, &all, &x, &s);
    free(s.at);
    fv_profile_destroy(profile);
    fv_profile_destroy(again);
    heads_free(&text);
    heads_free(&x);
}

static void predictor_holds(fv_context *ctx, int64_t n, int64_t d, int64_t chunk) {
    unsigned char edge[LONGEST];
    heads text = topics_make(5, LONGEST, d, edge);
    predictor_holds_on(ctx, text, topics_make(77, n, d, edge), chunk, edge);
}

/* Numbers of another width, or of another form, are no predictor: dense, and said. */
static void unfit_is_dense(fv_context *ctx) {
    static const double other[] = {-1, 4, 8, 8, 0.5};
    const double *const at[HEADS] = {other, other, other, other};
    const int64_t n[HEADS] = {5, 5, 5, 5};
    const char *recipe = "prefill=dhsa@file:budget=16:local=8:sinks=0:fallback=0";
    heads x = heads_make(1, HEADS, 2, 300, 32);
    prepared p = prepare_profiled(ctx, recipe, &(profiled){"dhsa", at, n}, &x);
    fv_run_stats stats = {0};
    fv_run run = part_run(&x, 0, x.n, x.n);
    run.stats = &stats;
    CHECK(fv_plan_run(p.plan, &run, p.workspace, p.bytes) == FV_OK, "%s", fv_message(ctx));
    CHECK(stats.tiles > 0 && stats.fallback_tiles == stats.tiles && stats.exact_pairs == stats.eligible_pairs,
          "a predictor that does not fit is not dense");
    prepared_free(&p);
    heads_free(&x);
}

static const double cuts[] = {5, 40, 64, 90, 100, 128, 129, 200, 256, 290, 320, 384, 400, 512};

static void golden_holds(fv_context *ctx, const char *name, heads x, options o) {
    char recipe[160];
    recipe_of(&o, recipe, sizeof recipe);
    selection s = select_by(ctx, &o, recipe, &x);
    golden_bits_hold(name, recipe, s.at, x.n * x.n);
    free(s.at);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    static const options set[] = {
        {.budget = 150, .chunk = 16, .local = 128, .sinks = 8, .norm = 1},
        {.budget = 100, .chunk = 7, .local = 40, .norm = 1},
        {.budget = 1, .density = 0.3, .chunk = 48, .local = 16, .sinks = 3},
        {.budget = 90, .chunk = 16, .local = 20, .sinks = 8, .norm = 1, .cut = cuts, .cuts = 14},
    };
    for (int i = 0; i < 4; i++) {
        on_all_heads(ctx, heads_structured, holds, &set[i]);
    }
    const options fixed = {.budget = 256, .chunk = 16, .local = 128, .norm = 1},
                  variable = {.budget = 200, .chunk = 16, .local = 64, .norm = 1, .cut = cuts, .cuts = 14},
                  now = {.budget = 1, .density = 0.25, .chunk = 32};
    golden_holds(ctx, "select/dhsa/0", heads_make(21, 1, 1, 448, 32), fixed);
    golden_holds(ctx, "select/dhsa/1", heads_make(22, 1, 1, 640, 32), variable);
    golden_holds(ctx, "select/dhsa/2", heads_make(23, 1, 1, 512, 32), now);
    golden_holds(ctx, "select/dhsa/real-0", heads_real(1, 1, 448), fixed);
    golden_holds(ctx, "select/dhsa/real-1", heads_real(1, 1, 640), variable);
    golden_holds(ctx, "select/dhsa/real-2", heads_real(1, 1, 512), now);
    predictor_holds(ctx, 900, 32, 16);
    predictor_holds(ctx, 700, 64, 16);
    predictor_holds(ctx, 640, 32, 40);
    predictor_holds(ctx, 300, 32, 500);
    predictor_holds(ctx, 129, 32, 7);
    predictor_holds(ctx, 63, 32, 16);
    predictor_holds(ctx, 1, 32, 16);
    predictor_holds_on(ctx, heads_real(4, 2, LONGEST), heads_real(4, 2, 700), 16, NULL);
    unfit_is_dense(ctx);
    heads x = heads_structured(3, 4, 2, 600, 32);
    dense_holds(ctx, "prefill=dhsa:budget=600:fallback=0", &x);
    dense_holds(ctx, "prefill=dhsa:density=1:fallback=0", &x);
    double before = 1;
    for (int budget = 128; budget <= 512; budget *= 2) {
        char recipe[80];
        snprintf(recipe, sizeof recipe, "prefill=dhsa:budget=%d:sinks=0:fallback=0", budget);
        double missing = missing_mass(ctx, recipe, &x);
        CHECK(missing < before, "budget %d misses %g, half of it %g", budget, missing, before);
        printf("missing mass: budget %d %.4f\n", budget, missing);
        before = missing;
    }
    heads_free(&x);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
