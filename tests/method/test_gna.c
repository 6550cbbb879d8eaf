/* test_gna.c - generalized neighborhood attention on lines, planes and volumes: against the formulas of the paper's figure 3 and
 * section 3 in the form of NATTEN's reference mask, pair by pair, and against selections that NATTEN made. By its means the
 * executor's order of queries, which gna's boxes need. */
#include "index_test.h"
#include "npy_golden.h"

/* First axis first. */
typedef struct layout {
    int axes;
    int size[3], window[3], stride[3], dilation[3], causal[3];
} layout;

static int tokens(const layout *l) {
    int n = 1;
    for (int a = 0; a < l->axes; a++) {
        n *= l->size[a];
    }
    return n;
}

/* One axis: coordinates of a query and a key. */
static bool axis_sees(const layout *l, int a, int q, int k) {
    int d = l->dilation[a], w = l->window[a], s = l->stride[a], rest = q % d;
    if (k % d != rest) {
        return false;
    }
    int n = 0; /* of the residue class */
    for (int x = rest; x < l->size[a]; x += d) {
        n++;
    }
    q /= d;
    k /= d;
    if (l->causal[a]) {
        int leader = q / s * s + s - 1;
        leader = leader < n - 1 ? leader : n - 1;
        return k <= q && leader - k < w;
    }
    int leader = q / s * s + s / 2, right = w % 2 ? w / 2 : w / 2 - 1;
    leader = leader < n - 1 ? leader : n - 1;
    int start = leader - w / 2 > 0 ? leader - w / 2 : 0;
    if (leader + right >= n) {
        start = n - w;
    }
    return k >= start && k < start + w;
}

static bool layout_sees(const layout *l, int64_t i, int64_t j) {
    bool all = true;
    for (int a = l->axes - 1; a >= 0; a--) {
        all = all && axis_sees(l, a, (int)(i % l->size[a]), (int)(j % l->size[a]));
        i /= l->size[a];
        j /= l->size[a];
    }
    return all;
}

static const char *recipe_of(const layout *l, bool line) {
    static const char *const size[] = {"width", "height", "depth"}, *const tail[] = {"", "_h", "_d"};
    static char text[300];
    int used = snprintf(text, sizeof text, "prefill=gna:fallback=0");
    for (int k = 0; k < l->axes; k++) {
        int a = l->axes - 1 - k;
        if (!line) {
            used += snprintf(text + used, sizeof text - (size_t)used, ":%s=%d", size[k], l->size[a]);
        }
        used += snprintf(text + used, sizeof text - (size_t)used, ":window%s=%d:stride%s=%d:dilation%s=%d:causal%s=%d", tail[k],
                         l->window[a], tail[k], l->stride[a], tail[k], l->dilation[a], tail[k], l->causal[a]);
    }
    return text;
}

/* The forecast counts what the run, of four heads, visited. */
static void forecast_holds(fv_context *ctx, const layout *l, const fv_run_stats *stats) {
    fv_gna gna = {.axes = l->axes};
    for (int a = 0; a < l->axes; a++) {
        gna.size[a] = l->size[a];
        gna.window[a] = l->window[a];
        gna.stride[a] = l->stride[a];
        gna.dilation[a] = l->dilation[a];
        gna.causal[a] = l->causal[a];
    }
    fv_gna_forecast f;
    CHECK(fv_gna_predict(ctx, &gna, NULL, &f) == FV_OK, "%s", fv_message(ctx));
    CHECK(4 * f.exact_pairs == stats->exact_pairs && 4 * f.visited_pairs == stats->visited_pairs &&
              4 * (uint64_t)f.tiles == stats->tiles,
          "%s: predicts %llu pairs, %llu visited, in %lld tiles", recipe_of(l, false), (unsigned long long)f.exact_pairs,
          (unsigned long long)f.visited_pairs, (long long)f.tiles);
}

static void holds(fv_context *ctx, const layout *l, bool line, bool golden, int number) {
    const char *recipe = recipe_of(l, line);
    int64_t n = tokens(l);
    heads x = heads_make((uint64_t)(n + number), 4, number % 2 ? 4 : 2, n, number % 3 ? 32 : 64);
    selection s = select_all(ctx, recipe, &x, false);
    int64_t wrong = 0;
    for (int64_t i = 0; i < 4 * n * n; i++) {
        wrong += s.at[i] != layout_sees(l, i / n % n, i % n);
    }
    CHECK(wrong == 0, "%s, %lld tokens: %lld pairs are wrong", recipe, (long long)n, (long long)wrong);
    if (golden) {
        char name[32];
        snprintf(name, sizeof name, "select/gna/%d", number);
        golden_bits_hold(name, recipe, s.at, n * n);
    }
    fv_run_stats stats = run_holds_if(ctx, recipe, &x, &s, n > 300 ? 37 : 1, false);
    forecast_holds(ctx, l, &stats);
    free(s.at);
    s = select_all(ctx, recipe, &x, true); /* the problem's own rule beside it */
    run_holds(ctx, recipe, &x, &s, n > 300 ? 37 : 1);
    free(s.at);
    heads_free(&x);
}

/* Shapes of the golden files, in their order. */
static const layout official[] = {
    {1, {97}, {9}, {1}, {1}, {0}},
    {1, {97}, {10}, {3}, {2}, {0}},
    {1, {97}, {12}, {5}, {7}, {1}},
    {1, {130}, {64}, {64}, {1}, {0}},
    {2, {14, 15}, {5, 6}, {1, 1}, {1, 1}, {0, 0}},
    {2, {14, 15}, {7, 4}, {3, 4}, {2, 1}, {0, 1}},
    {2, {16, 12}, {8, 6}, {8, 6}, {1, 2}, {1, 0}},
    {3, {5, 6, 7}, {3, 4, 5}, {1, 2, 3}, {1, 1, 1}, {0, 0, 0}},
    {3, {8, 5, 6}, {3, 5, 2}, {2, 5, 1}, {2, 1, 3}, {1, 0, 1}},
    {3, {6, 6, 6}, {6, 6, 6}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}},
};

/* Planes wider than a block, strips, windows of whole blocks. */
static const layout more[] = {
    {2, {9, 77}, {3, 40}, {1, 1}, {1, 1}, {0, 0}},
    {2, {10, 70}, {5, 9}, {1, 3}, {2, 7}, {0, 0}},
    {2, {3, 200}, {3, 65}, {1, 8}, {1, 1}, {0, 0}},
    {2, {100, 7}, {33, 7}, {4, 7}, {3, 1}, {1, 0}},
    {3, {4, 9, 20}, {3, 5, 7}, {1, 1, 1}, {1, 1, 2}, {0, 0, 0}},
};

static void lines(fv_context *ctx) {
    static const int length[] = {1, 63, 64, 65, 200, 700};
    for (int i = 0; i < 6; i++) {
        int n = length[i];
        layout small = {1, {n}, {n < 5 ? 1 : 5}, {1}, {1}, {0}}, causal = {1, {n}, {n < 64 ? n : 64}, {1}, {1}, {1}};
        layout wide = {1, {n}, {(n + 2) / 3}, {n < 16 ? 1 : 16}, {n < 9 ? 1 : 3}, {i % 2}};
        wide.window[0] = n < 9 ? 1 : n / 3 > 16 ? n / 3 : 16;
        holds(ctx, &small, true, false, i);
        holds(ctx, &causal, true, false, i);
        holds(ctx, &wide, true, false, i);
    }
}

static void check_refusal(fv_context *ctx, const char *recipe, int64_t n, const char *part) {
    fv_recipe *r = NULL;
    fv_plan *plan = NULL;
    CHECK(fv_recipe_parse(ctx, recipe, &r) == FV_OK, "%s: %s", recipe, fv_message(ctx));
    fv_problem p = fv_problem_default();
    p.n_q = p.n_kv = n;
    p.d_k = p.d_v = 32;
    p.recipe = r;
    CHECK(fv_plan_create(ctx, &p, &plan) == FV_ERR_UNSUPPORTED && strstr(fv_message(ctx), part), "%s: '%s'", recipe,
          fv_message(ctx));
    fv_plan_destroy(plan);
    fv_recipe_destroy(r);
}

/* Rows of a second prompt are the plane's last tokens, and select what they do in one. */
static void second_prompt_holds(fv_context *ctx) {
    const char *recipe = "prefill=gna:width=20:height=16:window=5:fallback=0";
    heads x = heads_make(5, 4, 2, 320, 32);
    selection whole = select_all(ctx, recipe, &x, true), part = select_part(ctx, recipe, &x, 150, 170, 320, true);
    for (int64_t head = 0; head < 4; head++) {
        int64_t at = (head * 320 + 150) * 320;
        CHECK(memcmp(part.at + at, whole.at + at, 170 * 320) == 0, "the second prompt of head %lld", (long long)head);
    }
    free(part.at);
    free(whole.at);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    for (int i = 0; i < (int)(sizeof official / sizeof *official); i++) {
        holds(ctx, &official[i], false, true, i);
    }
    for (int i = 0; i < (int)(sizeof more / sizeof *more); i++) {
        holds(ctx, &more[i], false, false, i);
    }
    lines(ctx);
    second_prompt_holds(ctx);
    heads x = heads_make(3, 4, 2, 500, 32);
    dense_holds_if(ctx, "prefill=gna:window=500:fallback=0", &x, false);
    dense_holds_if(ctx, "prefill=gna:width=25:height=20:window=25:window_h=20:fallback=0", &x, false);
    dense_holds(ctx, "prefill=gna:width=25:height=20:window=25:window_h=20:fallback=0", &x);
    double small = missing_mass(ctx, "prefill=gna:width=25:height=20:window=5:fallback=0", &x);
    double large = missing_mass(ctx, "prefill=gna:width=25:height=20:window=10:fallback=0", &x);
    CHECK(large > 0 && small > large, "missing mass %g in 5 x 5, %g in 10 x 10", small, large);
    heads_free(&x);
    check_refusal(ctx, "prefill=gna:width=25:height=20", 500, "longer than the shape");
    check_refusal(ctx, "prefill=gna:width=25:height=20:window=5", 501, "number of keys");
    check_refusal(ctx, "prefill=gna:window=5:stride=6", 501, "stride is longer");
    check_refusal(ctx, "prefill=gna:height=20:window=5", 20, "needs a width");
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
