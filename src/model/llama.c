/* llama.c - the Llama architecture: RMSNorm, rotary positions, grouped queries, SwiGLU, no biases, head tied or not.
 *   H. Touvron et al., LLaMA: Open and Efficient Foundation Language Models, 2023
 *
 * Files of this architecture hold Q and K with their rows permuted for interleaved rotary pairs. A file whose rows are in the
 * half-split order of other families says so by the key fovea.rope.half_split. */
#include "base/threads.h"
#include "model/bind.h"
#include "model/rows.h"
#include "model/session.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct llama_layer {
    fvi_matrix q, k, v, o, gate, up, down;
    float *attn_norm, *ffn_norm; /* (d_model), into llama.norms */
} llama_layer;

typedef struct llama {
    int n_layers;
    llama_layer *layer;
    fvi_matrix embedding, head; /* head.w.data NULL: the embedding serves */
    float *norms;               /* (2 n_layers + 1, d_model); the last is the output's */
    int64_t norms_size;
    float *frequency_factor; /* (rotated / 2) from rope_freqs, or NULL */
    int64_t rotated;
    double rope_factor; /* 1 / linear scaling */
    double *frequency;  /* (rotated / 2) radians a position */
    float eps;
} llama;

/* ---- reading the file ---- */

static fv_status read_sizes(fv_model *m) {
    fv_model_facts *f = &m->facts;
    int64_t layers = 0;
    fv_status status = fvi_bind_number(m, "block_count", true, 1024, &layers);
    f->layers = (int)layers;
    struct {
        const char *field;
        bool required;
        int64_t most, *to;
    } field[] = {{"context_length", true, 1 << 30, &f->context},
                 {"embedding_length", true, 1 << 20, &f->d_model},
                 {"feed_forward_length", true, 1 << 22, &f->d_ffn},
                 {"attention.head_count", true, 4096, &f->h_q}};
    for (size_t i = 0; i < sizeof field / sizeof *field && status == FV_OK; i++) {
        status = fvi_bind_number(m, field[i].field, field[i].required, field[i].most, field[i].to);
    }
    if (status != FV_OK) {
        return status;
    }
    f->h_kv = f->h_q;
    f->d_k = f->d_v = fvi_max(1, f->d_model / f->h_q);
    status = fvi_bind_number(m, "attention.head_count_kv", false, 4096, &f->h_kv);
    if (status == FV_OK) {
        status = fvi_bind_number(m, "attention.key_length", false, 256, &f->d_k);
    }
    if (status == FV_OK) {
        status = fvi_bind_number(m, "attention.value_length", false, 256, &f->d_v);
    }
    if (status == FV_OK && f->h_q % f->h_kv != 0) {
        return fvi_fail(m->ctx, FV_ERR_FORMAT,
                        "%s: llama.attention.head_count is %lld, which is no multiple of head_count_kv, %lld", m->gguf->path,
                        (long long)f->h_q, (long long)f->h_kv);
    }
    if (status == FV_OK && (f->d_k > 256 || f->d_v > 256)) {
        return fvi_fail(m->ctx, FV_ERR_UNSUPPORTED, "%s: heads of %lld for keys and %lld for values; up to 256 can be run",
                        m->gguf->path, (long long)f->d_k, (long long)f->d_v);
    }
    return status;
}

static fv_status read_rope(fv_model *m, llama *w) {
    fv_model_facts *f = &m->facts;
    float base = 10000, factor = 1;
    w->rotated = f->d_k;
    fv_status status = fvi_bind_number(m, "rope.dimension_count", false, f->d_k, &w->rotated);
    if (status == FV_OK) {
        status = fvi_gguf_f32(m->gguf, "llama.rope.freq_base", false, &base);
    }
    fvi_string scaling = {NULL, 0};
    if (status == FV_OK) {
        status = fvi_gguf_string(m->gguf, "llama.rope.scaling.type", &scaling);
    }
    bool linear = scaling.size == 6 && memcmp(scaling.data, "linear", 6) == 0;
    bool none = scaling.size == 0 || (scaling.size == 4 && memcmp(scaling.data, "none", 4) == 0);
    if (status == FV_OK && !linear && !none) {
        return fvi_fail(m->ctx, FV_ERR_UNSUPPORTED, "%s: llama.rope.scaling.type is \"%.*s\"; \"linear\" and \"none\" can be run",
                        m->gguf->path, (int)fvi_min((int64_t)scaling.size, 32), scaling.data);
    }
    if (status == FV_OK && linear) {
        status = fvi_gguf_f32(m->gguf, "llama.rope.scaling.factor", true, &factor);
    }
    bool half_split = false;
    if (status == FV_OK) {
        status = fvi_gguf_bool(m->gguf, "fovea.rope.half_split", &half_split);
    }
    if (status == FV_OK && (w->rotated % 2 != 0 || !(base > 0 && isfinite(base)) || !(factor > 0 && isfinite(factor)))) {
        return fvi_fail(m->ctx, FV_ERR_FORMAT,
                        "%s: llama.rope: dimension_count %lld must be even, freq_base %g and scaling.factor %g above 0",
                        m->gguf->path, (long long)w->rotated, (double)base, (double)factor);
    }
    f->rope_base = base;
    f->rope_interleaved = !half_split;
    w->rope_factor = 1.0 / factor;
    return status;
}

static fv_status read_rest(fv_model *m, llama *w) {
    uint32_t experts = 0;
    fv_status status = fvi_gguf_u32(m->gguf, "llama.expert_count", false, 0, 1u << 20, &experts);
    if (status == FV_OK && experts > 0) {
        return fvi_fail(m->ctx, FV_ERR_UNSUPPORTED, "%s: llama.expert_count is %u; mixtures of experts cannot be run",
                        m->gguf->path, experts);
    }
    w->eps = 1e-5f;
    if (status == FV_OK) {
        status = fvi_gguf_f32(m->gguf, "llama.attention.layer_norm_rms_epsilon", true, &w->eps);
    }
    if (status == FV_OK && !(w->eps >= 0 && isfinite(w->eps))) {
        return fvi_fail(m->ctx, FV_ERR_FORMAT, "%s: llama.attention.layer_norm_rms_epsilon is %g", m->gguf->path, (double)w->eps);
    }
    return status;
}

/* ---- tensors ---- */

static fv_status load_norm(fvi_binder *b, int i, const char *name, float **out) {
    llama *w = b->model->weights;
    *out = w->norms + (int64_t)i * b->model->facts.d_model;
    return fvi_bind_vector(b, name, b->model->facts.d_model, *out);
}

static fv_status load_layer(fvi_binder *b, int i) {
    llama_layer *l = &((llama *)b->model->weights)->layer[i];
    const fv_model_facts *f = &b->model->facts;
    const struct {
        const char *name;
        fvi_matrix *to;
        int64_t n_in, n_out;
    } matrix[] = {{"attn_q", &l->q, f->d_model, f->h_q * f->d_k},  {"attn_k", &l->k, f->d_model, f->h_kv * f->d_k},
                  {"attn_v", &l->v, f->d_model, f->h_kv * f->d_v}, {"attn_output", &l->o, f->h_q * f->d_v, f->d_model},
                  {"ffn_gate", &l->gate, f->d_model, f->d_ffn},    {"ffn_up", &l->up, f->d_model, f->d_ffn},
                  {"ffn_down", &l->down, f->d_ffn, f->d_model}};
    fv_status status = FV_OK;
    for (size_t k = 0; k < sizeof matrix / sizeof *matrix && status == FV_OK; k++) {
        fvi_matrix_name(matrix[k].to, "blk.%d.%s.weight", i, matrix[k].name);
        status = fvi_bind_matrix(b, matrix[k].to, true, matrix[k].n_in, matrix[k].n_out);
        if (status == FV_OK) {
            status = fvi_linear_prepare(b->model->gemm, &matrix[k].to->w);
        }
    }
    char name[40];
    if (status == FV_OK) {
        snprintf(name, sizeof name, "blk.%d.attn_norm.weight", i);
        status = load_norm(b, 2 * i, name, &l->attn_norm);
    }
    if (status == FV_OK) {
        snprintf(name, sizeof name, "blk.%d.ffn_norm.weight", i);
        status = load_norm(b, 2 * i + 1, name, &l->ffn_norm);
    }
    return status;
}

static fv_status load_factors(fvi_binder *b) {
    fv_model *m = b->model;
    llama *w = m->weights;
    if (fvi_gguf_find_tensor(m->gguf, "rope_freqs.weight") == NULL) {
        return FV_OK;
    }
    w->frequency_factor = fvi_alloc(m->ctx, (size_t)(w->rotated / 2), sizeof(float));
    if (w->frequency_factor == NULL) {
        return fvi_fail(m->ctx, FV_ERR_MEMORY, "no memory for rope_freqs");
    }
    fv_status status = fvi_bind_vector(b, "rope_freqs.weight", w->rotated / 2, w->frequency_factor);
    for (int64_t i = 0; i < w->rotated / 2 && status == FV_OK; i++) {
        if (!(w->frequency_factor[i] > 0 && isfinite(w->frequency_factor[i]))) {
            status = fvi_fail(m->ctx, FV_ERR_FORMAT, "%s: rope_freqs.weight[%lld] is %g; factors must be above 0", m->gguf->path,
                              (long long)i, (double)w->frequency_factor[i]);
        }
    }
    return status;
}

static const fvi_linear *head_of(const llama *w) { return w->head.w.data != NULL ? &w->head.w : &w->embedding.w; }

static fv_status load_ends(fvi_binder *b) {
    fv_model *m = b->model;
    llama *w = m->weights;
    float *output_norm;
    fv_status status = load_norm(b, 2 * w->n_layers, "output_norm.weight", &output_norm);
    fvi_matrix_name(&w->head, "output.weight");
    fvi_matrix_name(&w->embedding, "token_embd.weight");
    if (status == FV_OK) {
        status = fvi_bind_matrix(b, &w->head, false, m->facts.d_model, m->facts.n_vocab);
    }
    if (status == FV_OK) {
        status = fvi_bind_matrix(b, &w->embedding, true, m->facts.d_model, m->facts.n_vocab);
    }
    if (status == FV_OK) {
        status = fvi_linear_prepare(m->gemm, w->head.w.data != NULL ? &w->head.w : &w->embedding.w);
    }
    return status == FV_OK ? load_factors(b) : status;
}

static fv_status load_tensors(fv_model *m) {
    fvi_binder b;
    fv_status status = fvi_binder_init(&b, m);
    for (int i = 0; i < m->facts.layers && status == FV_OK; i++) {
        status = load_layer(&b, i);
    }
    if (status == FV_OK) {
        status = load_ends(&b);
    }
    if (status == FV_OK) {
        status = fvi_binder_finish(&b);
    }
    fvi_binder_release(&b);
    return status;
}

static fv_status allocate(fv_model *m) {
    llama *w = m->weights;
    const fv_model_facts *f = &m->facts;
    /* A file may claim any size: what is allocated by it must stand in the file too. */
    if ((int64_t)f->layers * 9 > m->gguf->n_tensors || f->d_model > (int64_t)(m->gguf->map_bytes / 2)) {
        return fvi_fail(m->ctx, FV_ERR_FORMAT,
                        "%s: llama.block_count %d and embedding_length %lld ask for more than the file has", m->gguf->path,
                        f->layers, (long long)f->d_model);
    }
    w->n_layers = f->layers;
    w->norms_size = (2 * (int64_t)f->layers + 1) * f->d_model;
    w->layer = fvi_zalloc(m->ctx, (size_t)f->layers, sizeof *w->layer);
    w->norms = fvi_alloc(m->ctx, (size_t)w->norms_size, sizeof *w->norms);
    return w->layer != NULL && w->norms != NULL ? FV_OK : fvi_fail(m->ctx, FV_ERR_MEMORY, "no memory for the norms' weights");
}

/* What methods that give keys positions of their own have to know. */
static fv_status describe_rope(fv_model *m) {
    llama *w = m->weights;
    if (w->rotated == 0) {
        return FV_OK;
    }
    w->frequency = fvi_alloc(m->ctx, (size_t)(w->rotated / 2), sizeof(double));
    if (w->frequency == NULL) {
        return fvi_fail(m->ctx, FV_ERR_MEMORY, "no memory for rotary frequencies");
    }
    for (int64_t j = 0; j < w->rotated / 2; j++) {
        w->frequency[j] = pow(m->facts.rope_base, -2.0 * (double)j / (double)w->rotated) * w->rope_factor;
        w->frequency[j] /= w->frequency_factor != NULL ? (double)w->frequency_factor[j] : 1;
    }
    m->rope = (fv_rope){
        .width = w->rotated, .interleaved = m->facts.rope_interleaved, .frequency = w->frequency, .trained = m->facts.context};
    return FV_OK;
}

static fv_status llama_load(fv_model *m) {
    llama *w = m->weights = fvi_zalloc(m->ctx, 1, sizeof(llama));
    if (w == NULL) {
        return fvi_fail(m->ctx, FV_ERR_MEMORY, "no memory for the weights' directory");
    }
    fv_status status = read_sizes(m);
    if (status == FV_OK) {
        status = read_rope(m, w);
    }
    if (status == FV_OK) {
        status = read_rest(m, w);
    }
    if (status == FV_OK) {
        status = allocate(m);
    }
    if (status == FV_OK) {
        status = load_tensors(m);
    }
    return status == FV_OK ? describe_rope(m) : status;
}

static void llama_unload(fv_model *m) {
    llama *w = m->weights;
    if (w == NULL) {
        return;
    }
    fvi_release(m->ctx, w->layer, (size_t)w->n_layers, sizeof *w->layer);
    fvi_release(m->ctx, w->norms, (size_t)w->norms_size, sizeof *w->norms);
    fvi_release(m->ctx, w->frequency_factor, (size_t)(w->rotated / 2), sizeof(float));
    fvi_release(m->ctx, w->frequency, (size_t)(w->rotated / 2), sizeof(double));
    fvi_release(m->ctx, w, 1, sizeof *w);
    m->weights = NULL;
}

/* ---- a pass ---- */

static size_t llama_scratch(const fv_model *m, void *base, fvi_pass *out) {
    const fv_model_facts *f = &m->facts;
    const int64_t rows = out->rows, narrow = out->narrow;
    const struct {
        float **to;
        int64_t rows, width;
    } part[] = {{&out->x, rows, f->d_model},
                {&out->normed, rows, f->d_model},
                {&out->q, rows, f->h_q * f->d_k},
                {&out->k, narrow, f->h_kv * f->d_k},
                {&out->v, narrow, f->h_kv * f->d_v},
                {&out->mix, rows, f->h_q * f->d_v},
                {&out->gate, narrow, f->d_ffn},
                {&out->up, narrow, f->d_ffn},
                {&out->cos_sin, rows, ((const llama *)m->weights)->rotated}};
    size_t used = 0;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        *part[i].to = base != NULL ? (float *)((char *)base + used) : NULL;
        used += (size_t)fvi_round_up(part[i].rows * part[i].width * (int64_t)sizeof(float), 64);
    }
    return used;
}

/* Rows of the table of a pass. With factors of its own for each frequency (rope_freqs) it is made here, in double as well. */
static void make_rope_table(const fv_model *m, int64_t first, int64_t n, float *cos_sin) {
    const llama *w = m->weights;
    if (w->frequency_factor == NULL) {
        fvi_rope_table(first, n, w->rotated, m->facts.rope_base, w->rope_factor, cos_sin);
        return;
    }
    for (int64_t j = 0; j < w->rotated / 2; j++) {
        double frequency = pow(m->facts.rope_base, -2.0 * (double)j / (double)w->rotated) * w->rope_factor;
        frequency /= (double)w->frequency_factor[j];
        for (int64_t i = 0; i < n; i++) {
            double angle = (double)(first + i) * frequency;
            cos_sin[i * w->rotated + 2 * j] = (float)cos(angle);
            cos_sin[i * w->rotated + 2 * j + 1] = (float)sin(angle);
        }
    }
}

typedef struct table_job {
    const fv_model *m;
    int64_t first, n;
    float *cos_sin;
} table_job;

enum { TABLE_ROWS = 64 }; /* an item: its frequencies are worth one row's sines */

static void table_item(void *arg, int64_t item, int worker) {
    const table_job *job = arg;
    const int64_t from = item * TABLE_ROWS, rotated = ((const llama *)job->m->weights)->rotated;
    (void)worker;
    make_rope_table(job->m, job->first + from, fvi_min(TABLE_ROWS, job->n - from), job->cos_sin + from * rotated);
}

/* y[i] = w[i] x for matrices over the same x. */
static fv_status multiply(fv_model *m, fv_phase phase, const fvi_linear *const *w, float *const *y, int count, const float *x,
                          int64_t n) {
    if (phase == FV_DECODE) {
        fvi_linear_step_many(m->gemm, w, y, count, x);
        return FV_OK;
    }
    return fvi_linear_prompt_many(m->gemm, w, y, count, x, n);
}

/* Rows (n, h, d) as (1, h, n, d). */
static fv_tensor heads(float *rows, int64_t h, int64_t n, int64_t d) {
    return (fv_tensor){.data = rows, .dtype = FV_F32, .rank = 4, .shape = {1, h, n, d}, .stride = {n * h * d, d, h * d, 1}};
}

/* Rows first .. first + n - 1 of a pass: from normed rows to queries, and keys and values in the cache. */
static fv_status project(fv_session *s, const fvi_pass *p, int layer, int64_t first, int64_t n, fv_phase phase) {
    fv_model *m = s->model;
    const llama *w = m->weights;
    const llama_layer *l = &w->layer[layer];
    const fv_model_facts *f = &m->facts;
    float *q = p->q + first * f->h_q * f->d_k;
    double at = fvi_seconds();
    fv_status status = multiply(m, phase, (const fvi_linear *[]){&l->q.w, &l->k.w, &l->v.w}, (float *[]){q, p->k, p->v}, 3,
                                p->normed + first * f->d_model, n);
    if (status != FV_OK) {
        return status;
    }
    at = fvi_lap(at, &s->times.weights);
    const float *cos_sin = p->cos_sin + first * w->rotated;
    const fvi_rows_rope_args rope = {f->h_q, f->h_kv, f->d_k, w->rotated, f->rope_interleaved, cos_sin, q, p->k};
    fvi_rows_rope(m->ctx, &m->rowop, n, &rope);
    at = fvi_lap(at, &s->times.rows);
    const fv_tensor k = heads(p->k, f->h_kv, n, f->d_k), v = heads(p->v, f->h_kv, n, f->d_v);
    status = fv_cache_append(s->cache, layer, &k, &v);
    fvi_lap(at, &s->times.append);
    return status;
}

/* From queries to mixes, all rows of a pass at once. */
static fv_status attend(fv_session *s, const fvi_pass *p, int layer, int64_t n, fv_phase phase) {
    const fv_model_facts *f = &s->model->facts;
    double at = fvi_seconds();
    fv_run_stats stats = {0};
    const fv_run run = {.q = heads(p->q, f->h_q, n, f->d_k),
                        .out = heads(p->mix, f->h_q, n, f->d_v),
                        .cache = s->cache,
                        .layer = layer,
                        .step = s->steps,
                        .state = s->state == NULL ? NULL : s->state + (size_t)layer * s->state_bytes,
                        .state_bytes = s->state_bytes,
                        .stats = &stats};
    fv_status status = FV_OK;
    if (s->options.calibration != NULL && phase == FV_PREFILL) {
        status = fv_calibration_add(s->options.calibration, &run);
    }
    if (status == FV_OK) {
        status = fv_plan_run(s->plan[phase], &run, s->workspace, s->workspace_bytes);
    }
    fvi_lap(at, &s->times.attention);
    s->stats.eligible_pairs += stats.eligible_pairs;
    s->stats.visited_pairs += stats.visited_pairs;
    s->stats.exact_pairs += stats.exact_pairs;
    s->stats.entry_pairs += stats.entry_pairs;
    s->stats.k_rows += stats.k_rows;
    s->stats.v_rows += stats.v_rows;
    s->stats.tiles += stats.tiles;
    s->stats.fallback_tiles += stats.fallback_tiles;
    s->stats.select_seconds += stats.select_seconds;
    s->stats.audited_heads += stats.audited_heads;
    s->stats.dense_heads += stats.dense_heads;
    s->stats.worst_error = stats.worst_error > s->stats.worst_error ? stats.worst_error : s->stats.worst_error;
    return status;
}

/* Rows first .. first + n - 1: from mixes through the output's product and the feed forward; leaves in normed what is to be added
 * to x. */
static fv_status feed_forward(fv_session *s, const fvi_pass *p, int layer, int64_t first, int64_t n, fv_phase phase) {
    fv_model *m = s->model;
    const fv_model_facts *f = &m->facts;
    const llama *w = m->weights;
    const llama_layer *l = &w->layer[layer];
    float *x = p->x + first * f->d_model, *normed = p->normed + first * f->d_model;
    double at = fvi_seconds();
    fv_status status =
        multiply(m, phase, (const fvi_linear *[]){&l->o.w}, (float *[]){normed}, 1, p->mix + first * f->h_q * f->d_v, n);
    if (status != FV_OK) {
        return status;
    }
    at = fvi_lap(at, &s->times.weights);
    fvi_rows_norm(m->ctx, &m->rowop, n, f->d_model, x, normed, l->ffn_norm, w->eps, normed);
    at = fvi_lap(at, &s->times.rows);
    status = multiply(m, phase, (const fvi_linear *[]){&l->gate.w, &l->up.w}, (float *[]){p->gate, p->up}, 2, normed, n);
    if (status != FV_OK) {
        return status;
    }
    at = fvi_lap(at, &s->times.weights);
    fvi_rows_swiglu(m->ctx, &m->rowop, n, f->d_ffn, p->gate, p->up);
    at = fvi_lap(at, &s->times.rows);
    status = multiply(m, phase, (const fvi_linear *[]){&l->down.w}, (float *[]){normed}, 1, p->gate, n);
    fvi_lap(at, &s->times.weights);
    return status;
}

/* One layer. `add` says whether normed holds what the layer before leaves to be added. */
static fv_status layer_pass(fv_session *s, const fvi_pass *p, int layer, bool add, int64_t n, fv_phase phase) {
    fv_model *m = s->model;
    const llama *w = m->weights;
    const int64_t d = m->facts.d_model;
    fv_status status = FV_OK;
    for (int64_t first = 0, rows; first < n && status == FV_OK; first += rows) {
        rows = fvi_min(p->narrow, n - first);
        float *normed = p->normed + first * d;
        const double at = fvi_seconds();
        fvi_rows_norm(m->ctx, &m->rowop, rows, d, p->x + first * d, add ? normed : NULL, w->layer[layer].attn_norm, w->eps,
                      normed);
        fvi_lap(at, &s->times.rows);
        status = project(s, p, layer, first, rows, phase);
    }
    if (status == FV_OK) {
        status = attend(s, p, layer, n, phase);
    }
    for (int64_t first = 0, rows; first < n && status == FV_OK; first += rows) {
        rows = fvi_min(p->narrow, n - first);
        status = feed_forward(s, p, layer, first, rows, phase);
    }
    return status;
}

static fv_status llama_forward(fv_session *s, const fvi_pass *p, const int32_t *tokens, int64_t n, fv_phase phase) {
    fv_model *m = s->model;
    const llama *w = m->weights;
    double at = fvi_seconds();
    fv_status status = fvi_linear_rows(m->gemm, &w->embedding.w, tokens, n, p->x);
    table_job table = {m, s->ran, n, p->cos_sin};
    fvi_parallel(m->ctx, fvi_ceil_div(n, TABLE_ROWS), table_item, &table);
    fvi_lap(at, &s->times.embed);
    for (int i = 0; i < w->n_layers && status == FV_OK; i++) {
        status = layer_pass(s, p, i, i > 0, n, phase);
        if (status == FV_OK && fvi_cancelled(m->ctx)) {
            status = fvi_fail(m->ctx, FV_ERR_CANCELLED, "cancelled in layer %d of %d", i + 1, w->n_layers);
        }
        if (status == FV_OK) {
            status = fvi_session_tick(s, i + 1, w->n_layers, n);
        }
    }
    if (status == FV_OK) {
        at = fvi_seconds();
        fvi_rows_add(m->ctx, &m->rowop, n, m->facts.d_model, p->x, p->normed);
        fvi_lap(at, &s->times.rows);
    }
    return status;
}

static fv_status llama_head(fv_model *m, const float *hidden, int64_t n, fv_phase phase, float *normed, float *logits) {
    const llama *w = m->weights;
    const int64_t d = m->facts.d_model;
    fvi_rmsnorm(&m->rowop, n, d, hidden, w->norms + 2 * (int64_t)w->n_layers * d, w->eps, normed);
    fv_status status = multiply(m, phase, (const fvi_linear *[]){head_of(w)}, (float *[]){logits}, 1, normed, n);
    return status == FV_OK && fvi_cancelled(m->ctx) ? fvi_fail(m->ctx, FV_ERR_CANCELLED, "cancelled in the head") : status;
}

const fvi_arch fvi_arch_llama = {
    .name = "llama",
    .load = llama_load,
    .unload = llama_unload,
    .scratch = llama_scratch,
    .forward = llama_forward,
    .head = llama_head,
};
