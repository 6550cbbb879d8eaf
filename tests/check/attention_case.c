/* attention_case.c - see attention_case.h. */
#include "attention_case.h"

#include "oracle.h"

#include <math.h>

double normal(fvi_rng *rng) { return sqrt(-2 * log(1 - fvi_rng_unit(rng))) * cos(6.283185307179586 * fvi_rng_unit(rng)); }

static bool chance(fvi_rng *rng, double p) { return fvi_rng_unit(rng) < p; }

/* ---- operands ------------------------------------------------------------------------------------------------------ */

enum { PLAIN, PADDED_ROWS, INTERLEAVED_HEADS, ELEMENTS_APART, ROWS_BACKWARDS, ALL_BACKWARDS, ONE_FOR_ALL_HEADS, LAYOUTS };

static void set_strides(fv_tensor *t, int layout) {
    int64_t h = t->shape[1], n = t->shape[2], d = t->shape[3];
    int64_t *s = t->stride;
    s[3] = layout == ELEMENTS_APART ? 3 : 1;
    int64_t row = d * s[3] + (layout == PADDED_ROWS ? 5 : 0);
    s[2] = layout == INTERLEAVED_HEADS ? row * h : row;
    s[1] = layout == INTERLEAVED_HEADS ? row : row * n;
    s[0] = row * n * h;
    s[1] = layout == ONE_FOR_ALL_HEADS ? 0 : s[1];
    s[2] = layout == ROWS_BACKWARDS || layout == ALL_BACKWARDS ? -s[2] : s[2];
    s[3] = layout == ALL_BACKWARDS ? -s[3] : s[3];
    s[1] = layout == ALL_BACKWARDS ? -s[1] : s[1];
}

static operand operand_make(fv_dtype dtype, const int64_t shape[4], int layout, bool at_end) {
    operand o = {.t = {.dtype = dtype, .rank = 4}};
    memcpy(o.t.shape, shape, sizeof o.t.shape);
    set_strides(&o.t, layout);
    int64_t low = 0, high = 0, size = dtype == FV_F32 ? 4 : 2;
    bool empty = false;
    for (int i = 0; i < 4; i++) {
        int64_t reach = (shape[i] - 1) * o.t.stride[i];
        empty = empty || shape[i] == 0;
        low += reach < 0 ? reach : 0;
        high += reach > 0 ? reach : 0;
    }
    o.g = guard_make(empty ? 0 : (size_t)((high - low + 1) * size), (size_t)size, at_end);
    o.t.data = o.g.data - (empty ? 0 : low * size);
    o.kept = malloc(o.g.size + 1);
    return o;
}

typedef float (*element_source)(void *state, int64_t b, int64_t h, int64_t i, int64_t c);

static void operand_fill(operand *o, element_source source, void *state) {
    const int64_t *n = o->t.shape;
    for (int64_t b = 0; b < n[0]; b++) {
        for (int64_t h = 0; h < n[1]; h++) {
            for (int64_t i = 0; i < n[2]; i++) {
                for (int64_t c = 0; c < n[3]; c++) {
                    tensor_set(&o->t, b, h, i, c, source(state, b, h, i, c));
                }
            }
        }
    }
    memcpy(o->kept, o->g.data, o->g.size);
}

void operand_free(operand *o) {
    if (o->kept != NULL) {
        guard_free(&o->g);
        free(o->kept);
    }
    *o = (operand){0};
}

static bool operand_untouched(const operand *o) {
    return o->kept == NULL || (guard_intact(&o->g) && memcmp(o->kept, o->g.data, o->g.size) == 0);
}

typedef struct deviates {
    fvi_rng *rng;
    double deviation, common; /* common: largest entry of a vector added to all rows */
} deviates;

static float deviate(void *state, int64_t b, int64_t h, int64_t i, int64_t c) {
    (void)b;
    (void)h;
    (void)i;
    deviates *s = state;
    return (float)(s->deviation * normal(s->rng) + s->common * cos(1.7 * (double)c));
}

operand operand_normal(fvi_rng *rng, fv_dtype dtype, int64_t b, int64_t h, int64_t n, int64_t d, double deviation) {
    int64_t shape[4] = {b, h, n, d};
    operand o = operand_make(dtype, shape, PLAIN, true);
    deviates s = {rng, deviation, 0};
    operand_fill(&o, deviate, &s);
    return o;
}

/* Queries: normal, but some rows are zero (flat weights) and some are many times a key (one-hot weights). */
typedef struct query_source {
    fvi_rng *rng;
    const attention_case *c;
    int kind; /* of the present row: 0 normal, 1 flat, 2 one-hot */
    int64_t key;
} query_source;

static float query_element(void *state, int64_t b, int64_t h, int64_t i, int64_t c) {
    query_source *s = state;
    (void)i;
    const fv_tensor *k = &s->c->k.t;
    if (c == 0) {
        int64_t roll = fvi_rng_below(s->rng, 10);
        s->kind = roll == 0 ? 1 : roll == 1 && k->shape[2] > 0 ? 2 : 0;
        s->key = k->shape[2] > 0 ? fvi_rng_below(s->rng, k->shape[2]) : 0;
    }
    double x = s->c->deviation * normal(s->rng);
    if (s->kind == 2) {
        x = 3 * tensor_get(k, b, h / (s->c->p.h_q / s->c->p.h_kv), s->key, c);
    }
    return s->kind == 1 ? 0.0f : (float)x;
}

static float bias_element(void *state, int64_t b, int64_t h, int64_t i, int64_t c) {
    (void)b;
    (void)h;
    (void)i;
    (void)c;
    return fvi_rng_below(state, 20) == 0 ? -INFINITY : (float)normal(state);
}

/* ---- shapes -------------------------------------------------------------------------------------------------------- */

static int64_t pick_keys(fvi_rng *rng, const case_limits *limits) {
    static const int64_t edges[] = {63, 64, 65, 127, 128, 129, 1023, 4095, 4096, 4097, 8191, 8193, 16384, 32768};
    double roll = fvi_rng_unit(rng);
    int64_t n = roll < 0.1    ? fvi_rng_below(rng, 8)
                : roll < 0.55 ? 1 + fvi_rng_below(rng, 300)
                : roll < 0.75 ? 300 + fvi_rng_below(rng, 1748)
                : roll < 0.97 ? edges[fvi_rng_below(rng, 14)]
                              : 2048 + fvi_rng_below(rng, 30720);
    return fvi_min(n, limits->most_keys);
}

static int64_t pick_width(fvi_rng *rng, int kind) {
    static const int64_t widths[WIDTH_KINDS - 1] = {32, 64, 80, 96, 128, 192, 256};
    return kind < WIDTH_KINDS - 1 ? widths[kind] : 1 + fvi_rng_below(rng, 256);
}

static void pick_shape(attention_case *c, fvi_rng *rng, const case_limits *limits) {
    fv_problem *p = &c->p;
    p->d_k = pick_width(rng, c->width_kind);
    p->d_v = chance(rng, 0.3) ? pick_width(rng, (int)fvi_rng_below(rng, WIDTH_KINDS)) : p->d_k;
    p->n_kv = pick_keys(rng, limits);
    p->h_kv = 1 + (p->n_kv > 2048 ? 0 : fvi_rng_below(rng, 3));
    p->h_q = p->h_kv * (1 + fvi_rng_below(rng, p->n_kv > 2048 ? 3 : 8));
    p->b = p->n_kv > 2048 ? 1 : 1 + fvi_rng_below(rng, MOST_SEQUENCES - 1);
    double each = (double)(p->b * p->h_q) * (double)fvi_max(p->n_kv, 1) * (double)(p->d_k + p->d_v) / 2;
    double affordable = limits->pairs_times_width * (p->n_kv > 2048 ? 12 : 1) / each;
    int64_t most = (int64_t)fmax(1, fmin(affordable, 4096));
    p->n_q = chance(rng, 0.1) ? 1 : chance(rng, 0.4) ? fvi_min(p->n_kv, most) : fvi_rng_below(rng, most + 1);
}

static void pick_mask(attention_case *c, fvi_rng *rng) {
    fv_problem *p = &c->p;
    mask_kind m = c->mask_kind;
    bool windowed = m == MASK_WINDOW || m == MASK_WINDOW_SINKS || m == MASK_WINDOW_BOTH;
    p->causal = (m != MASK_FULL && m != MASK_WINDOW_BOTH && m < MASK_KEYS) || (m >= MASK_KEYS && chance(rng, 0.5));
    p->window = windowed ? 1 + fvi_rng_below(rng, chance(rng, 0.5) ? 80 : p->n_kv + 1) : 0;
    p->sinks = m == MASK_WINDOW_SINKS || (m == MASK_WINDOW_BOTH && chance(rng, 0.5)) ? 1 + fvi_rng_below(rng, 70) : 0;
    if (m == MASK_CAUSAL_OFFSET || (windowed && chance(rng, 0.3))) {
        p->offset_set = true;
        p->offset = fvi_rng_below(rng, p->n_kv + p->n_q + 20) - p->n_q - 10;
    }
    p->packed = m == MASK_PACKED;
    p->has_key_mask = m == MASK_KEYS || (m == MASK_PACKED && chance(rng, 0.3));
}

static void pick_parts(attention_case *c, fvi_rng *rng) {
    fv_problem *p = &c->p;
    p->scale = chance(rng, 0.8) ? 0 : (float)(0.7 / sqrt((double)p->d_k));
    p->soft_cap = chance(rng, 0.15) ? 15.0f : 0;
    p->has_alibi = chance(rng, 0.2);
    p->has_sink_logits = chance(rng, 0.2);
    p->has_bias = !p->packed && p->b * p->h_q * p->n_q * p->n_kv < 2000000 && chance(rng, 0.2);
    for (int h = 0; h < 64; h++) {
        c->slopes[h] = (float)exp2(-1 - (double)(h % 8));
        c->sink_logits[h] = (float)(3 * normal(rng));
    }
}

/* ---- a case -------------------------------------------------------------------------------------------------------- */

/* Cuts rows into b sequences, some of them empty. */
static void cut(fvi_rng *rng, int64_t b, int64_t rows, int32_t *start) {
    start[0] = 0;
    for (int64_t s = 1; s <= b; s++) {
        start[s] = s == b ? (int32_t)rows : start[s - 1] + (int32_t)fvi_rng_below(rng, rows - start[s - 1] + 1);
    }
}

static void make_operands(attention_case *c, fvi_rng *rng) {
    const fv_problem *p = &c->p;
    int64_t b = p->packed ? 1 : p->b;
    static const fv_dtype same[] = {FV_F32, FV_F16, FV_BF16};
    fv_dtype dtype[3];
    for (int i = 0; i < 3; i++) {
        dtype[i] = c->dtype_kind < 3 ? same[c->dtype_kind] : same[fvi_rng_below(rng, 3)];
    }
    int64_t q[4] = {b, p->h_q, p->n_q, p->d_k}, k[4] = {b, p->h_kv, p->n_kv, p->d_k};
    int64_t v[4] = {b, p->h_kv, p->n_kv, p->d_v}, out[4] = {b, p->h_q, p->n_q, p->d_v};
    int q_layout = (int)fvi_rng_below(rng, ONE_FOR_ALL_HEADS);
    c->q = operand_make(dtype[0], q, q_layout, chance(rng, 0.5));
    c->k = operand_make(dtype[1], k, (int)fvi_rng_below(rng, LAYOUTS), chance(rng, 0.5));
    c->v = operand_make(dtype[2], v, (int)fvi_rng_below(rng, LAYOUTS), chance(rng, 0.5));
    c->out = operand_make(p->out_dtype, out, (int)fvi_rng_below(rng, ONE_FOR_ALL_HEADS), chance(rng, 0.5));
    deviates k_source = {rng, 1, chance(rng, 0.3) ? 8 : 0}, v_source = {rng, 1, chance(rng, 0.3) ? 2 : 0};
    operand_fill(&c->k, deviate, &k_source);
    operand_fill(&c->v, deviate, &v_source);
    query_source q_source = {rng, c, 0, 0};
    operand_fill(&c->q, query_element, &q_source);
    if (p->has_bias) {
        int64_t shape[4] = {b, p->h_q, p->n_q, p->n_kv};
        c->bias = operand_make(FV_F32, shape, chance(rng, 0.4) ? ONE_FOR_ALL_HEADS : (int)fvi_rng_below(rng, LAYOUTS), true);
        operand_fill(&c->bias, bias_element, rng);
    }
}

static void make_run(attention_case *c, fvi_rng *rng) {
    fv_problem *p = &c->p;
    c->run = (fv_run){.q = c->q.t, .k = c->k.t, .v = c->v.t, .out = c->out.t, .bias = c->bias.t};
    int64_t b = p->packed ? 1 : p->b;
    c->lse = guard_make((size_t)(b * p->h_q * p->n_q) * sizeof(float), 4, true);
    c->run.lse = (float *)c->lse.data;
    c->mask = guard_make((size_t)(b * p->n_kv), 1, true);
    for (int64_t j = 0; j < b * p->n_kv; j++) {
        c->mask.data[j] = chance(rng, 0.7) ? (unsigned char)(1 + fvi_rng_below(rng, 255)) : 0;
    }
    c->run.key_mask = p->has_key_mask ? c->mask.data : NULL;
    c->run.alibi_slopes = p->has_alibi ? c->slopes : NULL;
    c->run.sink_logits = p->has_sink_logits ? c->sink_logits : NULL;
    if (p->packed) {
        cut(rng, p->b, p->n_q, c->q_start);
        cut(rng, p->b, p->n_kv, c->k_start);
        c->run.q_start = c->q_start;
        c->run.k_start = c->k_start;
    }
    if (c->mask_kind == MASK_LENGTHS) {
        for (int64_t s = 0; s < p->b; s++) {
            c->kv_length[s] = (int32_t)fvi_rng_below(rng, p->n_kv + 1);
        }
        c->run.kv_length = c->kv_length;
    }
}

void case_make(attention_case *c, fvi_rng *rng, int64_t index, const case_limits *limits) {
    static const fv_dtype out_dtypes[] = {FV_F32, FV_F32, FV_F16, FV_BF16};
    *c = (attention_case){.mask_kind = (mask_kind)(index % MASK_KINDS),
                          .width_kind = (int)(index / MASK_KINDS % WIDTH_KINDS),
                          .dtype_kind = (int)(index % DTYPE_KINDS)};
    c->p = fv_problem_default();
    pick_shape(c, rng, limits);
    pick_mask(c, rng);
    pick_parts(c, rng);
    c->p.out_dtype = out_dtypes[fvi_rng_below(rng, 4)];
    c->deviation = 0.1 * pow(300, fvi_rng_unit(rng));
    make_operands(c, rng);
    make_run(c, rng);
    const fv_problem *p = &c->p;
    snprintf(
        c->text, sizeof c->text,
        "case %lld: b %lld heads %lld/%lld n %lld/%lld d %lld/%lld q %s k %s v %s out %s deviation %.2g causal %d offset %lld%s "
        "window %lld sinks %lld mask kind %d bias %d alibi %d sink logits %d cap %g",
        (long long)index, (long long)p->b, (long long)p->h_q, (long long)p->h_kv, (long long)p->n_q, (long long)p->n_kv,
        (long long)p->d_k, (long long)p->d_v, fv_dtype_name(c->q.t.dtype), fv_dtype_name(c->k.t.dtype),
        fv_dtype_name(c->v.t.dtype), fv_dtype_name(p->out_dtype), c->deviation, p->causal, (long long)p->offset,
        p->offset_set ? " set" : "", (long long)p->window, (long long)p->sinks, (int)c->mask_kind, p->has_bias, p->has_alibi,
        p->has_sink_logits, (double)p->soft_cap);
}

void case_free(attention_case *c) {
    operand_free(&c->q);
    operand_free(&c->k);
    operand_free(&c->v);
    operand_free(&c->out);
    operand_free(&c->bias);
    guard_free(&c->lse);
    guard_free(&c->mask);
}

void case_reset(attention_case *c) {
    memset(c->out.g.data, 0xff, c->out.g.size);
    memset(c->lse.data, 0xff, c->lse.size);
}

fv_status case_run(fv_context *ctx, attention_case *c) {
    fv_plan *plan;
    fv_status status = fv_plan_create(ctx, &c->p, &plan);
    if (status != FV_OK) {
        printf("plan: %s\n", fv_message(ctx));
        return status;
    }
    guard workspace = guard_make(fv_plan_workspace(plan), 64, true);
    status = fv_plan_run(plan, &c->run, workspace.data, workspace.size);
    if (status != FV_OK) {
        printf("run: %s\n", fv_message(ctx));
    } else if (!guard_intact(&workspace) || !guard_intact(&c->lse) || !guard_intact(&c->out.g)) {
        printf("wrote outside its workspace or outputs\n");
        status = FV_ERR_STATE;
    } else if (!operand_untouched(&c->q) || !operand_untouched(&c->k) || !operand_untouched(&c->v) ||
               !operand_untouched(&c->bias)) {
        printf("wrote to an input\n");
        status = FV_ERR_STATE;
    }
    guard_free(&workspace);
    fv_plan_destroy(plan);
    return status;
}

bool case_out_is_clean(attention_case *c) {
    const int64_t *n = c->out.t.shape;
    float poison;
    memset(&poison, 0xff, sizeof poison);
    for (int64_t b = 0; b < n[0]; b++) {
        for (int64_t h = 0; h < n[1]; h++) {
            for (int64_t i = 0; i < n[2]; i++) {
                for (int64_t d = 0; d < n[3]; d++) {
                    int64_t at =
                        b * c->out.t.stride[0] + h * c->out.t.stride[1] + i * c->out.t.stride[2] + d * c->out.t.stride[3];
                    int64_t size = c->out.t.dtype == FV_F32 ? 4 : 2;
                    memset((unsigned char *)c->out.t.data + at * size, 0xff, (size_t)size);
                }
            }
        }
    }
    for (size_t i = 0; i < c->out.g.size; i++) {
        if (c->out.g.data[i] != 0xff) {
            return false;
        }
    }
    return true;
}
