/* test_fusemax.c - fusemax (Nayak et al., MICRO 2024): passes, live state and traffic derived from einsums; the paper's three
 * classes of attention; the paper's times and bytes for its own machine; and this library's rows read, which are one pass's. */
#include "method_test.h"

static const fv_cascade *named(const char *name) {
    const fv_cascade *c;
    for (int i = 0; (c = fv_cascade_at(i)) != NULL; i++) {
        if (strcmp(c->name, name) == 0) {
            return c;
        }
    }
    printf("no cascade %s\n", name);
    exit(1);
}

static fv_cascade_report report_of(fv_context *ctx, const fv_cascade *c, fv_cascade_sizes s) {
    fv_cascade_report r = {0};
    CHECK(fv_cascade_analyse(ctx, c, &s, &r) == FV_OK, "%s", fv_message(ctx));
    return r;
}

static int passes_of(const fv_cascade_report *r, const char *input) {
    for (int i = 0; i < r->n_inputs; i++) {
        if (strcmp(r->input[i].name, input) == 0) {
            return r->input[i].passes;
        }
    }
    return -1;
}

/* ---- the paper's small examples, sections II and III ---- */

static void small_cascades(fv_context *ctx) {
    static const fv_einsum two[] = {{"Y:p", {"A:m", "B:m"}, FV_EINSUM_MAC, false}, {"Z:p", {"Y:p", "A:m"}, FV_EINSUM_MAC, false}};
    static const fv_einsum deferred[] = {{"Y:p", {"A:m", "B:m"}, FV_EINSUM_MAC, false},
                                         {"X:p", {"A:m"}, FV_EINSUM_ADD, false},
                                         {"Z:p", {"Y:p", "X:p"}, FV_EINSUM_MAC, false}};
    static const fv_einsum running[] = {{"Y:m", {"Y:m", "A:m", "B:m"}, FV_EINSUM_MAC, false},
                                        {"Z:m", {"Z:m", "Y:m", "A:m"}, FV_EINSUM_MAC, false},
                                        {"R:p", {"Z:p"}, FV_EINSUM_ADD, false}};
    static const fv_einsum other[] = {{"Y:p", {"A:m", "B:m"}, FV_EINSUM_MAC, false},
                                      {"Z:p", {"Y:p", "C:m"}, FV_EINSUM_MAC, false}};
    const struct {
        fv_cascade c;
        int passes, a, b;
    } test[] = {{{"1", "a product, then again", two, 2}, 2, 2, 1},
                {{"2", "with the product deferred", deferred, 3}, 1, 1, 1},
                {{"4", "another input the second time", other, 2}, 1, 1, 1}};
    fv_cascade_sizes s = {.keys = 100, .queries = 1, .e = 1, .f = 1, .tile = 1, .instances = 1, .element_bytes = 1};
    for (size_t i = 0; i < sizeof test / sizeof *test; i++) {
        fv_cascade_report r = report_of(ctx, &test[i].c, s);
        CHECK(r.passes == test[i].passes && passes_of(&r, "A") == test[i].a && passes_of(&r, "B") == test[i].b,
              "cascade %s: %d passes, %d over A, %d over B", test[i].c.name, r.passes, passes_of(&r, "A"), passes_of(&r, "B"));
    }
    fv_cascade c = {"3", "running", running, 2};
    fv_cascade_report r = report_of(ctx, &c, s);
    CHECK(r.passes == 1 && r.fibre_elements == 0, "running values: %d passes, %lld kept", r.passes, (long long)r.fibre_elements);
}

/* ---- attention, section IV ---- */

static void attention_has_three_classes(fv_context *ctx) {
    static const struct {
        const char *name;
        int passes, over_k, over_v;
        int64_t fibre; /* of 4096 keys in tiles of 64 */
    } want[] = {{"3-pass", 3, 3, 1, 4096},
                {"3-pass-deferred", 2, 2, 1, 4096},
                {"2-pass", 2, 2, 1, 4096 + 2 * 64},
                {"1-pass", 1, 1, 1, 0}};
    fv_cascade_sizes s = {
        .keys = 4096, .queries = 1024, .e = 64, .f = 32, .tile = 64, .rows = 256, .instances = 2, .element_bytes = 2};
    printf("fusemax: 4096 keys, 1024 queries in blocks of 256\n  algorithm        passes  kept/query  state/query  buffer bytes  "
           "spilled bytes\n");
    for (int i = 0; i < 4; i++) {
        fv_cascade_report r = report_of(ctx, named(want[i].name), s);
        printf("  %-16s %6d  %10lld  %11lld  %12llu  %13llu\n", want[i].name, r.passes, (long long)r.fibre_elements,
               (long long)r.state_elements, (unsigned long long)r.buffer_bytes, (unsigned long long)r.spill_bytes);
        CHECK(r.passes == want[i].passes && passes_of(&r, "K") == want[i].over_k && passes_of(&r, "V") == want[i].over_v,
              "%s: %d passes, %d over K, %d over V", want[i].name, r.passes, passes_of(&r, "K"), passes_of(&r, "V"));
        CHECK(r.fibre_elements == want[i].fibre, "%s keeps %lld elements a query", want[i].name, (long long)r.fibre_elements);
        /* its row, the maximum, the sum and the mix; deferred, the last is taken before the division */
        CHECK(r.state_elements == 64 + 1 + 1 + 32, "%s: a state of %lld elements", want[i].name, (long long)r.state_elements);
        CHECK(r.traffic_bytes == 2u * 2 * (1024 * 64 + 1024 * 32 + 4 * 4096 * (64 + 32)), "%s: %llu bytes", want[i].name,
              (unsigned long long)r.traffic_bytes);
        CHECK((r.spill_bytes == 0) == (want[i].fibre == 0), "%s: %llu bytes spilled", want[i].name,
              (unsigned long long)r.spill_bytes);
        fv_cascade_sizes longer = s;
        longer.keys *= 16;
        bool grows = report_of(ctx, named(want[i].name), longer).buffer_bytes > r.buffer_bytes;
        CHECK(grows == (want[i].passes > 1), "%s: the buffer %s with keys", want[i].name, grows ? "grows" : "does not grow");
    }
    /* QK written, read by SN; SN written, read by A */
    CHECK(report_of(ctx, named("3-pass"), s).spill_bytes == 2ull * 2 * 1024 * 4096 * 4, "spilled by 3-pass");
    fv_cascade_report whole = report_of(ctx, named("3-pass"), s), deferred = report_of(ctx, named("3-pass-deferred"), s);
    CHECK(whole.lane_ops[FV_EINSUM_DIVIDE] == 2ull * 1024 * 4096 && deferred.lane_ops[FV_EINSUM_DIVIDE] == 2ull * 1024 * 32,
          "divisions: keys x queries, and width x queries if deferred");
}

/* ---- the paper's machine: seconds and bytes of its published evaluation (batch 64; +Binding) ---- */

static void paper_times(fv_context *ctx) {
    static const struct {
        const char *model;
        int64_t heads, width, n;
        double seconds, joules;
        uint64_t bytes;
    } row[] = {{"BERT 1K", 12, 64, 1 << 10, 0.002013140425531915, 1.950104644581943, 402653184},
               {"BERT 64K", 12, 64, 1 << 16, 7.402500357446808, 7883.014537512749, 38654705664},
               {"BERT 256K", 12, 64, 1 << 18, 118.2793728, 126547.73473515613, 463856467968},
               {"TrXL 16K", 16, 64, 1 << 14, 0.6202215489361702, 657.269646066188, 8589934592},
               {"XLM 1K", 16, 128, 1 << 10, 0.005194076595744681, 5.070199423451128, 1073741824},
               {"XLM 64K", 16, 128, 1 << 16, 19.026076868085106, 20493.030758165344, 171798691840}};
    fv_cascade_machine m = fv_cascade_machine_default();
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        fv_cascade_sizes s = {.keys = row[i].n,
                              .queries = row[i].n,
                              .e = row[i].width,
                              .f = row[i].width,
                              .tile = 256,
                              .instances = 64 * row[i].heads,
                              .element_bytes = 2};
        fv_cascade_cost one, three;
        CHECK(fv_cascade_estimate(ctx, named("1-pass"), &s, &m, &one) == FV_OK, "%s", fv_message(ctx));
        CHECK(fv_cascade_estimate(ctx, named("3-pass"), &s, &m, &three) == FV_OK, "%s", fv_message(ctx));
        printf("  %-9s %.6g s (paper %.6g), %.4g J (paper %.4g), %.4g GB; three passes with the same lanes %.4g s\n",
               row[i].model, one.seconds, row[i].seconds, one.joules, row[i].joules, (double)one.memory_bytes / 1e9,
               three.seconds);
        CHECK(fabs(one.seconds / row[i].seconds - 1) < 1e-6, "%s: %.9g s, the paper has %.9g", row[i].model, one.seconds,
              row[i].seconds);
        CHECK(one.memory_bytes == row[i].bytes, "%s: %llu bytes, the paper has %llu", row[i].model,
              (unsigned long long)one.memory_bytes, (unsigned long long)row[i].bytes);
        CHECK(fabs(one.joules / row[i].joules - 1) < 0.05, "%s: %g J, the paper has %g", row[i].model, one.joules, row[i].joules);
        CHECK(!one.spilled && three.seconds > 6 * one.seconds, "%s: three passes take %g s", row[i].model, three.seconds);
        CHECK(one.array_seconds > 0.88 * one.seconds, "%s: the array works %g of the time", row[i].model,
              one.array_seconds / one.seconds);
    }
    /* three passes over keys too many for the buffer: a block of 256 queries' scores does not fit */
    fv_cascade_sizes s = {.keys = 1 << 18, .queries = 1 << 18, .e = 64, .f = 64, .tile = 256, .instances = 1, .element_bytes = 2};
    fv_cascade_cost cost;
    CHECK(fv_cascade_estimate(ctx, named("3-pass"), &s, &m, &cost) == FV_OK && cost.spilled && cost.rows == 256, "spilling");
}

/* ---- the engine: rows of K and of V that it read ---- */

static void engine_makes_one_pass(fv_context *ctx) {
    int64_t n = 2048, h = 4;
    heads x = heads_make(17, h, h, n, 32);
    fv_problem p = fv_problem_default();
    p.h_q = p.h_kv = h;
    p.n_q = p.n_kv = n;
    p.d_k = p.d_v = 32;
    fv_plan *plan = NULL;
    CHECK(fv_plan_create(ctx, &p, &plan) == FV_OK, "%s", fv_message(ctx));
    size_t bytes = fv_plan_workspace(plan);
    void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
    fv_run_stats stats = {0};
    fv_run run = {.q = fv_tensor_view(x.q, FV_F32, 1, h, n, 32),
                  .k = fv_tensor_view(x.k, FV_F32, 1, h, n, 32),
                  .v = fv_tensor_view(x.v, FV_F32, 1, h, n, 32),
                  .out = fv_tensor_view(x.out, FV_F32, 1, h, n, 32),
                  .stats = &stats};
    CHECK(fv_plan_run(plan, &run, workspace, bytes) == FV_OK, "%s", fv_message(ctx));
    fv_tile_facts tile; /* blocks of queries of a head, which a run halves only where threads are many */
    fv_plan_tile(plan, &tile);
    fv_cascade_sizes s = {
        .keys = n, .queries = n, .e = 32, .f = 32, .tile = 64, .rows = tile.rows, .instances = h, .element_bytes = 4};
    for (int i = 0; fv_cascade_at(i) != NULL; i++) {
        fv_cascade_report r = report_of(ctx, fv_cascade_at(i), s);
        bool k = r.input[1].rows == stats.k_rows, v = r.input[2].rows == stats.v_rows;
        CHECK(strcmp(r.input[1].name, "K") == 0 && strcmp(r.input[2].name, "V") == 0, "inputs in the order of reading");
        CHECK(k == (r.passes == 1), "%s: %llu rows of K, the engine read %llu", fv_cascade_at(i)->name,
              (unsigned long long)r.input[1].rows, (unsigned long long)stats.k_rows);
        CHECK(v, "%s: %llu rows of V, the engine read %llu", fv_cascade_at(i)->name, (unsigned long long)r.input[2].rows,
              (unsigned long long)stats.v_rows);
    }
    free(workspace);
    fv_plan_destroy(plan);
    heads_free(&x);
}

/* ---- errors ---- */

static void refuses(fv_context *ctx, fv_einsum first, fv_einsum second, const char *why) {
    fv_einsum e[2] = {first, second};
    fv_cascade c = {"wrong", "", e, second.out != NULL ? 2 : 1};
    fv_cascade_sizes s = {.keys = 1, .queries = 1, .e = 1, .f = 1, .tile = 1, .instances = 1, .element_bytes = 1};
    fv_cascade_report r;
    CHECK(fv_cascade_analyse(ctx, &c, &s, &r) == FV_ERR_ARGUMENT && strstr(fv_message(ctx), why) != NULL, "'%s', wanted '%s'",
          fv_message(ctx), why);
}

static void errors(fv_context *ctx) {
    fv_einsum none = {0}, good = {"Y:p", {"A:m"}, FV_EINSUM_ADD, false};
    refuses(ctx, (fv_einsum){"Y", {"A:m"}, FV_EINSUM_ADD, false}, none, "must be NAME:ranks");
    refuses(ctx, (fv_einsum){"Y:px", {"A:m"}, FV_EINSUM_ADD, false}, none, "must be NAME:ranks");
    refuses(ctx, (fv_einsum){"Y:p", {"A:mm"}, FV_EINSUM_ADD, false}, none, "must be NAME:ranks");
    refuses(ctx, (fv_einsum){"Sixteen_or_more_:p", {"A:m"}, FV_EINSUM_ADD, false}, none, "must be NAME:ranks");
    refuses(ctx, (fv_einsum){"Y:p", {NULL}, FV_EINSUM_ADD, false}, none, "needs an operation");
    refuses(ctx, (fv_einsum){"Y:p", {"A:e"}, FV_EINSUM_ADD, false}, none, "no keys");
    refuses(ctx, good, good, "made twice");
    refuses(ctx, good, (fv_einsum){"Z:p", {"A:me"}, FV_EINSUM_ADD, false}, "other ranks elsewhere");
    refuses(ctx, good, (fv_einsum){"Z:p", {"Y:pm"}, FV_EINSUM_ADD, false}, "not made with");
    refuses(ctx, (fv_einsum){"X:p", {"Y:p"}, FV_EINSUM_ADD, false}, good, "read before it is made");
    fv_cascade_sizes s = {.keys = 1, .queries = 1, .e = 1, .f = 1, .tile = 0, .instances = 1, .element_bytes = 1};
    fv_cascade_report r;
    CHECK(fv_cascade_analyse(ctx, fv_cascade_at(0), &s, &r) == FV_ERR_ARGUMENT && strstr(fv_message(ctx), "tile is 0") != NULL,
          "%s", fv_message(ctx));
    s.tile = s.e = s.f = 1 << 14;
    s.keys = s.queries = 1 << 30;
    CHECK(fv_cascade_analyse(ctx, fv_cascade_at(0), &s, &r) == FV_ERR_RANGE, "sizes beyond 2^58");
    CHECK(fv_cascade_at(-1) == NULL && fv_cascade_at(4) == NULL, "past the end");
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(&(fv_context_options){1, FV_LEVEL_BEST, NULL}, &ctx) != FV_OK) {
        return 1;
    }
    small_cascades(ctx);
    attention_has_three_classes(ctx);
    paper_times(ctx);
    engine_makes_one_pass(ctx);
    errors(ctx);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
