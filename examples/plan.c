/* plan.c - plan once, run often. The plan checks the problem and says how much workspace it wants; the caller owns that memory,
 * and no run allocates. Here: grouped heads, a sliding window with sinks, and the log-sum-exp of each row.
 */
#include <fovea/fovea.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADS = 8, KV_HEADS = 2, MOST = 700, WIDTH = 32, WINDOW = 128, SINKS = 4 };

typedef struct {
    float *q, *k, *v, *out, *lse;
} arrays;

static float *random_array(int n) {
    float *x = malloc((size_t)n * sizeof *x);
    for (int i = 0; x != NULL && i < n; i++) {
        x[i] = (float)rand() / (float)RAND_MAX * 2 - 1;
    }
    return x;
}

/* The log-sum-exp of one row, by hand: which keys does it see? */
static double lse_by_hand(const arrays *a, int rows, int head, int row) {
    double sum = 0;
    for (int j = 0; j <= row; j++) {
        if (j <= row - WINDOW && j >= SINKS) {
            continue;
        }
        double score = 0;
        for (int c = 0; c < WIDTH; c++) {
            int kv = head / (HEADS / KV_HEADS);
            score += (double)a->q[(head * rows + row) * WIDTH + c] * (double)a->k[(kv * rows + j) * WIDTH + c];
        }
        sum += exp(score / sqrt(WIDTH));
    }
    return log(sum);
}

static fv_status run(fv_plan *plan, const arrays *a, int rows, void *workspace, size_t bytes) {
    fv_run_stats stats;
    fv_run r = {.q = fv_tensor_view(a->q, FV_F32, 1, HEADS, rows, WIDTH),
                .k = fv_tensor_view(a->k, FV_F32, 1, KV_HEADS, rows, WIDTH),
                .v = fv_tensor_view(a->v, FV_F32, 1, KV_HEADS, rows, WIDTH),
                .out = fv_tensor_view(a->out, FV_F32, 1, HEADS, rows, WIDTH),
                .lse = a->lse,
                .stats = &stats};
    fv_status status = fv_plan_run(plan, &r, workspace, bytes);
    if (status == FV_OK) {
        printf("%4d rows: each head saw %.0f of %.0f pairs\n", rows, (double)stats.exact_pairs / HEADS,
               (double)rows * (rows + 1) / 2);
    }
    return status;
}

/* The same plan serves any lengths up to its own. */
static int use(fv_plan *plan, const arrays *a, void *workspace, size_t bytes) {
    static const int lengths[] = {MOST, 64, 333};
    double worst = 0;
    for (int i = 0; i < 3; i++) {
        int rows = lengths[i], last = HEADS * rows - 1;
        if (run(plan, a, rows, workspace, bytes) != FV_OK) {
            return 1;
        }
        worst = fmax(worst, fabs((double)a->lse[last] - lse_by_hand(a, rows, HEADS - 1, rows - 1)));
        worst = fmax(worst, fabs((double)a->lse[rows / 2] - lse_by_hand(a, rows, 0, rows / 2)));
    }
    printf("largest difference of a log-sum-exp from the one by hand: %.1e\n", worst);
    return worst < 1e-5 ? 0 : 1;
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    fv_problem problem = fv_problem_default();
    problem.b = 1;
    problem.h_q = HEADS;
    problem.h_kv = KV_HEADS;
    problem.n_q = problem.n_kv = MOST;
    problem.d_k = problem.d_v = WIDTH;
    problem.causal = true;
    problem.window = WINDOW;
    problem.sinks = SINKS;

    fv_plan *plan = NULL;
    int failed = fv_plan_create(ctx, &problem, &plan) != FV_OK;
    if (!failed) {
        size_t bytes = fv_plan_workspace(plan);
        void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
        arrays a = {random_array(HEADS * MOST * WIDTH), random_array(KV_HEADS * MOST * WIDTH),
                    random_array(KV_HEADS * MOST * WIDTH), random_array(HEADS * MOST * WIDTH), random_array(HEADS * MOST)};
        printf("workspace: %zu bytes\n", bytes);
        failed = !workspace || !a.q || !a.k || !a.v || !a.out || !a.lse || use(plan, &a, workspace, bytes);
        free(workspace);
        free(a.q);
        free(a.k);
        free(a.v);
        free(a.out);
        free(a.lse);
    }
    if (failed) {
        fprintf(stderr, "failed: %s\n", fv_message(ctx));
    }
    fv_plan_destroy(plan);
    fv_context_destroy(ctx);
    return failed;
}
