/* test_lean.c - lean-attention (Sanovar et al. 2024): generation for a batch of uneven lengths, cut into whole pieces of keys and
 * merged in a fixed order. It equals standard attention, its bits do not know the number of threads, no padding is read, and
 * pieces lie more evenly on workers than heads do. */
#include "method_test.h"

enum { B = 5, HQ = 4, HKV = 2, D = 32, NKV = 13000 };

static const int32_t lengths[B] = {12999, 1, 4097, 700, 8192};

typedef struct batch {
    float *q, *k, *v;
} batch;

static fv_run_stats run_batch(int threads, const batch *x, float *out, float *lse) {
    fv_context_options o = {threads, FV_LEVEL_BEST, NULL};
    fv_context *ctx = NULL;
    CHECK(fv_context_create(&o, &ctx) == FV_OK, "no context");
    fv_recipe *recipe = NULL;
    CHECK(fv_recipe_parse(ctx, "decode=lean-attention", &recipe) == FV_OK, "%s", fv_message(ctx));
    fv_problem p = fv_problem_default();
    p.b = B;
    p.h_q = HQ;
    p.h_kv = HKV;
    p.n_q = 1;
    p.n_kv = NKV;
    p.d_k = p.d_v = D;
    p.causal = true;
    p.phase = FV_DECODE;
    p.recipe = recipe;
    fv_plan *plan = NULL;
    CHECK(fv_plan_create(ctx, &p, &plan) == FV_OK, "%s", fv_message(ctx));
    size_t bytes = fv_plan_workspace(plan);
    void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
    fv_run_stats stats = {0};
    fv_run run = {.q = fv_tensor_view(x->q, FV_F32, B, HQ, 1, D),
                  .k = fv_tensor_view(x->k, FV_F32, B, HKV, NKV, D),
                  .v = fv_tensor_view(x->v, FV_F32, B, HKV, NKV, D),
                  .out = fv_tensor_view(out, FV_F32, B, HQ, 1, D),
                  .lse = lse,
                  .kv_length = lengths,
                  .stats = &stats};
    CHECK(fv_plan_run(plan, &run, workspace, bytes) == FV_OK, "%s", fv_message(ctx));
    free(workspace);
    fv_plan_destroy(plan);
    fv_recipe_destroy(recipe);
    fv_context_destroy(ctx);
    return stats;
}

static void equals_standard(const batch *x, const float *out, const float *lse) {
    double worst = 0, *score = malloc(NKV * sizeof *score);
    for (int r = 0; r < B * HQ; r++) {
        int s = r / HQ, kv = s * HKV + r % HQ / (HQ / HKV);
        double top = -INFINITY, sum = 0, mix[D] = {0};
        for (int64_t j = 0; j < lengths[s]; j++) {
            score[j] = 0;
            for (int c = 0; c < D; c++) {
                score[j] += (double)x->q[r * D + c] * x->k[((int64_t)kv * NKV + j) * D + c] / sqrt((double)D);
            }
            top = fmax(top, score[j]);
        }
        for (int64_t j = 0; j < lengths[s]; j++) {
            double w = exp(score[j] - top);
            sum += w;
            for (int c = 0; c < D; c++) {
                mix[c] += w * x->v[((int64_t)kv * NKV + j) * D + c];
            }
        }
        worst = fmax(worst, fabs(top + log(sum) - lse[r]));
        for (int c = 0; c < D; c++) {
            worst = fmax(worst, fabs(mix[c] / sum - out[r * D + c]));
        }
    }
    CHECK(worst < 2e-5, "off by %g", worst);
    free(score);
}

static void same_bits_for_any_threads(void) {
    uint64_t seed = 21;
    batch x = {numbers(&seed, B * HQ * D, 3), numbers(&seed, (int64_t)B * HKV * NKV * D, 1),
               numbers(&seed, (int64_t)B * HKV * NKV * D, 1)};
    float first[B * HQ * D], first_lse[B * HQ], out[B * HQ * D], lse[B * HQ];
    uint64_t keys = 0;
    for (int s = 0; s < B; s++) {
        keys += (uint64_t)lengths[s] * HKV;
    }
    for (int threads = 1; threads <= 8; threads++) {
        fv_run_stats stats = run_batch(threads, &x, threads == 1 ? first : out, threads == 1 ? first_lse : lse);
        CHECK(stats.k_rows == keys && stats.v_rows == keys, "%d threads read %llu rows of K and %llu of V; there are %llu",
              threads, (unsigned long long)stats.k_rows, (unsigned long long)stats.v_rows, (unsigned long long)keys);
        CHECK(threads == 1 || (memcmp(first, out, sizeof out) == 0 && memcmp(first_lse, lse, sizeof lse) == 0),
              "%d threads: other bits than with one", threads);
    }
    equals_standard(&x, first, first_lse);
    free(x.q);
    free(x.k);
    free(x.v);
}

/* Mean load over the largest: 1 where no worker is idle. */
static double utilisation(fv_context *ctx, const int32_t *n, int64_t b, int64_t h_kv, int64_t piece, int workers) {
    int64_t load[256], most = 0, sum = 0, want = 0;
    CHECK(fv_decode_loads(ctx, n, b, h_kv, piece, workers, load) == FV_OK, "%s", fv_message(ctx));
    for (int w = 0; w < workers; w++) {
        most = load[w] > most ? load[w] : most;
        sum += load[w];
    }
    for (int64_t s = 0; s < b; s++) {
        want += n[s] * h_kv;
    }
    CHECK(sum == want, "the loads sum to %lld keys, not %lld", (long long)sum, (long long)want);
    return (double)sum / ((double)most * workers);
}

static void pieces_lie_evenly(fv_context *ctx) {
    static const int32_t one_long[8] = {100, 100, 100, 100, 100, 100, 100, 100000};
    static const int32_t uneven[8] = {100, 14400, 28700, 43000, 57200, 71500, 85800, 100000};
    static const int32_t equal[8] = {50100, 50100, 50100, 50100, 50100, 50100, 50100, 50100};
    const struct {
        const char *name;
        const int32_t *n;
        int64_t h_kv;
        double pieces, heads; /* at least; at most */
    } test[] = {{"one of 100000 and seven of 100", one_long, 1, 0.75, 0.13},
                {"100 to 100000", uneven, 1, 0.9, 0.55},
                {"100 to 100000, 8 KV heads", uneven, 8, 0.95, 1},
                {"all of 50100", equal, 1, 0.9, 1}};
    int64_t piece = fv_decode_piece();
    printf("lean-attention: share of 8 workers' time that is work, by pieces of %lld keys and by whole heads\n",
           (long long)piece);
    for (size_t i = 0; i < sizeof test / sizeof *test; i++) {
        double pieces = utilisation(ctx, test[i].n, 8, test[i].h_kv, piece, 8);
        double whole = utilisation(ctx, test[i].n, 8, test[i].h_kv, 0, 8);
        printf("  %-32s %.3f %.3f\n", test[i].name, pieces, whole);
        CHECK(pieces >= test[i].pieces && whole <= test[i].heads, "%s: %g by pieces, %g by heads", test[i].name, pieces, whole);
    }
    int64_t load[2];
    int32_t negative = -1;
    CHECK(fv_decode_loads(ctx, &negative, 1, 1, 64, 2, load) == FV_ERR_ARGUMENT, "a negative length");
    CHECK(fv_decode_loads(ctx, equal, 8, 1, 64, 0, load) == FV_ERR_ARGUMENT, "no workers");
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    same_bits_for_any_threads();
    pieces_lie_evenly(ctx);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
