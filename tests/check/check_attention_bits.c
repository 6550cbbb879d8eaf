/* check_attention_bits.c - what must not change a result by one bit: threads, chunks of a prompt, company in a batch or a pack;
 * what must not reach a row: numbers it cannot see; and the empty and the impossible.
 *
 *   check_attention_bits [--seed N] */
#include "attention_case.h"
#include "oracle.h"

#include <math.h>

static int failures, checks;
static fv_phase phase; /* of every problem: a prompt's kernels, then those of generated tokens */

static void expect(bool good, const char *level, const char *what, const char *detail) {
    checks++;
    if (!good && failures++ < 40) {
        printf("FAIL %s %s: %s\n", level, what, detail);
    }
}

static bool same(const void *a, const void *b, int64_t n) { return memcmp(a, b, (size_t)n) == 0; }

static fv_context *open_level(fv_level level, int threads) {
    fv_context_options options = {threads, level, NULL};
    fv_context *ctx = NULL;
    return fv_context_create(&options, &ctx) == FV_OK ? ctx : NULL;
}

/* Plans and runs; the result must be FV_OK. */
static void run_once(fv_context *ctx, const fv_problem *p, const fv_run *run) {
    fv_plan *plan;
    fv_problem in_phase = *p;
    in_phase.phase = phase;
    fv_status status = fv_plan_create(ctx, &in_phase, &plan);
    if (status == FV_OK) {
        guard workspace = guard_make(fv_plan_workspace(plan), 64, true);
        status = fv_plan_run(plan, run, workspace.data, workspace.size);
        expect(guard_intact(&workspace), fv_level_name(fv_context_level(ctx)), "workspace", "written outside");
        guard_free(&workspace);
        fv_plan_destroy(plan);
    }
    expect(status == FV_OK, fv_level_name(fv_context_level(ctx)), "a run failed", fv_message(ctx));
}

/* ---- threads ------------------------------------------------------------------------------------------------------- */

static void check_threads(fv_level level, fvi_rng *rng) {
    static const case_limits limits = {2e6, 20000};
    fv_context *ctx[8];
    for (int t = 0; t < 8; t++) {
        ctx[t] = open_level(level, t + 1);
    }
    for (int64_t i = 0; i < 60; i++) {
        attention_case c;
        case_make(&c, rng, i * 5, &limits);
        c.p.phase = phase;
        unsigned char *out = malloc(c.out.g.size + 1), *lse = malloc(c.lse.size + 1);
        for (int t = 0; t < 8; t++) {
            case_reset(&c);
            expect(case_run(ctx[t], &c) == FV_OK, fv_level_name(level), "threads", c.text);
            if (t == 0) {
                memcpy(out, c.out.g.data, c.out.g.size);
                memcpy(lse, c.lse.data, c.lse.size);
            }
            expect(same(out, c.out.g.data, (int64_t)c.out.g.size) && same(lse, c.lse.data, (int64_t)c.lse.size),
                   fv_level_name(level), "another number of threads, other bits", c.text);
        }
        free(out);
        free(lse);
        case_free(&c);
    }
    for (int t = 0; t < 8; t++) {
        fv_context_destroy(ctx[t]);
    }
}

/* ---- chunks of a prompt -------------------------------------------------------------------------------------------- */

static fv_tensor rows_of(const fv_tensor *t, int64_t from, int64_t n) {
    fv_tensor part = *t;
    part.data = (unsigned char *)t->data + from * t->stride[2] * (int64_t)fv_dtype_bytes(t->dtype, 1);
    part.shape[2] = n;
    return part;
}

static void check_chunks(fv_context *ctx, fvi_rng *rng, fv_dtype dtype, int64_t n, int64_t d, int variant) {
    enum { H_Q = 6, H_KV = 2 };
    char text[120];
    snprintf(text, sizeof text, "n %lld d %lld %s variant %d", (long long)n, (long long)d, fv_dtype_name(dtype), variant);
    operand q = operand_normal(rng, dtype, 1, H_Q, n, d, 2), k = operand_normal(rng, dtype, 1, H_KV, n, d, 1);
    operand v = operand_normal(rng, dtype, 1, H_KV, n, d, 1);
    float *whole = malloc((size_t)(H_Q * n * d) * sizeof(float)), *part = malloc((size_t)(H_Q * n * d) * sizeof(float));
    float *lse = malloc((size_t)(H_Q * n) * sizeof(float)), *chunk_lse = malloc((size_t)(H_Q * n) * sizeof(float));
    float sink_logits[H_Q] = {0.5f, -1, 2, 0, 1, -3}, slopes[H_Q] = {0.5f, 0.25f, 0.125f, 0.1f, 0.05f, 0.01f};
    fv_problem p = fv_problem_default();
    p = (fv_problem){.b = 1, .h_q = H_Q, .h_kv = H_KV, .n_q = n, .n_kv = n, .d_k = d, .d_v = d, .causal = true};
    p.window = variant == 1 ? 100 : 0;
    p.sinks = variant == 1 ? 4 : 0;
    p.has_alibi = p.has_sink_logits = variant == 2;
    p.soft_cap = variant == 2 ? 20 : 0;
    p.offset_set = true;
    fv_tensor out = fv_tensor_view(whole, FV_F32, 1, H_Q, n, d), chunk_out = fv_tensor_view(part, FV_F32, 1, H_Q, n, d);
    fv_run run = {.q = q.t, .k = k.t, .v = v.t, .out = out, .lse = lse};
    run.alibi_slopes = p.has_alibi ? slopes : NULL;
    run.sink_logits = p.has_sink_logits ? sink_logits : NULL;
    run_once(ctx, &p, &run);
    static const int64_t sizes[] = {1, 7, 512};
    for (int s = variant == 0 && n <= 700 ? 0 : 1; s < 3; s++) {
        memset(part, 0xff, (size_t)(H_Q * n * d) * sizeof(float));
        bool lse_same = true;
        for (int64_t from = 0; from < n; from += sizes[s]) {
            int64_t rows = fvi_min(sizes[s], n - from);
            /* as a session does: the keys so far, those of the chunk included */
            p.n_q = rows;
            p.n_kv = from + rows;
            p.offset = from;
            fv_run piece = run;
            piece.q = rows_of(&q.t, from, rows);
            piece.out = rows_of(&chunk_out, from, rows);
            piece.k.shape[2] = piece.v.shape[2] = from + rows;
            piece.lse = chunk_lse;
            run_once(ctx, &p, &piece);
            for (int64_t h = 0; h < H_Q; h++) {
                lse_same = lse_same && same(lse + h * n + from, chunk_lse + h * rows, rows * (int64_t)sizeof(float));
            }
        }
        expect(same(whole, part, H_Q * n * d * (int64_t)sizeof(float)) && lse_same, fv_level_name(fv_context_level(ctx)),
               "a prompt in chunks has other bits", text);
    }
    free(whole);
    free(part);
    free(lse);
    free(chunk_lse);
    operand_free(&q);
    operand_free(&k);
    operand_free(&v);
}

/* ---- alone, in a batch, in a pack ---------------------------------------------------------------------------------- */

/* Three sequences of different lengths: packed, then each alone; then as a padded batch. */
static void check_company(fv_context *ctx, fvi_rng *rng, fv_dtype dtype, bool causal) {
    enum { H_Q = 4, H_KV = 2, D = 64, B = 3, Q_ROWS = 201, K_ROWS = 4500, LONGEST = 4400, LONGEST_Q = 150 };
    static const int32_t q_start[B + 1] = {0, 1, 51, 201}, k_start[B + 1] = {0, 30, 100, 4500};
    const char *level = fv_level_name(fv_context_level(ctx));
    operand q = operand_normal(rng, dtype, 1, H_Q, Q_ROWS, D, 2), k = operand_normal(rng, dtype, 1, H_KV, K_ROWS, D, 1);
    operand v = operand_normal(rng, dtype, 1, H_KV, K_ROWS, D, 1);
    float *packed = malloc(H_Q * Q_ROWS * D * sizeof(float)), *alone = malloc(H_Q * Q_ROWS * D * sizeof(float));
    fv_problem p = {.b = B, .h_q = H_Q, .h_kv = H_KV, .n_q = LONGEST_Q, .n_kv = LONGEST, .d_k = D, .d_v = D, .causal = causal};
    fv_problem single = p;
    single.b = 1;
    p.packed = true;
    fv_tensor out = fv_tensor_view(packed, FV_F32, 1, H_Q, Q_ROWS, D), one = fv_tensor_view(alone, FV_F32, 1, H_Q, Q_ROWS, D);
    fv_run run = {.q = q.t, .k = k.t, .v = v.t, .out = out, .q_start = q_start, .k_start = k_start};
    run_once(ctx, &p, &run);
    for (int s = 0; s < B; s++) {
        int64_t rows = q_start[s + 1] - q_start[s], keys = k_start[s + 1] - k_start[s];
        fv_run piece = {.q = rows_of(&q.t, q_start[s], rows), .k = rows_of(&k.t, k_start[s], keys)};
        piece.v = rows_of(&v.t, k_start[s], keys);
        piece.out = rows_of(&one, q_start[s], rows);
        run_once(ctx, &single, &piece);
    }
    expect(same(packed, alone, H_Q * Q_ROWS * D * (int64_t)sizeof(float)), level, "packed sequences and each alone differ",
           fv_dtype_name(dtype));
    /* a batch of two views of the same keys, the second shorter, against each alone */
    int32_t lengths[2] = {LONGEST, 77};
    fv_problem batch = single;
    batch.b = 2;
    batch.n_q = 50;
    float *both = malloc(2 * H_Q * 50 * D * sizeof(float));
    fv_run two = {.q = rows_of(&q.t, 0, 50), .k = rows_of(&k.t, 100, LONGEST), .v = rows_of(&v.t, 100, LONGEST)};
    two.q.shape[0] = two.k.shape[0] = two.v.shape[0] = 2;
    two.q.stride[0] = two.k.stride[0] = two.v.stride[0] = 0;
    two.out = fv_tensor_view(both, FV_F32, 2, H_Q, 50, D);
    two.kv_length = lengths;
    run_once(ctx, &batch, &two);
    for (int s = 0; s < 2; s++) {
        fv_run piece = {.q = rows_of(&q.t, 0, 50), .k = rows_of(&k.t, 100, lengths[s]), .v = rows_of(&v.t, 100, lengths[s])};
        piece.out = fv_tensor_view(alone, FV_F32, 1, H_Q, 50, D);
        run_once(ctx, &single, &piece);
        expect(same(both + s * H_Q * 50 * D, alone, H_Q * 50 * D * (int64_t)sizeof(float)), level,
               "a batch and each alone differ", fv_dtype_name(dtype));
    }
    free(both);
    free(packed);
    free(alone);
    operand_free(&q);
    operand_free(&k);
    operand_free(&v);
}

/* ---- numbers that are none ----------------------------------------------------------------------------------------- */

/* A bad key or value reaches the rows that see it and no other: the others keep their bits. */
static void check_bad_numbers(fv_context *ctx, fvi_rng *rng, fv_dtype dtype, float bad, bool in_v, int64_t window) {
    enum { H_Q = 2, N = 300, D = 64, KEY = 150 };
    const char *level = fv_level_name(fv_context_level(ctx));
    operand q = operand_normal(rng, dtype, 1, H_Q, N, D, 1), k = operand_normal(rng, dtype, 1, 1, N, D, 1);
    operand v = operand_normal(rng, dtype, 1, 1, N, D, 1);
    float *clean = malloc(H_Q * N * D * sizeof(float)), *dirty = malloc(H_Q * N * D * sizeof(float));
    fv_problem p = {.b = 1, .h_q = H_Q, .h_kv = 1, .n_q = N, .n_kv = N, .d_k = D, .d_v = D, .causal = true, .window = window};
    fv_run run = {.q = q.t, .k = k.t, .v = v.t, .out = fv_tensor_view(clean, FV_F32, 1, H_Q, N, D)};
    run_once(ctx, &p, &run);
    run.out.data = dirty;
    tensor_set(in_v ? &v.t : &k.t, 0, 0, KEY, 3, bad);
    run_once(ctx, &p, &run);
    for (int64_t h = 0; h < H_Q; h++) {
        for (int64_t i = 0; i < N; i++) {
            const float *a = clean + (h * N + i) * D, *b = dirty + (h * N + i) * D;
            bool sees = i >= KEY && (window == 0 || i - KEY < window);
            expect(sees || same(a, b, D * sizeof(float)), level, "a row changed by what it cannot see", in_v ? "V" : "K");
            expect(!sees || !isnan(bad) || isnan(b[3]), level, "a NaN vanished from a row that sees it", in_v ? "V" : "K");
        }
    }
    free(clean);
    free(dirty);
    operand_free(&q);
    operand_free(&k);
    operand_free(&v);
}

/* ---- nothing to see, nothing to do --------------------------------------------------------------------------------- */

static void check_empty(fv_context *ctx, fvi_rng *rng, int64_t n_q, int64_t n_kv, bool sink) {
    const char *level = fv_level_name(fv_context_level(ctx));
    operand q = operand_normal(rng, FV_F16, 2, 4, n_q, 32, 1), k = operand_normal(rng, FV_F16, 2, 2, n_kv, 32, 1);
    operand v = operand_normal(rng, FV_F16, 2, 2, n_kv, 48, 1);
    float out[2 * 4 * 20 * 48], lse[2 * 4 * 20], logits[4] = {1, 2, 3, -4};
    memset(out, 0xff, sizeof out);
    memset(lse, 0xff, sizeof lse);
    fv_problem p = {.b = 2, .h_q = 4, .h_kv = 2, .n_q = n_q, .n_kv = n_kv, .d_k = 32, .d_v = 48, .causal = true};
    p.offset_set = true; /* before all keys */
    p.offset = -20;
    p.has_sink_logits = sink;
    fv_run run = {.q = q.t, .k = k.t, .v = v.t, .out = fv_tensor_view(out, FV_F32, 2, 4, n_q, 48), .lse = lse};
    run.sink_logits = sink ? logits : NULL;
    run_once(ctx, &p, &run);
    for (int64_t r = 0; r < 2 * 4 * n_q; r++) {
        float want = sink ? logits[r / n_q % 4] : -INFINITY;
        expect(lse[r] == want, level, "lse of a row that sees no key", sink ? "sink logit" : "no sink logit");
        for (int64_t c = 0; c < 48; c++) {
            expect(out[r * 48 + c] == 0, level, "a row that sees no key is not zero", "");
        }
    }
    operand_free(&q);
    operand_free(&k);
    operand_free(&v);
}

/* ---- what cannot be ------------------------------------------------------------------------------------------------ */

static void refuse(fv_context *ctx, const fv_problem *p, const char *what) {
    fv_plan *plan = NULL;
    fv_status status = fv_plan_create(ctx, p, &plan);
    expect(status == FV_ERR_ARGUMENT && plan == NULL && fv_message(ctx)[0] != 0, "plan", "was not refused", what);
    fv_plan_destroy(plan);
}

static void check_bad_problems(fv_context *ctx) {
    const fv_problem good = {.b = 1, .h_q = 2, .h_kv = 2, .n_q = 4, .n_kv = 4, .d_k = 8, .d_v = 8};
#define REFUSE(field, value)                                                                                                     \
    do {                                                                                                                         \
        fv_problem p = good;                                                                                                     \
        p.field = value;                                                                                                         \
        refuse(ctx, &p, #field " = " #value);                                                                                    \
    } while (0)
    REFUSE(b, 0);
    REFUSE(h_q, 0);
    REFUSE(h_q, 3);
    REFUSE(h_kv, -1);
    REFUSE(n_q, -1);
    REFUSE(n_kv, -1);
    REFUSE(n_kv, (INT64_C(1) << 30) + 1);
    REFUSE(d_k, 0);
    REFUSE(d_k, 257);
    REFUSE(d_v, 0);
    REFUSE(d_v, 257);
    REFUSE(out_dtype, FV_Q8_0);
    REFUSE(scale, NAN);
    REFUSE(scale, INFINITY);
    REFUSE(soft_cap, -1);
    REFUSE(window, -1);
    REFUSE(sinks, -1);
    REFUSE(sinks, 3);
#undef REFUSE
}

static void check_bad_runs(fv_context *ctx) {
    float x[4 * 8 * 2] = {0}, out[4 * 8 * 2], lse[8];
    const fv_problem p = {.b = 1, .h_q = 2, .h_kv = 2, .n_q = 4, .n_kv = 4, .d_k = 8, .d_v = 8};
    fv_plan *plan;
    expect(fv_plan_create(ctx, &p, &plan) == FV_OK, "run", "no plan", fv_message(ctx));
    size_t bytes = fv_plan_workspace(plan);
    guard w = guard_make(bytes, 64, true);
    fv_tensor t = fv_tensor_view(x, FV_F32, 1, 2, 4, 8);
    const fv_run good = {.q = t, .k = t, .v = t, .out = fv_tensor_view(out, FV_F32, 1, 2, 4, 8), .lse = lse};
    int32_t lengths[1] = {5};
    uint8_t mask[4] = {1, 1, 1, 1};
    expect(fv_plan_run(plan, &good, w.data, bytes) == FV_OK, "run", "a good run failed", fv_message(ctx));
    expect(fv_plan_run(plan, &good, w.data, bytes - 1) == FV_ERR_ARGUMENT, "run", "not refused", "a small workspace");
    expect(fv_plan_run(plan, &good, NULL, bytes) == FV_ERR_ARGUMENT, "run", "not refused", "no workspace");
    expect(fv_plan_run(plan, &good, w.data + 4, bytes) == FV_ERR_ARGUMENT, "run", "not refused", "an unaligned workspace");
#define REFUSE(change, what)                                                                                                     \
    do {                                                                                                                         \
        fv_run run = good;                                                                                                       \
        change;                                                                                                                  \
        fv_status status = fv_plan_run(plan, &run, w.data, bytes);                                                               \
        expect((status == FV_ERR_ARGUMENT || status == FV_ERR_RANGE) && fv_message(ctx)[0] != 0, "run", "not refused", what);    \
    } while (0)
    REFUSE(run.q.shape[3] = 7, "a width that is not the plan's");
    REFUSE(run.q.shape[1] = 3, "heads that are not the plan's");
    REFUSE(run.q.shape[2] = 5; run.out.shape[2] = 5, "more queries than planned");
    REFUSE(run.k.shape[2] = 5; run.v.shape[2] = 5, "more keys than planned");
    REFUSE(run.v.shape[2] = 3, "fewer values than keys");
    REFUSE(run.out.shape[2] = 3, "fewer outputs than queries");
    REFUSE(run.q.rank = 3, "rank 3");
    REFUSE(run.q.dtype = FV_I32, "queries of integers");
    REFUSE(run.out.dtype = FV_F16, "an output type that is not the plan's");
    REFUSE(run.q.data = NULL, "no queries");
    REFUSE(run.k.data = NULL, "no keys");
    REFUSE(run.out.data = NULL, "no output");
    REFUSE(run.kv_length = lengths, "a length beyond the keys");
    REFUSE(run.key_mask = mask, "a mask that was not planned");
    REFUSE(run.sink_logits = x, "sink logits that were not planned");
    REFUSE(run.alibi_slopes = x, "slopes that were not planned");
#undef REFUSE
    guard_free(&w);
    fv_plan_destroy(plan);
}

/* ---- a bias that hides ---------------------------------------------------------------------------------------------- */

enum { BIAS_N = 600, BIAS_H = 6, BIAS_KV = 2, BIAS_D = 64, BIAS_WINDOW = 100 };

/* 0 in a causal window, -inf elsewhere; the last head of a group sees all where `apart`. */
static void write_window(float *bias, int64_t heads, bool apart) {
    for (int64_t at = 0; at < heads * BIAS_N * BIAS_N; at++) {
        int64_t h = at / BIAS_N / BIAS_N, i = at / BIAS_N % BIAS_N, j = at % BIAS_N;
        bool all = apart && h % (BIAS_H / BIAS_KV) == BIAS_H / BIAS_KV - 1;
        bias[at] = all || (j <= i && i - j < BIAS_WINDOW) ? 0 : -INFINITY;
    }
}

/* A window written into a bias gives the bits of the rule, and its hidden leaves are not visited, whatever K and V are there. */
static void check_bias(fv_context *ctx, fvi_rng *rng, fv_dtype dtype, bool apart) {
    enum { OUT = BIAS_H * BIAS_N * BIAS_D, LSE = BIAS_H * BIAS_N };
    operand q = operand_normal(rng, dtype, 1, BIAS_H, BIAS_N, BIAS_D, 2),
            k = operand_normal(rng, dtype, 1, BIAS_KV, BIAS_N, BIAS_D, 1);
    operand v = operand_normal(rng, dtype, 1, BIAS_KV, BIAS_N, BIAS_D, 1);
    float *out[3], *lse[3], *bias = malloc((size_t)BIAS_H * BIAS_N * BIAS_N * sizeof(float));
    fv_run_stats stats[3];
    write_window(bias, apart ? BIAS_H : 1, apart);
    for (int kind = 0; kind < 3; kind++) { /* the rule, the bias, all keys */
        out[kind] = malloc(OUT * sizeof(float));
        lse[kind] = malloc(LSE * sizeof(float));
        fv_problem p = {.b = 1, .h_q = BIAS_H, .h_kv = BIAS_KV, .n_q = BIAS_N, .n_kv = BIAS_N, .d_k = BIAS_D, .d_v = BIAS_D};
        fv_run run = {.q = q.t, .k = k.t, .v = v.t, .lse = lse[kind], .stats = &stats[kind]};
        run.out = fv_tensor_view(out[kind], FV_F32, 1, BIAS_H, BIAS_N, BIAS_D);
        p.causal = kind == 0;
        p.window = kind == 0 ? BIAS_WINDOW : 0;
        p.has_bias = kind == 1;
        if (p.has_bias) {
            run.bias = fv_tensor_view(bias, FV_F32, 1, BIAS_H, BIAS_N, BIAS_N);
            run.bias.stride[1] = apart ? run.bias.stride[1] : 0;
        }
        run_once(ctx, &p, &run);
    }
    const char *level = fv_level_name(fv_context_level(ctx));
    for (int h = 0; h < BIAS_H; h++) {
        int like = apart && h % (BIAS_H / BIAS_KV) == BIAS_H / BIAS_KV - 1 ? 2 : 0;
        bool equal = same(out[like] + h * (OUT / BIAS_H), out[1] + h * (OUT / BIAS_H), OUT / BIAS_H * (int64_t)sizeof(float)) &&
                     same(lse[like] + h * BIAS_N, lse[1] + h * BIAS_N, BIAS_N * (int64_t)sizeof(float));
        expect(equal, level, "a bias that hides", like ? "other bits than all keys" : "other bits than the window");
    }
    expect(stats[1].exact_pairs == (apart ? (2 * stats[0].exact_pairs + stats[2].exact_pairs) / 3 : stats[0].exact_pairs), level,
           "a bias that hides", "pairs miscounted");
    expect((stats[1].k_rows < stats[2].k_rows / 2) == !apart, level, "a bias that hides", "leaves that no row sees are read");
    for (int kind = 0; kind < 3; kind++) {
        free(out[kind]);
        free(lse[kind]);
    }
    free(bias);
    operand_free(&q);
    operand_free(&k);
    operand_free(&v);
}

/* ---- phases ---------------------------------------------------------------------------------------------------------- */

/* A prompt sums over the width in one chain, where 2^30 + 1 - 2^30 is 0; a generated token in lanes, where 2^30 and -2^30 meet
 * first. Whoever mixes the two up is as exact, and slower. */
static void check_order(fv_context *ctx) {
    float q[64], k[64] = {0x1p30f, 1, -0x1p30f}, v[64] = {0}, out[64], lse;
    for (int c = 0; c < 64; c++) {
        q[c] = 1;
    }
    const fv_problem p = {.b = 1, .h_q = 1, .h_kv = 1, .n_q = 1, .n_kv = 1, .d_k = 64, .d_v = 64, .scale = 1};
    const fv_run run = {.q = fv_tensor_view(q, FV_F32, 1, 1, 1, 64),
                        .k = fv_tensor_view(k, FV_F32, 1, 1, 1, 64),
                        .v = fv_tensor_view(v, FV_F32, 1, 1, 1, 64),
                        .out = fv_tensor_view(out, FV_F32, 1, 1, 1, 64),
                        .lse = &lse};
    run_once(ctx, &p, &run);
    bool lanes = fabsf(lse - 1) < 1e-3f, chain = fabsf(lse) < 1e-3f;
    expect(phase == FV_DECODE ? lanes : chain, fv_level_name(fv_context_level(ctx)), "phase", "not the products of this phase");
}

static void check_phase(fv_context *ctx, fv_level level, fvi_rng *rng) {
    check_order(ctx);
    check_threads(level, rng);
    for (int variant = 0; variant < 3; variant++) {
        for (int dtype = FV_F32; dtype <= FV_BF16; dtype++) {
            check_chunks(ctx, rng, (fv_dtype)dtype, 600, dtype == FV_F16 ? 80 : 64, variant);
        }
        check_chunks(ctx, rng, FV_F16, level == FV_LEVEL_C ? 1100 : 4300, 32, variant);
    }
    for (int dtype = FV_F32; dtype <= FV_BF16; dtype++) {
        check_bias(ctx, rng, (fv_dtype)dtype, false);
        check_bias(ctx, rng, (fv_dtype)dtype, true);
        check_company(ctx, rng, (fv_dtype)dtype, dtype != FV_F16);
        for (int i = 0; i < 8; i++) {
            check_bad_numbers(ctx, rng, (fv_dtype)dtype, i & 1 ? INFINITY : NAN, i & 2, i & 4 ? 40 : 0);
        }
    }
    for (int sink = 0; sink < 2; sink++) {
        check_empty(ctx, rng, 0, 20, sink);
        check_empty(ctx, rng, 20, 0, sink);
        check_empty(ctx, rng, 19, 100, sink);
        check_empty(ctx, rng, 0, 0, sink);
    }
}

int main(int argc, char **argv) {
    uint64_t seed = 1;
    for (int i = 1; i + 1 < argc; i++) {
        seed = strcmp(argv[i], "--seed") == 0 ? strtoull(argv[i + 1], NULL, 0) : seed;
    }
    printf("seed %llu\n", (unsigned long long)seed);
    fvi_rng rng = {seed};
    for (fv_level level = FV_LEVEL_C; level <= FV_LEVEL_AVX512; level++) {
        fv_context *ctx = open_level(level, 3);
        if (ctx == NULL) {
            continue;
        }
        for (phase = FV_PREFILL; phase <= FV_DECODE; phase++) {
            check_phase(ctx, level, &rng);
        }
        check_bad_problems(ctx);
        check_bad_runs(ctx);
        fv_context_destroy(ctx);
    }
    printf("%d checks, %d failures\n", checks, failures);
    return failures > 0;
}
