/* test_flash.c - flash-attention (Dao et al. 2022) and self-attn-on2-memory (Rabe and Staats 2021), their forward halves: the
 * same as standard attention, log-sum-exp included; memory linear in length; rows of K and V read once a block of queries.
 * Dropout, block masks and the backward pass of the first, and the checkpointed backward of the second, are not here yet. */
#include "method_test.h"

#include <stdatomic.h>

static bool sees_past(const void *arg, int64_t i, int64_t j) {
    (void)arg;
    return j <= i;
}

static fv_plan *plan_of(fv_context *ctx, int64_t heads_q, int64_t heads_kv, int64_t n_q, int64_t n_kv, int64_t d, bool causal) {
    fv_problem p = fv_problem_default();
    p.h_q = heads_q;
    p.h_kv = heads_kv;
    p.n_q = n_q;
    p.n_kv = n_kv;
    p.d_k = p.d_v = d;
    p.causal = causal;
    fv_plan *plan = NULL;
    CHECK(fv_plan_create(ctx, &p, &plan) == FV_OK, "%s", fv_message(ctx));
    return plan;
}

static size_t workspace_of(fv_context *ctx, int64_t n_q, int64_t n_kv) {
    fv_plan *plan = plan_of(ctx, 8, 8, n_q, n_kv, 64, true);
    size_t bytes = fv_plan_workspace(plan);
    fv_plan_destroy(plan);
    return bytes;
}

/* ---- the same as standard attention ---- */

static void equals_standard(fv_context *ctx, const char *recipe, int64_t n, double bound) {
    heads x = heads_make((uint64_t)n, 4, 2, n, 64);
    heads_run(ctx, recipe, &x);
    double worst = worst_row(&x, sees_past, NULL, n > 300 ? 61 : 1);
    CHECK(worst < bound, "%s, n %lld: off by %g", recipe, (long long)n, worst);
    heads_free(&x);
}

/* The last row alone, as a generated token. */
static void step_equals_standard(fv_context *ctx, const char *text, int64_t n) {
    heads x = heads_make((uint64_t)n + 5, 4, 2, n, 64);
    fv_recipe *recipe = NULL;
    CHECK(fv_recipe_parse(ctx, text, &recipe) == FV_OK, "%s", fv_message(ctx));
    fv_problem p = fv_problem_default();
    p.h_q = x.h_q;
    p.h_kv = x.h_kv;
    p.n_q = 1;
    p.n_kv = n;
    p.d_k = p.d_v = x.d;
    p.causal = true;
    p.phase = FV_DECODE;
    p.recipe = recipe;
    fv_plan *plan = NULL;
    CHECK(fv_plan_create(ctx, &p, &plan) == FV_OK, "%s", fv_message(ctx));
    size_t bytes = fv_plan_workspace(plan);
    void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
    float lse[4];
    fv_tensor q = fv_tensor_view(x.q + (n - 1) * x.d, FV_F32, 1, x.h_q, n, x.d), out = q;
    q.shape[2] = out.shape[2] = 1;
    out.data = x.out + (n - 1) * x.d;
    fv_run run = {.q = q,
                  .k = fv_tensor_view(x.k, FV_F32, 1, x.h_kv, n, x.d),
                  .v = fv_tensor_view(x.v, FV_F32, 1, x.h_kv, n, x.d),
                  .out = out,
                  .lse = lse};
    CHECK(fv_plan_run(plan, &run, workspace, bytes) == FV_OK, "%s", fv_message(ctx));
    double want[64], worst = 0;
    for (int64_t h = 0; h < x.h_q; h++) {
        worst = fmax(worst, fabs(reference_row(&x, h, n - 1, sees_past, NULL, want) - lse[h]));
        for (int64_t c = 0; c < x.d; c++) {
            worst = fmax(worst, fabs(want[c] - x.out[(h * n + n - 1) * x.d + c]));
        }
    }
    CHECK(worst < 2e-5, "a step of %s at n %lld: off by %g", text, (long long)n, worst);
    free(workspace);
    fv_plan_destroy(plan);
    fv_recipe_destroy(recipe);
    heads_free(&x);
}

/* Scores of thousands: without the running maximum exp overflows; with a stale one the sum is lost. */
static void survives_large_scores(fv_context *ctx) {
    heads x = heads_make(3, 1, 1, 200, 64);
    for (int64_t i = 0; i < x.n * x.d; i++) {
        x.q[i] *= 20;
        x.k[i] *= 1 + (float)(i / x.d) / 10; /* the maximum moves on and on */
    }
    heads_run(ctx, "self-attn-on2-memory", &x);
    double out[64], worst = 0, worst_lse = 0;
    for (int64_t i = 0; i < x.n; i++) {
        double lse = reference_row(&x, 0, i, sees_past, NULL, out);
        worst_lse = fmax(worst_lse, fabs(lse - x.lse[i]) / fmax(1, fabs(lse)));
        for (int64_t c = 0; c < x.d; c++) {
            worst = fmax(worst, fabs(out[c] - x.out[i * x.d + c]));
        }
    }
    CHECK(worst < 0.01 && worst_lse < 1e-5, "scores of thousands: off by %g, lse by %g of itself", worst, worst_lse);
    heads_free(&x);
}

/* ---- memory ---- */

/* W(n, m) has terms in n and in m, none in n m: its mixed difference is 0. */
static void workspace_is_linear(fv_context *ctx) {
    for (int64_t n = 8192; n <= 131072; n *= 2) {
        size_t both = workspace_of(ctx, 2 * n, 2 * n), neither = workspace_of(ctx, n, n);
        size_t queries = workspace_of(ctx, 2 * n, n), keys = workspace_of(ctx, n, 2 * n);
        CHECK(both + neither == queries + keys, "n %lld: the workspace has a term in n_q x n_kv", (long long)n);
        CHECK(both <= 2 * neither, "n %lld: the workspace grows from %zu to %zu", (long long)n, neither, both);
        CHECK(both < (size_t)(2 * n) * (size_t)(2 * n) * 4 / 8, "n %lld: %zu bytes are no less than one head's scores",
              (long long)n, both);
    }
}

/* What the allocator was asked for, now and at most. */
typedef struct counter {
    _Atomic int64_t now, most;
} counter;

static void *count_alloc(void *user, size_t size) {
    counter *c = user;
    int64_t now = atomic_fetch_add(&c->now, (int64_t)size) + (int64_t)size;
    if (now > c->most) {
        c->most = now;
    }
    return aligned_alloc(64, (size + 63) / 64 * 64);
}

static void count_free(void *user, void *ptr, size_t size) {
    atomic_fetch_sub(&((counter *)user)->now, (int64_t)size);
    free(ptr);
}

static int64_t peak_bytes(int64_t n) {
    counter c = {0};
    fv_allocator a = {count_alloc, count_free, &c};
    fv_context_options o = {1, FV_LEVEL_BEST, &a};
    fv_context *ctx = NULL;
    CHECK(fv_context_create(&o, &ctx) == FV_OK, "no context");
    heads x = heads_make(7, 1, 1, n, 32);
    int64_t before = c.now;
    c.most = before;
    fv_tensor q = fv_tensor_view(x.q, FV_F32, 1, 1, n, 32), k = q, v = q, out = q;
    k.data = x.k;
    v.data = x.v;
    out.data = x.out;
    CHECK(fv_attention(ctx, &q, &k, &v, true, &out, x.lse) == FV_OK, "%s", fv_message(ctx));
    int64_t most = c.most - before;
    CHECK(c.now == before, "fv_attention keeps %lld bytes", (long long)(c.now - before));
    heads_free(&x);
    fv_context_destroy(ctx);
    return most;
}

static void allocations_are_linear(void) {
    int64_t at_1k = peak_bytes(1024), at_4k = peak_bytes(4096);
    printf("flash-attention: fv_attention takes %lld bytes at n = 1024, %lld at 4096; scores would be %d and %d\n",
           (long long)at_1k, (long long)at_4k, 1024 * 1024 * 4, 4096 * 4096 * 4);
    CHECK(at_4k <= 4 * at_1k && at_4k < 4096 * 4096 * 4 / 16, "from %lld to %lld bytes for four times the length",
          (long long)at_1k, (long long)at_4k);
}

/* Rabe and Staats: what one query needs does not grow with n_kv. Here it does not within a piece of 4096 keys; each further piece
 * may add partial results (out, maximum, sum) for threads that share a sequence, up to 64 MB, far below what K and V take. */
static void one_query_is_constant(fv_context *ctx) {
    size_t least = workspace_of(ctx, 1, 64), before = least;
    printf("self-attn-on2-memory: 8 heads, d 64, one query, %d threads\n  n_kv  workspace bytes  K and V bytes\n",
           fv_threads(ctx));
    size_t step = workspace_of(ctx, 1, 3 * 4096) - workspace_of(ctx, 1, 2 * 4096);
    for (int64_t n = 64; n <= 1 << 20; n *= 4) {
        size_t bytes = workspace_of(ctx, 1, n), kv = (size_t)n * 8 * 2 * 64 * 4;
        printf("  %7lld  %9zu  %11zu\n", (long long)n, bytes, kv);
        CHECK(n > 4096 || bytes == least, "n_kv %lld: %zu bytes within a piece, not %zu", (long long)n, bytes, least);
        CHECK(bytes >= before && bytes <= least + step * (size_t)((n + 4095) / 4096), "n_kv %lld: %zu bytes", (long long)n,
              bytes);
        CHECK(n <= 4096 || bytes - least < kv / 64, "n_kv %lld: pieces take %zu bytes", (long long)n, bytes - least);
        before = bytes;
    }
}

/* ---- bytes read ---- */

static fv_run_stats stats_of(fv_context *ctx, int64_t h_q, int64_t h_kv, int64_t n, int64_t d, bool causal) {
    heads x = heads_make(11, h_q, h_kv, n, d);
    fv_plan *plan = plan_of(ctx, h_q, h_kv, n, n, d, causal);
    size_t bytes = fv_plan_workspace(plan);
    void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
    fv_run_stats stats = {0};
    fv_run run = {.q = fv_tensor_view(x.q, FV_F32, 1, h_q, n, d),
                  .k = fv_tensor_view(x.k, FV_F32, 1, h_kv, n, d),
                  .v = fv_tensor_view(x.v, FV_F32, 1, h_kv, n, d),
                  .out = fv_tensor_view(x.out, FV_F32, 1, h_q, n, d),
                  .stats = &stats};
    CHECK(fv_plan_run(plan, &run, workspace, bytes) == FV_OK, "%s", fv_message(ctx));
    free(workspace);
    fv_plan_destroy(plan);
    heads_free(&x);
    return stats;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Blocks of `block` queries; each reads the leaves of 64 keys up to the one that its last query sees. */
static uint64_t rows_of_tiles(int64_t h_kv, int64_t n, int64_t block, bool causal) {
    uint64_t rows = 0;
    for (int64_t i = 0; i < n; i += block) {
        int64_t last = least(i + block, n);
        rows += (uint64_t)(causal ? least((last + 63) / 64 * 64, n) : n);
    }
    return rows * (uint64_t)h_kv;
}

/* IO: theta(N^2 d / B) rows' bytes for blocks of B queries, against 2 reads and 2 writes of N x N scores and weights. */
static void reads_as_tiles_say(void) {
    fv_context_options o = {1, FV_LEVEL_BEST, NULL};
    fv_context *ctx = NULL;
    CHECK(fv_context_create(&o, &ctx) == FV_OK, "no context");
    int64_t d = 32;
    for (int64_t group = 1; group <= 4; group *= 4) {
        int64_t h_kv = 4, h_q = h_kv * group;
        uint64_t passes = stats_of(ctx, h_q, h_kv, 2048, d, false).k_rows / (uint64_t)(h_kv * 2048);
        int64_t block = passes > 0 ? 2048 / (int64_t)passes : 0;
        if (block == 0) {
            CHECK(false, "%llu passes over 2048 keys", (unsigned long long)passes);
            break;
        }
        CHECK(block * group >= 64, "a block has %lld rows only", (long long)(block * group));
        static const int64_t length[] = {1024, 1500, 2048, 2111};
        for (int i = 0; i < 4; i++) {
            for (int causal = 0; causal < 2; causal++) {
                fv_run_stats s = stats_of(ctx, h_q, h_kv, length[i], d, causal);
                uint64_t want = rows_of_tiles(h_kv, length[i], block, causal);
                CHECK(s.k_rows == want && s.v_rows == want, "n %lld, group %d: %llu and %llu rows read, the tiles have %llu",
                      (long long)length[i], (int)group, (unsigned long long)s.k_rows, (unsigned long long)s.v_rows,
                      (unsigned long long)want);
            }
        }
        double n = 2048, ours = (double)stats_of(ctx, h_q, h_kv, 2048, d, false).k_rows * 2 * (double)d * 4 +
                                (double)h_q * n * (double)d * 8;
        double scores = (double)h_q * (4 * n * n + 2 * n * (double)d) * 4 + (double)h_kv * 2 * n * (double)d * 4;
        printf(
            "flash-attention: n 2048, %d query heads a KV head, blocks of %d: %.1f MB read and written, %.1f with N x N scores\n",
            (int)group, (int)block, ours / 1e6, scores / 1e6);
        CHECK(ours < scores / 4, "%g bytes against %g", ours, scores);
    }
    fv_context_destroy(ctx);
}

int main(void) {
    fv_context *ctx;
    /* partial results are for 4 items a thread: with very many threads the shorter lengths here would not reach that limit */
    if (fv_context_create(&(fv_context_options){2, FV_LEVEL_BEST, NULL}, &ctx) != FV_OK) {
        return 1;
    }
    static const int64_t length[] = {1, 63, 64, 65, 255, 256, 257, 1000, 4161};
    for (size_t i = 0; i < sizeof length / sizeof *length; i++) {
        equals_standard(ctx, "flash-attention", length[i], 2e-5);
        equals_standard(ctx, "self-attn-on2-memory", length[i], 2e-5);
        step_equals_standard(ctx, "flash-attention", length[i]);
        step_equals_standard(ctx, "self-attn-on2-memory", length[i]);
    }
    survives_large_scores(ctx);
    workspace_is_linear(ctx);
    allocations_are_linear();
    one_query_is_constant(ctx);
    reads_as_tiles_say();
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
