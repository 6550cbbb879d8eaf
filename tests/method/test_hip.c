/* test_hip.c - the tree search against a search in double that keeps lists of segments, and against the official draft's choices.
 *
 * The official fused kernel needs a GPU; its draft in numba ran (tests/golden/select/README.md). It has no sinks and takes a
 * range's first block. */
#include "heads_test.h"
#include "structured_test.h"

typedef struct options {
    int64_t k, block_q, block_k, window, sinks, stride, center;
} options;

typedef struct segment {
    int64_t from, to, order; /* blocks; place among all */
    double score;
} segment;

static int by_score(const void *a, const void *b) {
    const segment *x = a, *y = b;
    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    return x->order < y->order ? -1 : 1;
}

static int by_place(const void *a, const void *b) {
    const segment *x = a, *y = b;
    return x->order < y->order ? -1 : 1;
}

/* The largest product of queries first, first + stride, ... last with the keys of the segment's representative block. */
static double match(const heads *x, const options *o, int64_t head, int64_t first, int64_t last, const segment *g) {
    if (g->from == g->to) {
        return -INFINITY;
    }
    if (g->from * o->block_k < o->sinks) {
        return INFINITY;
    }
    int64_t block = o->center ? g->from + (int64_t)floor((double)(g->to - g->from) / 2) : g->from;
    double best = -INFINITY;
    const float *k = x->k + head / (x->h_q / x->h_kv) * x->n * x->d, *q = x->q + head * x->n * x->d;
    for (int64_t i = first; i <= last; i += o->stride) {
        for (int64_t j = block * o->block_k; j < (block + 1) * o->block_k && j <= last; j++) {
            double s = 0;
            for (int64_t c = 0; c < x->d; c++) {
                s += (double)q[i * x->d + c] * k[j * x->d + c];
            }
            best = fmax(best, s);
        }
    }
    return best;
}

/* What queries first..last see beyond their windows, as marks over keys; false if two scores were too close to tell. */
static bool tree(const heads *x, const options *o, int64_t head, int64_t first, int64_t last, unsigned char *mark) {
    int64_t keys = last + 1 - o->window, m = (o->k + o->block_k - 1) / o->block_k;
    memset(mark, 0, (size_t)x->n);
    if (keys <= o->k) {
        memset(mark, 1, (size_t)(keys > 0 ? keys : 0));
        return true;
    }
    int64_t blocks = (keys + o->block_k - 1) / o->block_k;
    segment *list = malloc((size_t)(2 * m) * sizeof *list);
    bool sure = true, open = false;
    for (int64_t i = 0; i < m; i++) {
        list[i] = (segment){blocks * i / m, blocks * (i + 1) / m, 0, 0};
        open = open || list[i].to - list[i].from > 1;
    }
    while (open) {
        segment *next = malloc((size_t)(2 * m) * sizeof *next);
        for (int64_t i = 0; i < m; i++) {
            int64_t cut = list[i].from + (int64_t)floor((double)(list[i].to - list[i].from) / 2);
            next[2 * i] = (segment){list[i].from, cut, 2 * i, 0};
            next[2 * i + 1] = (segment){cut, list[i].to, 2 * i + 1, 0};
        }
        for (int64_t i = 0; i < 2 * m; i++) {
            next[i].score = match(x, o, head, first, last, &next[i]);
        }
        qsort(next, (size_t)(2 * m), sizeof *next, by_score);
        double in = next[m - 1].score, out = next[m].score;
        sure = sure && (isinf(in) || isinf(out) || fabs(in - out) > 1e-5 * fabs(in));
        qsort(next, (size_t)m, sizeof *next, by_place);
        free(list);
        list = next;
        open = false;
        for (int64_t i = 0; i < m; i++) {
            open = open || list[i].to - list[i].from > 1;
        }
    }
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = list[i].from * o->block_k; j < list[i].to * o->block_k && j <= last; j++) {
            mark[j] = 1;
        }
    }
    free(list);
    return sure;
}

static void recipe_of(const options *o, char *recipe, size_t size) {
    snprintf(recipe, size, "prefill=hip:k=%d:block_q=%d:block_k=%d:window=%d:sinks=%d:stride=%d:center=%d:fallback=0", (int)o->k,
             (int)o->block_q, (int)o->block_k, (int)o->window, (int)o->sinks, (int)o->stride, (int)o->center);
}

static void holds(fv_context *ctx, const void *arg, heads *x) {
    const options *o = arg;
    char recipe[160];
    recipe_of(o, recipe, sizeof recipe);
    selection s = select_all(ctx, recipe, x, true);
    unsigned char *mark = malloc((size_t)x->n);
    int64_t wrong = 0, unsure = 0;
    for (int64_t head = 0; head < x->h_q; head++) {
        for (int64_t first = 0; first < x->n; first += o->block_q) {
            int64_t last = first + o->block_q < x->n ? first + o->block_q - 1 : x->n - 1;
            if (!tree(x, o, head, first, last, mark)) {
                unsure++;
                continue;
            }
            for (int64_t i = first; i <= last; i++) {
                for (int64_t j = 0; j < x->n; j++) {
                    wrong += s.at[(head * x->n + i) * x->n + j] != (j <= i && (mark[j] || i - j < o->window));
                }
            }
        }
    }
    CHECK(wrong == 0, "%s, n %lld, d %lld: %lld pairs differ", recipe, (long long)x->n, (long long)x->d, (long long)wrong);
    CHECK(unsure <= 1 + x->h_q * x->n / o->block_q / 20, "%s: %lld blocks of queries are too close to tell", recipe,
          (long long)unsure);
    run_holds(ctx, recipe, x, &s, x->n > 300 ? 37 : 1);
    chunks_hold(ctx, recipe, x, &s, 64);
    chunks_hold(ctx, recipe, x, &s, 192);
    free(mark);
    free(s.at);
}

/* Of the first head. */
static void golden_holds(fv_context *ctx, const char *name, heads x, options o) {
    char recipe[160];
    recipe_of(&o, recipe, sizeof recipe);
    selection s = select_all(ctx, recipe, &x, true);
    golden_bits_hold(name, recipe, s.at, x.n * x.n);
    free(s.at);
    heads_free(&x);
}

/* Part of a tile's rows, over keys that were there before. */
static void late_rows_hold(fv_context *ctx) {
    const char *recipe = "prefill=hip:k=32:window=64:sinks=4:fallback=0";
    heads x = heads_structured(5, 2, 1, 500, 32);
    selection whole = select_part(ctx, recipe, &x, 0, 500, 500, true), late = select_part(ctx, recipe, &x, 150, 350, 500, true);
    const int64_t row = 192; /* the first whole tile */
    for (int64_t head = 0; head < 2; head++) {
        int64_t at = (head * 500 + row) * 500;
        CHECK(memcmp(whole.at + at, late.at + at, 308 * 500) == 0, "rows after a cut in a tile select otherwise");
        for (int64_t i = 150; i < row; i++) {
            CHECK(late.at[(head * 500 + i) * 500 + i] && late.at[(head * 500 + i) * 500], "row %lld misses itself or the sink",
                  (long long)i);
        }
    }
    free(whole.at);
    free(late.at);
    heads_free(&x);
}

static selection select_run(fv_context *ctx, const char *recipe, const heads *x, const fv_run *run) {
    selection s = {x->h_q, x->n, calloc((size_t)(x->h_q * x->n), (size_t)x->n), 0};
    prepared p = prepare(ctx, recipe, x, x->n, true);
    fv_status status = fv_plan_index(p.plan, run, p.workspace, p.bytes, take_tile, &s);
    CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
    prepared_free(&p);
    return s;
}

static selection select_cached(fv_context *ctx, const char *recipe, const heads *x, fv_dtype dtype) {
    fv_cache_desc desc = {.layers = 1, .h_kv = x->h_kv, .d_k = x->d, .d_v = x->d, .k_dtype = dtype, .v_dtype = dtype};
    fv_cache *cache = NULL;
    fv_run run = part_run(x, 0, x->n, x->n);
    CHECK(fv_cache_create(ctx, &desc, &cache) == FV_OK && fv_cache_append(cache, 0, &run.k, &run.v) == FV_OK, "%s",
          fv_message(ctx));
    run.cache = cache;
    selection s = select_run(ctx, recipe, x, &run);
    fv_cache_destroy(cache);
    return s;
}

/* Keys are found wherever they are kept: in pages, in rows whose elements stand apart, in half types and in quantised rows. */
static void places_hold(fv_context *ctx) {
    const char *recipe = "prefill=hip:k=64:block_k=1:window=64:sinks=4:fallback=0";
    heads x = heads_make(17, 2, 1, 500, 32);
    int64_t n = x.n * x.d;
    float *apart = calloc((size_t)(2 * n), sizeof *apart);
    uint16_t *half = malloc((size_t)n * sizeof *half);
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x.k[i], 4);
        half[i] = (uint16_t)(bits >> 16);
        bits &= UINT32_C(0xffff0000); /* all kinds keep the same keys */
        memcpy(&x.k[i], &bits, 4);
        apart[2 * i] = x.k[i];
    }
    selection plain = select_all(ctx, recipe, &x, true), pages = select_cached(ctx, recipe, &x, FV_F32);
    CHECK(selections_differ(&plain, &pages) == 0, "keys in pages are chosen otherwise");
    fv_run run = part_run(&x, 0, x.n, x.n);
    run.k = fv_tensor_view(apart, FV_F32, 1, 1, x.n, 2 * x.d);
    run.k.shape[3] = x.d;
    run.k.stride[3] = 2;
    selection strided = select_run(ctx, recipe, &x, &run);
    CHECK(selections_differ(&plain, &strided) == 0, "keys whose elements stand apart are chosen otherwise");
    run = part_run(&x, 0, x.n, x.n);
    uint16_t *v = calloc((size_t)n, sizeof *v);
    run.k = fv_tensor_view(half, FV_BF16, 1, 1, x.n, x.d);
    run.v = fv_tensor_view(v, FV_BF16, 1, 1, x.n, x.d);
    selection rows = select_run(ctx, recipe, &x, &run), kept = select_cached(ctx, recipe, &x, FV_BF16);
    CHECK(selections_differ(&rows, &kept) == 0, "bf16 keys in pages are chosen otherwise");
    selection quantised = select_cached(ctx, recipe, &x, FV_Q8_0);
    int64_t differ = 0;
    for (int64_t i = 0; i < 2 * x.n * x.n; i++) {
        differ += quantised.at[i] != plain.at[i];
    }
    CHECK(differ * 10 < selected_pairs(&plain), "quantised keys: %lld pairs of %lld differ", (long long)differ,
          (long long)selected_pairs(&plain));
    free(plain.at);
    free(pages.at);
    free(strided.at);
    free(rows.at);
    free(kept.at);
    free(quantised.at);
    free(apart);
    free(half);
    free(v);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    static const options set[] = {{64, 64, 2, 64, 16, 2, 1}, {48, 32, 1, 100, 0, 2, 0}, {30, 16, 4, 64, 3, 3, 1}};
    for (int i = 0; i < 3; i++) {
        on_all_heads(ctx, heads_structured, holds, &set[i]);
    }
    golden_holds(ctx, "select/hip/0", heads_make(11, 2, 1, 448, 32), (options){64, 64, 2, 64, 0, 2, 0});
    golden_holds(ctx, "select/hip/1", heads_make(12, 2, 1, 448, 32), (options){96, 32, 4, 64, 0, 2, 0});
    golden_holds(ctx, "select/hip/2", heads_make(13, 2, 1, 401, 32), (options){40, 64, 1, 100, 0, 1, 0});
    golden_holds(ctx, "select/hip/real-0", heads_real(2, 1, 448), (options){64, 64, 2, 64, 0, 2, 0});
    golden_holds(ctx, "select/hip/real-1", heads_real(2, 1, 448), (options){96, 32, 4, 64, 0, 2, 0});
    late_rows_hold(ctx);
    places_hold(ctx);
    heads x = heads_structured(3, 4, 2, 600, 32);
    dense_holds(ctx, "prefill=hip:k=600:fallback=0", &x);
    dense_holds(ctx, "prefill=hip:k=600:block_q=32:fallback=0", &x);
    double some = missing_mass(ctx, "prefill=hip:k=32:window=64:sinks=4:fallback=0", &x);
    double more = missing_mass(ctx, "prefill=hip:k=128:window=64:sinks=4:fallback=0", &x);
    CHECK(some > 0 && more < some, "missing mass %g with 32 keys, %g with 128", some, more);
    printf("missing mass: k=32 %.4f, k=128 %.4f\n", some, more);
    heads_free(&x);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
