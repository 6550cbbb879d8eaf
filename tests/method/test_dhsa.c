/* test_dhsa.c - chunks of keys against a choice in double that sorts all chunks, and against both forms of the official code. */
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

static void holds(fv_context *ctx, const void *arg, heads *x) {
    const options *o = arg;
    char recipe[160];
    recipe_of(o, recipe, sizeof recipe);
    selection s = select_by(ctx, o, recipe, x);
    unsigned char *mark = malloc((size_t)x->n);
    int64_t wrong = 0, unsure = 0;
    for (int64_t head = 0; head < x->h_q; head++) {
        for (int64_t first = 0; first < x->n; first += BLOCK) {
            int64_t last = first + BLOCK < x->n ? first + BLOCK - 1 : x->n - 1;
            if (!choose(x, o, head, first, last, mark)) {
                unsure++;
                continue;
            }
            for (int64_t i = first; i <= last; i++) {
                for (int64_t j = 0; j < x->n; j++) {
                    wrong += s.at[(head * x->n + i) * x->n + j] != (j <= i && mark[j]);
                }
            }
        }
    }
    CHECK(wrong == 0, "%s, n %lld, d %lld: %lld pairs differ", recipe, (long long)x->n, (long long)x->d, (long long)wrong);
    CHECK(unsure <= 1, "%s: %lld blocks of queries are too close to tell", recipe, (long long)unsure);
    if (o->cut == NULL) {
        run_holds(ctx, recipe, x, &s, x->n > 300 ? 37 : 1);
        chunks_hold(ctx, recipe, x, &s, 128);
        chunks_hold(ctx, recipe, x, &s, 384);
    }
    free(mark);
    free(s.at);
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
