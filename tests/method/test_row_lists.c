/* test_row_lists.c - keys that rows fold by themselves: random lists of each row, against double, whatever K and V are kept as.
 */
#include "index_test.h"

static const char own[] = "prefill=random:columns=2:density=0.04:fallback=0";
static const char shared[] = "prefill=random:columns=2:density=0.1:shared=0.75:fallback=0";

static int64_t union_pairs(const selection *s) { /* what tiles of 64 rows would visit */
    int64_t pairs = 0;
    for (int64_t t = 0; t < s->h * s->n; t += 64 - (t % s->n + 64 > s->n ? (t % s->n + 64 - s->n) : 0)) {
        int64_t rows = s->n - t % s->n < 64 ? s->n - t % s->n : 64;
        for (int64_t j = 0; j < s->n; j++) {
            int any = 0;
            for (int64_t r = 0; r < rows; r++) {
                any |= s->at[(t + r) * s->n + j];
            }
            pairs += any * rows;
        }
    }
    return pairs;
}

static void holds(fv_context *ctx, const char *recipe, int64_t n, int64_t h_kv, int64_t d) {
    heads x = heads_make((uint64_t)(n + d), 4, h_kv, n, d);
    selection s = select_all(ctx, recipe, &x, true);
    fv_run_stats stats = run_holds(ctx, recipe, &x, &s, n > 300 ? 37 : 1);
    CHECK(n < 600 || (int64_t)stats.visited_pairs * 2 < union_pairs(&s), "%s, n %lld: visited %llu of %lld", recipe, (long long)n,
          (unsigned long long)stats.visited_pairs, (long long)union_pairs(&s));
    chunks_hold(ctx, recipe, &x, &s, 64);
    chunks_hold(ctx, recipe, &x, &s, 53);
    chunks_hold(ctx, recipe, &x, &s, 300);
    free(s.at);
    heads_free(&x);
}

/* Rows of more keys than a piece has. */
static void long_lists(fv_context *ctx) {
    const char *recipe = "prefill=random:columns=2:density=0.25:fallback=0";
    const int64_t n = 18000;
    heads x = heads_make(5, 1, 1, n, 16);
    const int64_t from = n - 64;
    prepared p = prepare(ctx, recipe, &x, 64, true);
    fv_run run = part_run(&x, from, 64, n);
    fv_run_stats stats = {0};
    run.lse = x.lse;
    run.stats = &stats;
    CHECK(fv_plan_run(p.plan, &run, p.workspace, p.bytes) == FV_OK, "%s", fv_message(ctx));
    selection s = {1, n, calloc((size_t)n, (size_t)n), 0};
    CHECK(s.at != NULL && fv_plan_index(p.plan, &run, p.workspace, p.bytes, take_tile, &s) == FV_OK, "%s", fv_message(ctx));
    prepared_free(&p);
    CHECK(stats.exact_pairs > 64 * 4200, "lists of %llu pairs are not longer than a piece",
          (unsigned long long)stats.exact_pairs);
    CHECK(stats.visited_pairs < stats.exact_pairs * 5 / 4, "%llu visited pairs are not lists",
          (unsigned long long)stats.visited_pairs);
    double out[16], worst = 0;
    for (int64_t i = from; i < n; i += 9) {
        seen_by arg = {&s, 0};
        double lse = reference_row(&x, 0, i, selection_sees, &arg, out);
        worst = fmax(worst, fabs(lse - x.lse[i - from]));
        for (int64_t c = 0; c < 16; c++) {
            worst = fmax(worst, fabs(out[c] - x.out[i * 16 + c]));
        }
    }
    CHECK(worst < 2e-5, "lists of several pieces are off by %g", worst);
    free(s.at);
    heads_free(&x);
}

static void threads_hold(const char *recipe) {
    heads x = heads_make(8, 4, 2, 1500, 64);
    size_t bytes = (size_t)(4 * x.n * x.d) * sizeof(float);
    float *first = malloc(bytes);
    for (int threads = 1; threads <= 7; threads += 2) {
        fv_context *ctx = NULL;
        fv_context_create(&(fv_context_options){.threads = threads}, &ctx);
        heads_run(ctx, recipe, &x);
        if (threads == 1) {
            memcpy(first, x.out, bytes);
        }
        CHECK(memcmp(first, x.out, bytes) == 0, "%s: other bits with %d threads", recipe, threads);
        fv_context_destroy(ctx);
    }
    free(first);
    heads_free(&x);
}

/* A key and a value that are no numbers reach the rows that list it, and no other. */
static void poison_stays(fv_context *ctx, const char *recipe) {
    heads x = heads_make(9, 4, 2, 900, 64);
    selection s = select_all(ctx, recipe, &x, true);
    size_t bytes = (size_t)(4 * x.n * x.d) * sizeof(float);
    float *clean = malloc(bytes);
    heads_run(ctx, recipe, &x);
    memcpy(clean, x.out, bytes);
    const int64_t bad = 333;
    for (int64_t c = 0; c < x.d; c++) {
        x.k[bad * x.d + c] = NAN;
        x.v[bad * x.d + c] = INFINITY;
    }
    heads_run(ctx, recipe, &x);
    int64_t reached = 0;
    for (int64_t r = 0; r < 4 * x.n; r++) {
        bool in = r / x.n < 2 && s.at[r * x.n + bad];
        reached += in;
        CHECK(in ? isnan(x.out[r * x.d]) : memcmp(x.out + r * x.d, clean + r * x.d, (size_t)x.d * sizeof(float)) == 0,
              "%s: row %lld, %s the poisoned key", recipe, (long long)r, in ? "which sees" : "which does not see");
    }
    CHECK(reached > 0, "%s: no row sees the poisoned key", recipe);
    free(clean);
    free(s.at);
    heads_free(&x);
}

typedef struct masked {
    const selection *s;
    int64_t head;
} masked;
static bool key_is_hidden(int64_t j) { return j % 7 == 3; }
static bool pair_is_hidden(int64_t i, int64_t j) { return (i + 3 * j) % 5 == 0; }
static bool masked_sees(const void *arg, int64_t i, int64_t j) {
    const masked *m = arg;
    return m->s->at[(m->head * m->s->n + i) * m->s->n + j] && !key_is_hidden(j) && !pair_is_hidden(i, j);
}

/* A key mask and a bias hide listed keys; their values, which are no numbers, reach nobody. */
static void masks_hold(fv_context *ctx) {
    heads x = heads_make(12, 4, 2, 700, 64);
    selection s = select_all(ctx, own, &x, true);
    uint8_t *mask = malloc((size_t)x.n);
    float *bias = malloc((size_t)(x.n * x.n) * sizeof *bias), *values = malloc((size_t)(2 * x.n * x.d) * sizeof *values);
    memcpy(values, x.v, (size_t)(2 * x.n * x.d) * sizeof *values);
    for (int64_t j = 0; j < x.n; j++) {
        mask[j] = !key_is_hidden(j);
        for (int64_t i = 0; i < x.n; i++) {
            bias[i * x.n + j] = pair_is_hidden(i, j) ? -INFINITY : 0;
        }
        for (int64_t c = 0; c < 2 * x.d && key_is_hidden(j); c++) {
            values[(c / x.d * x.n + j) * x.d + c % x.d] = NAN;
        }
    }
    fv_recipe *recipe = NULL;
    fv_plan *plan = NULL;
    fv_problem p = fv_problem_default();
    CHECK(fv_recipe_parse(ctx, own, &recipe) == FV_OK, "%s", fv_message(ctx));
    p.h_q = 4;
    p.h_kv = 2;
    p.n_q = p.n_kv = x.n;
    p.d_k = p.d_v = x.d;
    p.causal = p.has_key_mask = p.has_bias = true;
    p.recipe = recipe;
    CHECK(fv_plan_create(ctx, &p, &plan) == FV_OK, "%s", fv_message(ctx));
    size_t bytes = fv_plan_workspace(plan);
    void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
    fv_run run = part_run(&x, 0, x.n, x.n);
    run.v.data = values;
    run.key_mask = mask;
    run.bias = fv_tensor_view(bias, FV_F32, 1, 1, x.n, x.n);
    run.bias.shape[1] = 4;
    run.bias.stride[1] = 0;
    run.lse = x.lse;
    CHECK(fv_plan_run(plan, &run, workspace, bytes) == FV_OK, "%s", fv_message(ctx));
    double worst = 0, *out = malloc((size_t)x.d * sizeof *out);
    for (int64_t r = 0; r < 4 * x.n; r += 13) {
        masked arg = {&s, r / x.n};
        double lse = reference_row(&x, r / x.n, r % x.n, masked_sees, &arg, out);
        for (int64_t c = 0; c < x.d && isfinite(lse); c++) {
            double off = fabs(out[c] - x.out[r * x.d + c]);
            worst = off > worst || isnan(off) ? off : worst;
        }
    }
    CHECK(worst < 2e-5, "masks over lists: off by %g", worst);
    free(out), free(workspace), free(mask), free(bias), free(values), free(s.at);
    fv_plan_destroy(plan);
    fv_recipe_destroy(recipe);
    heads_free(&x);
}

/* K and V of a cache, as its own copies say they are. */
static float kept(const unsigned char *rows, fv_dtype dtype, int64_t d, int64_t j, int64_t c) {
    const unsigned char *row = rows + (size_t)j * fv_dtype_bytes(dtype, d);
    if (dtype == FV_F32) {
        float f;
        memcpy(&f, row + 4 * c, 4);
        return f;
    }
    if (dtype == FV_F16 || dtype == FV_BF16) {
        uint16_t h;
        memcpy(&h, row + 2 * c, 2);
        if (dtype == FV_BF16) {
            uint32_t u = (uint32_t)h << 16;
            float f;
            memcpy(&f, &u, 4);
            return f;
        }
        return (h >> 15 ? -1.0f : 1.0f) *
               (h >> 10 & 31 ? ldexpf((float)(1024 + (h & 1023)), (h >> 10 & 31) - 25) : ldexpf((float)(h & 1023), -24));
    }
    const size_t block = dtype == FV_Q8_0 ? 34 : 18;
    const unsigned char *at = row + (size_t)(c / 32) * block;
    float scale = kept(at, FV_F16, 1, 0, 0);
    if (dtype == FV_Q8_0) {
        return scale * (float)(signed char)at[2 + c % 32];
    }
    int nibble = c % 32 < 16 ? at[2 + c % 16] & 15 : at[2 + c % 16] >> 4;
    return scale * (float)(nibble - 8);
}

static void cache_holds(fv_context *ctx, fv_dtype k_dtype, fv_dtype v_dtype, const char *recipe, double within) {
    heads x = heads_make(21, 4, 2, 800, 64);
    selection s = select_all(ctx, recipe, &x, true);
    fv_cache_desc desc = {.layers = 1, .h_kv = 2, .d_k = 64, .d_v = 64, .k_dtype = k_dtype, .v_dtype = v_dtype};
    fv_cache *cache = NULL;
    CHECK(fv_cache_create(ctx, &desc, &cache) == FV_OK, "%s", fv_message(ctx));
    fv_run run = part_run(&x, 0, x.n, x.n);
    CHECK(fv_cache_append(cache, 0, &run.k, &run.v) == FV_OK, "%s", fv_message(ctx));
    run.cache = cache;
    run.lse = x.lse;
    prepared p = prepare(ctx, recipe, &x, x.n, true);
    fv_run_stats stats = {0};
    run.stats = &stats;
    CHECK(fv_plan_run(p.plan, &run, p.workspace, p.bytes) == FV_OK, "%s", fv_message(ctx));
    prepared_free(&p);
    CHECK((int64_t)stats.exact_pairs == selected_pairs(&s) && (int64_t)stats.visited_pairs * 2 < union_pairs(&s),
          "%s over %s: %llu pairs, visited %llu", recipe, fv_dtype_name(k_dtype), (unsigned long long)stats.exact_pairs,
          (unsigned long long)stats.visited_pairs);
    unsigned char *k = malloc((size_t)x.n * 64 * 4), *v = malloc((size_t)x.n * 64 * 4);
    for (int64_t h = 0; h < 2; h++) {
        CHECK(fv_cache_read(cache, 0, h, 0, x.n, k, v) == FV_OK, "%s", fv_message(ctx));
        for (int64_t e = 0; e < x.n * 64; e++) {
            x.k[h * x.n * 64 + e] = kept(k, k_dtype, 64, e / 64, e % 64);
            x.v[h * x.n * 64 + e] = kept(v, v_dtype, 64, e / 64, e % 64);
        }
    }
    double worst = 0, out[64];
    for (int64_t r = 0; r < 4 * x.n; r += 17) {
        seen_by arg = {&s, r / x.n};
        reference_row(&x, r / x.n, r % x.n, selection_sees, &arg, out);
        for (int64_t c = 0; c < 64; c++) {
            double off = fabs(out[c] - x.out[r * 64 + c]);
            worst = off > worst || isnan(off) ? off : worst;
        }
    }
    CHECK(worst < within, "%s over %s and %s: off by %g", recipe, fv_dtype_name(k_dtype), fv_dtype_name(v_dtype), worst);
    free(k);
    free(v);
    free(s.at);
    fv_cache_destroy(cache);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    const fv_context_options two = {.threads = 2};
    if (fv_context_create(&two, &ctx) != FV_OK) {
        return 1;
    }
    static const int64_t length[] = {1, 63, 65, 200, 701, 1400};
    for (int i = 0; i < 6; i++) {
        holds(ctx, own, length[i], i % 2 ? 4 : 2, i % 2 ? 64 : 36);
        holds(ctx, shared, length[i], i % 2 ? 2 : 1, i % 2 ? 17 : 64);
    }
    long_lists(ctx);
    threads_hold(own);
    threads_hold(shared);
    poison_stays(ctx, own);
    poison_stays(ctx, shared);
    masks_hold(ctx);
    static const struct {
        fv_dtype k, v;
        double within;
    } kept_as[] = {{FV_F32, FV_F32, 2e-5},   {FV_F16, FV_F16, 2e-5},   {FV_BF16, FV_BF16, 0.05}, {FV_BF16, FV_F32, 0.05},
                   {FV_Q8_0, FV_Q8_0, 0.05}, {FV_Q4_0, FV_Q4_0, 0.08}, {FV_Q8_0, FV_F16, 0.05},  {FV_F16, FV_BF16, 0.05}};
    for (int i = 0; i < 8; i++) {
        cache_holds(ctx, kept_as[i].k, kept_as[i].v, own, kept_as[i].within);
        cache_holds(ctx, kept_as[i].k, kept_as[i].v, shared, kept_as[i].within);
    }
    heads x = heads_make(3, 4, 2, 500, 32);
    dense_holds(ctx, "prefill=random:columns=2:density=1:fallback=0", &x);
    dense_holds(ctx, "prefill=random:columns=2:density=1:shared=1:fallback=0", &x);
    heads_free(&x);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
