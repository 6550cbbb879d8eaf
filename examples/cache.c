/* cache.c - keys and values that grow. A prompt is appended, tokens are decoded one by one, a fork tries something else, and a
 * truncated cache takes the same steps again: with the same bits.
 */
#include <fovea/fovea.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 6, KV_HEADS = 2, WIDTH = 64, PROMPT = 130, STEPS = 20 };

typedef struct {
    fv_context *ctx;
    fv_plan *plan;
    void *workspace;
    size_t bytes;
} decoder;

/* Stands for what a model's layer would compute: rows of numbers that depend on their position only. */
static void project(float *x, int heads, int rows, int position) {
    for (int h = 0; h < heads; h++) {
        for (int i = 0; i < rows * WIDTH; i++) {
            x[h * rows * WIDTH + i] = (float)((h * 31 + position * 17 + i * 7) % 101) / 101 - 0.5f;
        }
    }
}

static fv_status append(fv_cache *cache, int rows, int position) {
    static float k[KV_HEADS * PROMPT * WIDTH], v[KV_HEADS * PROMPT * WIDTH];
    project(k, KV_HEADS, rows, position);
    project(v, KV_HEADS, rows, position + 50);
    fv_tensor tk = fv_tensor_view(k, FV_F32, 1, KV_HEADS, rows, WIDTH), tv = fv_tensor_view(v, FV_F32, 1, KV_HEADS, rows, WIDTH);
    return fv_cache_append(cache, 0, &tk, &tv);
}

/* One token: its key and value go in, its query looks at all that is there. */
static fv_status step(const decoder *d, fv_cache *cache, int token, float *out) {
    float q[HEADS * WIDTH];
    fv_status status = append(cache, 1, token);
    if (status != FV_OK) {
        return status;
    }
    project(q, HEADS, 1, token);
    fv_run r = {.q = fv_tensor_view(q, FV_F32, 1, HEADS, 1, WIDTH),
                .out = fv_tensor_view(out, FV_F32, 1, HEADS, 1, WIDTH),
                .cache = cache,
                .layer = 0};
    return fv_plan_run(d->plan, &r, d->workspace, d->bytes);
}

static fv_status decode(const decoder *d, fv_cache *cache, int first_token, float *out) {
    for (int i = 0; i < STEPS; i++) {
        fv_status status = step(d, cache, first_token + i, out);
        if (status != FV_OK) {
            return status;
        }
    }
    return FV_OK;
}

static fv_status story(const decoder *d, fv_cache *cache, fv_cache **fork, int *same) {
    float first[HEADS * WIDTH], other[HEADS * WIDTH], again[HEADS * WIDTH];
    fv_status status = append(cache, PROMPT, 0);
    if (status != FV_OK || (status = fv_cache_fork(cache, fork)) != FV_OK) {
        return status;
    }
    if ((status = decode(d, cache, 1000, first)) != FV_OK || (status = decode(d, *fork, 2000, other)) != FV_OK) {
        return status;
    }
    printf("after %d steps: %lld entries, %zu bytes; the fork went its own way: %s\n", STEPS,
           (long long)fv_cache_length(cache, 0), fv_cache_bytes(cache), memcmp(first, other, sizeof first) ? "yes" : "no");
    if ((status = fv_cache_truncate(cache, PROMPT)) != FV_OK || (status = decode(d, cache, 1000, again)) != FV_OK) {
        return status;
    }
    *same = memcmp(first, again, sizeof first) == 0 && memcmp(first, other, sizeof first) != 0;
    printf("rolled back to %d entries and decoded again: %s\n", PROMPT, *same ? "the same bits" : "NOT the same");
    return FV_OK;
}

int main(void) {
    decoder d = {0};
    fv_cache *cache = NULL, *fork = NULL;
    int same = 0;
    fv_problem problem = fv_problem_default();
    problem.h_q = HEADS;
    problem.h_kv = KV_HEADS;
    problem.n_q = 1;
    problem.n_kv = PROMPT + STEPS;
    problem.d_k = problem.d_v = WIDTH;
    problem.causal = true;
    problem.phase = FV_DECODE;
    if (fv_context_create(NULL, &d.ctx) != FV_OK) {
        return 1;
    }
    fv_cache_desc desc = {.layers = 1, .h_kv = KV_HEADS, .d_k = WIDTH, .d_v = WIDTH, .k_dtype = FV_F16, .v_dtype = FV_F16};
    fv_status status = fv_cache_create(d.ctx, &desc, &cache);
    if (status == FV_OK && (status = fv_plan_create(d.ctx, &problem, &d.plan)) == FV_OK) {
        d.bytes = fv_plan_workspace(d.plan);
        d.workspace = aligned_alloc(64, (d.bytes + 63) / 64 * 64);
        status = story(&d, cache, &fork, &same);
    }
    if (status != FV_OK) {
        fprintf(stderr, "%s: %s\n", fv_status_name(status), fv_message(d.ctx));
    }
    free(d.workspace);
    fv_plan_destroy(d.plan);
    fv_cache_destroy(fork);
    fv_cache_destroy(cache);
    fv_context_destroy(d.ctx);
    return same ? 0 : 1;
}
