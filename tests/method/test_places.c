/* test_places.c - methods that give queries and keys positions of their own, on rows with rotary positions: LongHeads against its
 * formulas in double, GALI's rows however they come, generated tokens, caches, and what is refused. GALI's formula is held in
 * test_gali.c. */
#include "structured_test.h"

enum { CHUNK = 64, LENGTH = 256, N = 700, D = 32, WIDTH = 24 };
static double frequency[WIDTH / 2];

static fv_rope rope_of(bool interleaved) {
    return (fv_rope){.width = WIDTH, .interleaved = interleaved, .frequency = frequency, .trained = LENGTH};
}

static void turn(const float *x, double position, bool interleaved, double *out) {
    for (int c = 0; c < D; c++) {
        out[c] = x[c];
    }
    for (int j = 0; j < WIDTH / 2; j++) {
        int a = interleaved ? 2 * j : j, b = interleaved ? 2 * j + 1 : j + WIDTH / 2;
        double angle = position * frequency[j];
        out[a] = (double)x[a] * cos(angle) - (double)x[b] * sin(angle);
        out[b] = (double)x[b] * cos(angle) + (double)x[a] * sin(angle);
    }
}

static double dot(const double *a, const double *b) {
    double s = 0;
    for (int c = 0; c < D; c++) {
        s += a[c] * b[c];
    }
    return s;
}

/* A copy whose rows of Q and K are rotated by where they stand, as a model hands them over. */
static heads rotated(const heads *x, bool interleaved) {
    heads y = heads_make(1, x->h_q, x->h_kv, x->n, x->d);
    double row[D];
    for (int64_t r = 0; r < (x->h_q + x->h_kv) * x->n; r++) {
        bool q = r < x->h_q * x->n;
        int64_t at = q ? r : r - x->h_q * x->n;
        turn((q ? x->q : x->k) + at * D, (double)(at % x->n), interleaved, row);
        for (int c = 0; c < D; c++) {
            (q ? y.q : y.k)[at * D + c] = (float)row[c];
        }
    }
    memcpy(y.v, x->v, (size_t)(x->h_kv * x->n * D) * sizeof(float));
    return y;
}

/* ---- LongHeads in double ---- */

/* out = mix of rows at softmax(q . k) over the chunk from `begin`; rows of K stand at their places in the chunk. */
static void attend_chunk(const heads *x, int64_t kv, int64_t begin, const double *q, bool values, bool interleaved, double *out) {
    double k[CHUNK][D], w[CHUNK], sum = 0;
    for (int j = 0; j < CHUNK; j++) {
        turn(x->k + (kv * x->n + begin + j) * D, j, interleaved, k[j]);
        w[j] = exp(dot(q, k[j]) / sqrt(D));
        sum += w[j];
    }
    memset(out, 0, D * sizeof *out);
    for (int j = 0; j < CHUNK; j++) {
        for (int c = 0; c < D; c++) {
            out[c] += w[j] / sum * (values ? (double)x->v[(kv * x->n + begin + j) * D + c] : k[j][c]);
        }
    }
}

/* A chunk's summary; `keys`: its keys stand for its queries. */
static void summary(const heads *x, int64_t head, int64_t begin, bool keys, bool interleaved, double *c) {
    const int64_t kv = head / (x->h_q / x->h_kv);
    const float *q = keys ? x->k + kv * x->n * D : x->q + head * x->n * D;
    double mean[D] = {0}, one[D], row[D];
    for (int i = 0; i < CHUNK; i++) {
        turn(q + (begin + i) * D, i, interleaved, row);
        attend_chunk(x, kv, begin, row, true, interleaved, one);
        for (int a = 0; a < D; a++) {
            mean[a] += one[a] / CHUNK;
        }
    }
    attend_chunk(x, kv, begin, mean, false, interleaved, c);
}

/* Fills `taken` with the row's chunks, ascending; returns how many, or 0 where ranks are too close to tell. c: (chunks, D). */
static int choose(const double *q, const double *c, int64_t i, int64_t *taken) {
    int64_t own = i / CHUNK;
    int n = 0;
    for (int64_t b = 0; b <= own; b++) {
        const bool ranked = b > 0 && b < own - 1; /* others are taken anyway, and the row's own has no summary yet */
        int above = 0;
        for (int64_t o = 1; ranked && o < own - 1; o++) {
            double s = dot(q, c + o * D), mine = dot(q, c + b * D);
            if (o != b && fabs(s - mine) < 1e-4 * fmax(1, fabs(mine))) {
                return 0;
            }
            above += s > mine;
        }
        if (i < LENGTH || !ranked || above < LENGTH / CHUNK - 3) {
            taken[n++] = b;
        }
    }
    return n;
}

/* Row i over its chunks, which stand side by side from 0 on. */
static void mix_row(const heads *x, int64_t head, int64_t i, const int64_t *taken, int n, bool interleaved, double *out) {
    const int64_t kv = head / (x->h_q / x->h_kv);
    double q[D], k[D], sum = 0;
    turn(x->q + (head * x->n + i) * D, (double)((n - 1) * CHUNK + i % CHUNK), interleaved, q);
    memset(out, 0, D * sizeof *out);
    for (int t = 0; t < n; t++) {
        for (int64_t j = taken[t] * CHUNK; j < (taken[t] + 1) * CHUNK && j <= i; j++) {
            turn(x->k + (kv * x->n + j) * D, (double)(t * CHUNK + j % CHUNK), interleaved, k);
            double w = exp(dot(q, k) / sqrt(D));
            sum += w;
            for (int c = 0; c < D; c++) {
                out[c] += w * (double)x->v[(kv * x->n + j) * D + c];
            }
        }
    }
    for (int c = 0; c < D; c++) {
        out[c] /= sum;
    }
}

/* The largest difference of rows from .. n - 1 of `out` (h_q, rows, D) from the formulas; `unsure` counts rows left out. */
static double off_by(const heads *x, const float *out, int64_t from, bool keys, bool interleaved, int64_t *unsure) {
    double worst = 0, *c = malloc((size_t)(x->n / CHUNK * D) * sizeof *c), q[D], want[D];
    for (int64_t head = 0; head < x->h_q; head++) {
        for (int64_t b = 0; b < x->n / CHUNK; b++) {
            summary(x, head, b * CHUNK, keys, interleaved, c + b * D);
        }
        for (int64_t i = from; i < x->n; i += i < LENGTH ? 17 : 3) {
            int64_t taken[N / CHUNK + 1];
            for (int a = 0; a < D; a++) {
                q[a] = x->q[(head * x->n + i) * D + a];
            }
            int n = choose(q, c, i, taken);
            *unsure += n == 0;
            if (n > 0) {
                mix_row(x, head, i, taken, n, interleaved, want);
            }
            for (int a = 0; n > 0 && a < D; a++) {
                worst = fmax(worst, fabs(want[a] - out[(head * (x->n - from) + i - from) * D + a]));
            }
        }
    }
    free(c);
    return worst;
}

/* ---- running ---- */

typedef struct planned {
    fv_recipe *recipe;
    fv_plan *plan;
    void *workspace, *state;
    size_t bytes, state_bytes;
} planned;

static fv_problem problem_of(const heads *x, bool interleaved, int64_t n_q, fv_phase phase) {
    fv_problem p = fv_problem_default();
    p.h_q = x->h_q;
    p.h_kv = x->h_kv;
    p.n_q = n_q;
    p.n_kv = x->n;
    p.d_k = p.d_v = D;
    p.causal = true;
    p.rope = rope_of(interleaved);
    p.phase = phase;
    return p;
}

static planned plan_of(fv_context *ctx, const char *recipe, fv_problem p) {
    planned t = {0};
    CHECK(fv_recipe_parse(ctx, recipe, &t.recipe) == FV_OK, "%s: %s", recipe, fv_message(ctx));
    p.recipe = t.recipe;
    fv_status status = fv_plan_create(ctx, &p, &t.plan);
    CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
    t.bytes = fv_plan_workspace(t.plan);
    t.workspace = aligned_alloc(64, (t.bytes + 63) / 64 * 64);
    memset(t.workspace, 0xff, t.bytes);
    t.state_bytes = fv_plan_state(t.plan);
    t.state = aligned_alloc(64, t.state_bytes / 64 * 64 + 64);
    memset(t.state, 0xff, t.state_bytes);
    return t;
}

static void planned_free(planned *t) {
    free(t->state);
    free(t->workspace);
    fv_plan_destroy(t->plan);
    fv_recipe_destroy(t->recipe);
}

/* Rows from .. end - 1 against keys 0 .. end - 1, in tensors or a cache; out (h_q, end - from, D). */
static void run_rows(fv_context *ctx, const planned *t, const heads *x, const fv_cache *cache, int64_t from, int64_t end,
                     int64_t step, float *out) {
    fv_run run = {.q = fv_tensor_view(x->q, FV_F32, 1, x->h_q, x->n, D),
                  .k = fv_tensor_view(x->k, FV_F32, 1, x->h_kv, x->n, D),
                  .v = fv_tensor_view(x->v, FV_F32, 1, x->h_kv, x->n, D),
                  .out = fv_tensor_view(out, FV_F32, 1, x->h_q, end - from, D),
                  .cache = cache,
                  .step = step,
                  .state = t->state,
                  .state_bytes = t->state_bytes};
    run.q.data = x->q + from * D;
    run.q.shape[2] = end - from;
    run.k.shape[2] = run.v.shape[2] = end;
    fv_status status = fv_plan_run(t->plan, &run, t->workspace, t->bytes);
    CHECK(status == FV_OK, "%s: %s", fv_recipe_text(t->recipe), fv_message(ctx));
}

static double difference(const float *a, const float *b, int64_t n) {
    double worst = 0;
    for (int64_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    }
    return worst;
}

static const char longheads[] = "prefill=longheads:chunk=64:length=256", gali[] = "prefill=gali:local=32:chunk=50";

static void longheads_hold(fv_context *ctx, int64_t h_kv, bool interleaved) {
    heads x = heads_structured(5, 4, h_kv, N, D), y = rotated(&x, interleaved);
    int64_t unsure = 0;
    planned prompt = plan_of(ctx, longheads, problem_of(&x, interleaved, N, FV_PREFILL));
    run_rows(ctx, &prompt, &y, NULL, 0, N, 0, y.out);
    double worst = off_by(&x, y.out, 0, false, interleaved, &unsure);
    CHECK(worst < 5e-5, "longheads, %d KV heads: off by %g", (int)h_kv, worst);
    CHECK(unsure < 100, "%lld rows are too close to tell", (long long)unsure);
    planned step = plan_of(ctx, longheads, problem_of(&x, interleaved, 1, FV_DECODE));
    float last[4 * D], again[4 * D];
    run_rows(ctx, &step, &y, NULL, 400, 401, 0, last); /* leaves six chunks in the state */
    run_rows(ctx, &step, &y, NULL, N - 1, N, 1, last);
    worst = off_by(&x, last, N - 1, true, interleaved, &unsure);
    CHECK(worst < 5e-5, "longheads, a generated token: off by %g", worst);
    run_rows(ctx, &step, &y, NULL, N - 1, N, 0, again);
    CHECK(memcmp(last, again, sizeof last) == 0, "what was kept from token to token changes bits");
    for (int64_t i = CHUNK * D; i < 5 * CHUNK * D; i++) { /* as after a roll-back and another prompt: step 0 says so */
        y.v[i] *= -30;
    }
    run_rows(ctx, &step, &y, NULL, N - 1, N, 0, last);
    memset(step.state, 0xff, step.state_bytes);
    run_rows(ctx, &step, &y, NULL, N - 1, N, 0, again);
    CHECK(memcmp(last, again, sizeof last) == 0, "a first step takes up what another text left");
    planned_free(&step);
    planned_free(&prompt);
    heads_free(&x);
    heads_free(&y);
}

/* A generated token is a chunk of its own. */
static void gali_steps_hold(fv_context *ctx) {
    heads x = heads_structured(6, 4, 2, N, D), y = rotated(&x, true);
    planned prompt = plan_of(ctx, "prefill=gali:local=32:chunk=1", problem_of(&x, true, N, FV_PREFILL));
    planned step = plan_of(ctx, gali, problem_of(&x, true, 1, FV_DECODE));
    float one[4 * D];
    run_rows(ctx, &prompt, &y, NULL, 0, N, 0, y.out);
    for (int64_t i = 3; i < N; i += 58) {
        run_rows(ctx, &step, &y, NULL, i, i + 1, 0, one);
        for (int64_t h = 0; h < 4; h++) {
            double worst = difference(one + h * D, y.out + (h * N + i) * D, D);
            CHECK(worst < 2e-5, "gali, generated token %lld: off by %g", (long long)i, worst);
        }
    }
    planned_free(&step);
    planned_free(&prompt);
    heads_free(&x);
    heads_free(&y);
}

/* Caches give what tensors give, in their own basis too; 3 threads what one gives; and, where no queries are asked for again,
 * later rows alone what all rows give. */
static void ways_hold(fv_context *ctx, fv_context *other, const char *recipe, bool parts) {
    heads x = heads_structured(7, 4, 2, N, D), y = rotated(&x, false);
    planned t = plan_of(ctx, recipe, problem_of(&x, false, N, FV_PREFILL));
    planned wide = plan_of(other, recipe, problem_of(&x, false, N, FV_PREFILL));
    float *out = malloc((size_t)(4 * N * D) * sizeof *out);
    run_rows(ctx, &t, &y, NULL, 0, N, 0, y.out);
    run_rows(other, &wide, &y, NULL, 0, N, 0, out);
    CHECK(memcmp(out, y.out, (size_t)(4 * N * D) * sizeof *out) == 0, "%s: threads change bits", recipe);
    for (int basis = 0; basis < 2; basis++) {
        fv_cache *cache = NULL;
        const fv_cache_desc desc = {1, 2, D, D, FV_F32, FV_F32, basis == 1, false};
        const fv_tensor k = fv_tensor_view(y.k, FV_F32, 1, 2, N, D), v = fv_tensor_view(y.v, FV_F32, 1, 2, N, D);
        CHECK(fv_cache_create(ctx, &desc, &cache) == FV_OK && fv_cache_append(cache, 0, &k, &v) == FV_OK, "%s", fv_message(ctx));
        run_rows(ctx, &t, &y, cache, 0, N, 0, out);
        double worst = difference(out, y.out, 4 * N * D);
        CHECK(basis == 1 ? worst < 2e-5 : worst == 0, "%s: a cache of basis %d is off by %g", recipe, basis, worst);
        run_rows(ctx, &t, &y, cache, 320, N, 0, out);
        for (int h = 0; h < 4 && basis == 0 && parts; h++) {
            worst = difference(out + h * (N - 320) * D, y.out + (h * N + 320) * D, (N - 320) * D);
            CHECK(worst == 0, "%s: rows from 320 on alone are off by %g", recipe, worst);
        }
        fv_cache_destroy(cache);
    }
    free(out);
    planned_free(&wide);
    planned_free(&t);
    heads_free(&x);
    heads_free(&y);
}

/* Within the trained length positions are what they are. */
static void degenerate_is_dense(fv_context *ctx, const char *recipe) {
    heads x = heads_structured(8, 4, 2, LENGTH, D), y = rotated(&x, true);
    planned t = plan_of(ctx, recipe, problem_of(&x, true, LENGTH, FV_PREFILL));
    planned dense = plan_of(ctx, "", problem_of(&x, true, LENGTH, FV_PREFILL));
    run_rows(ctx, &t, &y, NULL, 0, LENGTH, 0, x.out);
    run_rows(ctx, &dense, &y, NULL, 0, LENGTH, 0, y.out);
    CHECK(memcmp(x.out, y.out, 4 * LENGTH * D * sizeof(float)) == 0, "%s is not dense within the trained length", recipe);
    planned_free(&dense);
    planned_free(&t);
    heads_free(&x);
    heads_free(&y);
}

static void refused(fv_context *ctx, const char *recipe, const fv_problem *problem, const char *says) {
    fv_recipe *r = NULL;
    fv_plan *plan = NULL;
    fv_problem p = *problem;
    fv_status status = fv_recipe_parse(ctx, recipe, &r);
    if (status == FV_OK) {
        p.recipe = r;
        status = fv_plan_create(ctx, &p, &plan);
    }
    CHECK(status != FV_OK && strstr(fv_message(ctx), says) != NULL, "%s: '%s', not '%s'", recipe, fv_message(ctx), says);
    fv_plan_destroy(plan);
    fv_recipe_destroy(r);
}

static void refusals_hold(fv_context *ctx) {
    heads x = {4, 2, N, D, NULL, NULL, NULL, NULL, NULL};
    fv_problem p = problem_of(&x, true, N, FV_PREFILL), bad = p;
    refused(ctx, "prefill=gali,decode=window", &p, "leave decode out");
    refused(ctx, "prefill=delta(longheads:chunk=64:length=256)", &p, "positions of its own");
    refused(ctx, "prefill=longheads", &p, "more than the positions the model was trained on");
    refused(ctx, "prefill=gali:local=300", &p, "less than the positions trained");
    bad.max_error = 0.1f;
    refused(ctx, gali, &bad, "positions of its own");
    bad = p;
    bad.causal = false;
    refused(ctx, gali, &bad, "causal");
    bad = p;
    bad.rope = (fv_rope){0};
    refused(ctx, gali, &bad, "rotary positions");
    bad = p;
    bad.rope.trained = 0;
    refused(ctx, gali, &bad, "give trained");
    bad = p;
    bad.rope.width = D + 2;
    refused(ctx, gali, &bad, "rope turns 34 of 32");
}

int main(void) {
    fv_context *ctx, *three;
    if (fv_context_create(&(fv_context_options){.threads = 1, .level = FV_LEVEL_BEST}, &ctx) != FV_OK ||
        fv_context_create(&(fv_context_options){.threads = 3, .level = FV_LEVEL_BEST}, &three) != FV_OK) {
        return 1;
    }
    for (int j = 0; j < WIDTH / 2; j++) {
        frequency[j] = pow(5000, -2.0 * j / WIDTH);
    }
    longheads_hold(ctx, 2, true);
    longheads_hold(ctx, 2, false);
    longheads_hold(ctx, 4, true);
    longheads_hold(ctx, 4, false);
    gali_steps_hold(ctx);
    ways_hold(ctx, three, longheads, false);
    ways_hold(ctx, three, gali, true);
    degenerate_is_dense(ctx, longheads);
    degenerate_is_dense(ctx, gali);
    refusals_hold(ctx);
    fv_context_destroy(three);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
