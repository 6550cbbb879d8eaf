/* attend_arrays.c - reading and checking arrays; what is wrong is said with the option and the shape that would be right. */
#include "attend.h"

#include "common.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void attend_release(attend_arrays *s) {
    npy *all[] = {&s->q, &s->k, &s->v, &s->sink_logits, &s->bias, &s->key_mask, &s->slopes};
    for (int i = 0; i < CLI_COUNT(all); i++) {
        npy_free(all[i]);
    }
    free(s->out.data);
    free(s->lse.data);
    free(s->mask);
    free(s->alibi);
    free(s->lengths);
}

static int read_array(const char *option, const char *path, npy *out) {
    char error[512];
    int code = common_readable(option, path);
    if (code || npy_read(path, out, error, sizeof error)) {
        return code;
    }
    return terminal_error(EXIT_RUNTIME, "%s: %s", option, error);
}

/* (h, n, d) becomes (1, h, n, d). */
static int read_tensor(const char *option, const char *path, npy *out, fv_tensor *view) {
    int code = read_array(option, path, out);
    if (code) {
        return code;
    }
    if ((out->rank != 3 && out->rank != 4) || out->dtype > FV_BF16) {
        return terminal_error(EXIT_USAGE, "%s %s: must be (h, n, d) or (b, h, n, d) of f32, f16 or bf16; this has rank %d, %s",
                              option, path, out->rank, fv_dtype_name(out->dtype));
    }
    const int64_t *s = out->shape + (out->rank - 3);
    *view = fv_tensor_view(out->data, out->dtype, out->rank == 4 ? out->shape[0] : 1, s[0], s[1], s[2]);
    return 0;
}

static int64_t count(const npy *a) {
    int64_t n = 1;
    for (int i = 0; i < a->rank; i++) {
        n *= a->shape[i];
    }
    return n;
}

static int read_vector(const char *option, const char *path, int64_t h_q, npy *out) {
    int code = read_array(option, path, out);
    if (!code && (out->dtype != FV_F32 || count(out) != h_q)) {
        return terminal_error(EXIT_USAGE, "%s %s: must be f32 with %" PRId64 " numbers, one a query head", option, path, h_q);
    }
    return code;
}

/* A bias of lower rank or with lengths of 1 is repeated over what it lacks: strides of 0. */
static int read_bias(const attend_arguments *a, const fv_problem *p, npy *array, fv_tensor *view) {
    int code = read_array("--bias", a->bias, array);
    if (code) {
        return code;
    }
    const int64_t wanted[4] = {p->b, p->h_q, p->n_q, p->n_kv};
    *view = (fv_tensor){.data = array->data, .dtype = FV_F32, .rank = 4};
    bool right = array->dtype == FV_F32 && array->rank >= 2;
    int64_t stride = 1;
    for (int i = 3; i >= 0 && right; i--) {
        int from = i - (4 - array->rank);
        int64_t have = from >= 0 ? array->shape[from] : 1;
        right = have == wanted[i] || have == 1;
        view->shape[i] = wanted[i];
        view->stride[i] = have == 1 ? 0 : stride;
        stride *= have;
    }
    return right ? 0
                 : terminal_error(EXIT_USAGE,
                                  "--bias %s: must be f32 (%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64
                                  ") or repeat over lengths of 1",
                                  a->bias, p->b, p->h_q, p->n_q, p->n_kv);
}

static int read_key_mask(const attend_arguments *a, const fv_problem *p, attend_arrays *s) {
    int code = read_array("--key-mask", a->key_mask, &s->key_mask);
    if (code) {
        return code;
    }
    int64_t n = count(&s->key_mask);
    if (s->key_mask.dtype != FV_I32 || (n != p->n_kv && n != p->b * p->n_kv)) {
        return terminal_error(EXIT_USAGE, "--key-mask %s: must be i32 with %" PRId64 " or %" PRId64 " numbers", a->key_mask,
                              p->n_kv, p->b * p->n_kv);
    }
    int64_t total = p->b * p->n_kv;
    s->mask = malloc((size_t)(total ? total : 1));
    for (int64_t i = 0; s->mask && i < total; i++) {
        s->mask[i] = ((const int32_t *)s->key_mask.data)[i % n] != 0;
    }
    return s->mask ? 0 : terminal_error(EXIT_RUNTIME, "out of memory");
}

/* The paper's slopes: powers of 2^(-8/n) for n a power of two; else those of the power of two below, then every other one of
 * the next. Press, Smith and Lewis, "Train Short, Test Long", 2022. */
static float *paper_slopes(int64_t h_q) {
    float *slopes = malloc((size_t)(h_q > 0 ? h_q : 1) * sizeof *slopes);
    int64_t whole = 1;
    while (2 * whole <= h_q) {
        whole *= 2;
    }
    for (int64_t i = 0; slopes && i < h_q; i++) {
        double power = i < whole ? (double)(i + 1) / (double)whole : (double)(2 * (i - whole) + 1) / (double)(2 * whole);
        slopes[i] = (float)exp2(-8 * power);
    }
    return slopes;
}

static int read_heads(const attend_arguments *a, const fv_problem *p, attend_arrays *s, fv_run *run) {
    int code = 0;
    if (a->sink_logits) {
        code = read_vector("--sink-logits", a->sink_logits, p->h_q, &s->sink_logits);
        run->sink_logits = s->sink_logits.data;
    }
    if (!code && a->alibi_slopes) {
        code = read_vector("--alibi-slopes", a->alibi_slopes, p->h_q, &s->slopes);
        run->alibi_slopes = s->slopes.data;
    } else if (!code && a->alibi) {
        s->alibi = paper_slopes(p->h_q);
        run->alibi_slopes = s->alibi;
        code = s->alibi ? 0 : terminal_error(EXIT_RUNTIME, "out of memory");
    }
    return code;
}

static int take_lengths(const attend_arguments *a, const fv_problem *p, attend_arrays *s) {
    if (a->kv_lengths.n != p->b) {
        return terminal_error(EXIT_USAGE, "--kv-lengths: %d lengths for %" PRId64 " sequences", a->kv_lengths.n, p->b);
    }
    s->lengths = malloc((size_t)a->kv_lengths.n * sizeof *s->lengths);
    for (int i = 0; s->lengths && i < a->kv_lengths.n; i++) {
        if (a->kv_lengths.value[i] > p->n_kv) {
            return terminal_error(EXIT_USAGE, "--kv-lengths %" PRId64 ": there are %" PRId64 " keys", a->kv_lengths.value[i],
                                  p->n_kv);
        }
        s->lengths[i] = (int32_t)a->kv_lengths.value[i];
    }
    return s->lengths ? 0 : terminal_error(EXIT_RUNTIME, "out of memory");
}

static void set_problem(const attend_arguments *a, const fv_run *run, fv_problem *p) {
    p->b = run->q.shape[0];
    p->h_q = run->q.shape[1];
    p->n_q = run->q.shape[2];
    p->d_k = run->q.shape[3];
    p->h_kv = run->k.shape[1];
    p->n_kv = run->k.shape[2];
    p->d_v = run->v.shape[3];
    p->out_dtype = a->dtype;
    p->scale = (float)a->scale;
    p->soft_cap = (float)a->soft_cap;
    p->causal = a->causal;
    p->offset_set = a->offset != ATTEND_NO_OFFSET;
    p->offset = p->offset_set ? a->offset : 0;
    p->window = a->window;
    p->sinks = a->sinks;
    p->has_bias = a->bias;
    p->has_alibi = a->alibi || a->alibi_slopes;
    p->has_sink_logits = a->sink_logits;
    p->has_key_mask = a->key_mask;
}

/* Shapes must agree before anything is computed from them. */
static int check_shapes(const fv_run *run) {
    const int64_t *q = run->q.shape, *k = run->k.shape, *v = run->v.shape;
    if (q[0] != k[0] || q[0] != v[0]) {
        return terminal_error(EXIT_USAGE, "--q, --k and --v have %" PRId64 ", %" PRId64 " and %" PRId64 " sequences", q[0], k[0],
                              v[0]);
    }
    if (k[1] != v[1] || k[2] != v[2]) {
        return terminal_error(EXIT_USAGE, "--k has %" PRId64 " heads of %" PRId64 " rows, --v has %" PRId64 " of %" PRId64, k[1],
                              k[2], v[1], v[2]);
    }
    if (q[3] != k[3]) {
        return terminal_error(EXIT_USAGE, "--q has width %" PRId64 ", --k has width %" PRId64, q[3], k[3]);
    }
    return 0;
}

int attend_read(const attend_arguments *a, attend_arrays *s, fv_problem *problem, fv_run *run) {
    int code = read_tensor("--q", a->q, &s->q, &run->q);
    code = code ? code : read_tensor("--k", a->k, &s->k, &run->k);
    code = code ? code : read_tensor("--v", a->v, &s->v, &run->v);
    code = code ? code : check_shapes(run);
    if (code) {
        return code;
    }
    set_problem(a, run, problem);
    code = read_heads(a, problem, s, run);
    code = code || !a->bias ? code : read_bias(a, problem, &s->bias, &run->bias);
    code = code || !a->key_mask ? code : read_key_mask(a, problem, s);
    code = code || !a->kv_lengths.n ? code : take_lengths(a, problem, s);
    run->key_mask = s->mask;
    run->kv_length = s->lengths;
    return code;
}

/* data for rows x width elements, at least one byte */
static bool allocate(npy *out, fv_dtype dtype, int64_t rows, int64_t width) {
    int64_t n;
    if (__builtin_mul_overflow(rows, width, &n) || n > INT64_MAX / 8) {
        return false;
    }
    out->dtype = dtype;
    out->bytes = fv_dtype_bytes(dtype, n);
    out->data = aligned_alloc(64, out->bytes / 64 * 64 + 64);
    return out->data;
}

int attend_results(const attend_arguments *a, attend_arrays *s, const fv_problem *p, fv_run *run) {
    int64_t rows;
    bool fits = !__builtin_mul_overflow(p->b, p->h_q, &rows) && !__builtin_mul_overflow(rows, p->n_q, &rows);
    fits = fits && allocate(&s->out, a->dtype, rows, p->d_v) && (!a->lse || allocate(&s->lse, FV_F32, rows, 1));
    if (!fits) {
        return terminal_error(EXIT_RUNTIME, "the result does not fit in memory");
    }
    const int64_t shape[4] = {p->b, p->h_q, p->n_q, p->d_v};
    int skip = s->q.rank == 3;
    s->out.rank = s->q.rank;
    s->lse.rank = s->q.rank - 1;
    memcpy(s->out.shape, shape + skip, (size_t)s->out.rank * sizeof *shape);
    memcpy(s->lse.shape, shape + skip, (size_t)s->lse.rank * sizeof *shape);
    run->out = fv_tensor_view(s->out.data, a->dtype, p->b, p->h_q, p->n_q, p->d_v);
    run->lse = s->lse.data;
    return 0;
}

int attend_write(const attend_arguments *a, const attend_arrays *s) {
    char error[512];
    if (!npy_write(a->out, &s->out, error, sizeof error)) {
        return terminal_error(EXIT_RUNTIME, "--out: %s", error);
    }
    if (a->lse && !npy_write(a->lse, &s->lse, error, sizeof error)) {
        return terminal_error(EXIT_RUNTIME, "--lse: %s", error);
    }
    return 0;
}
