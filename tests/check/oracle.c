/* oracle.c - see oracle.h. Speed comes only from widening K and V once for all rows of a head. */
#include "oracle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static unsigned char *place(const fv_tensor *t, int64_t b, int64_t h, int64_t i, int64_t c) {
    int64_t at = b * t->stride[0] + h * t->stride[1] + i * t->stride[2] + c * t->stride[3];
    return (unsigned char *)t->data + at * (t->dtype == FV_F32 ? 4 : 2);
}

double tensor_get(const fv_tensor *t, int64_t b, int64_t h, int64_t i, int64_t c) {
    const unsigned char *p = place(t, b, h, i, c);
    float f;
    uint16_t u;
    if (t->dtype == FV_F32) {
        memcpy(&f, p, sizeof f);
        return (double)f;
    }
    memcpy(&u, p, sizeof u);
    return (double)(t->dtype == FV_F16 ? fvi_f16_to_f32(u) : fvi_bf16_to_f32(u));
}

void tensor_set(const fv_tensor *t, int64_t b, int64_t h, int64_t i, int64_t c, float value) {
    unsigned char *p = place(t, b, h, i, c);
    uint16_t u = t->dtype == FV_F16 ? fvi_f32_to_f16(value) : fvi_f32_to_bf16(value);
    memcpy(p, t->dtype == FV_F32 ? (void *)&value : (void *)&u, t->dtype == FV_F32 ? sizeof value : sizeof u);
}

float rounded_to(fv_dtype dtype, float x) {
    return dtype == FV_F16 ? fvi_f16_to_f32(fvi_f32_to_f16(x)) : dtype == FV_BF16 ? fvi_bf16_to_f32(fvi_f32_to_bf16(x)) : x;
}

double ulp_of(fv_dtype dtype, double x) {
    int digits = dtype == FV_F32 ? 23 : dtype == FV_F16 ? 10 : 7;
    return x == 0 ? 0 : ldexp(1.0, ilogb(x) - digits);
}

static double *widened(const fv_tensor *t, int64_t b, int64_t h, int64_t start, int64_t n, int64_t d, float **narrow) {
    double *x = malloc((size_t)(n * d + 1) * sizeof *x);
    *narrow = malloc((size_t)(n * d + 1) * sizeof **narrow);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t c = 0; c < d; c++) {
            x[i * d + c] = tensor_get(t, b, h, start + i, c);
            (*narrow)[i * d + c] = (float)x[i * d + c];
        }
    }
    return x;
}

void oracle_open(oracle *o, const fv_problem *p, const fv_run *run, int64_t sequence, int64_t kv_head) {
    *o = (oracle){.p = p, .run = run, .sequence = sequence, .n_q = run->q.shape[2], .n_kv = run->k.shape[2]};
    if (p->packed) {
        o->q_start = run->q_start[sequence];
        o->k_start = run->k_start[sequence];
        o->n_q = run->q_start[sequence + 1] - o->q_start;
        o->n_kv = run->k_start[sequence + 1] - o->k_start;
    } else if (run->kv_length != NULL) {
        o->n_kv = run->kv_length[sequence];
    }
    o->offset = p->offset_set ? p->offset : o->n_kv - o->n_q;
    int64_t batch = p->packed ? 0 : sequence;
    o->k = widened(&run->k, batch, kv_head, o->k_start, o->n_kv, p->d_k, &o->kf);
    o->v = widened(&run->v, batch, kv_head, o->k_start, o->n_kv, p->d_v, &o->vf);
    o->score = malloc((size_t)(o->n_kv + 1) * sizeof *o->score);
}

void oracle_close(oracle *o) {
    free(o->k);
    free(o->v);
    free(o->kf);
    free(o->vf);
    free(o->score);
}

static bool visible(const oracle *o, int64_t position, int64_t j) {
    const fv_problem *p = o->p;
    int64_t mask_row = p->packed ? o->k_start : o->sequence * o->run->k.shape[2];
    if (p->has_key_mask && o->run->key_mask[mask_row + j] == 0) {
        return false;
    }
    if (p->causal && j > position) {
        return false;
    }
    int64_t distance = position > j ? position - j : j - position;
    return p->window == 0 || distance < p->window || j < p->sinks;
}

static double bias_of(const oracle *o, int64_t head, int64_t i, int64_t j) {
    return o->p->has_bias ? tensor_get(&o->run->bias, o->sequence, head, i, j) : 0;
}

static double alibi_of(const oracle *o, int64_t head, int64_t position, int64_t j) {
    return o->p->has_alibi ? (double)o->run->alibi_slopes[head] * fabs((double)(position - j)) : 0;
}

void oracle_row(oracle *o, int64_t head, int64_t i, double *out, double *lse) {
    const fv_problem *p = o->p;
    int64_t position = i + o->offset, batch = p->packed ? 0 : o->sequence;
    double scale = p->scale != 0 ? (double)p->scale : 1 / sqrt((double)p->d_k);
    double q[256], top = p->has_sink_logits ? (double)o->run->sink_logits[head] : -INFINITY;
    for (int64_t c = 0; c < p->d_k; c++) {
        q[c] = tensor_get(&o->run->q, batch, head, o->q_start + i, c);
    }
    for (int64_t j = 0; j < o->n_kv; j++) {
        o->score[j] = -INFINITY;
        if (!visible(o, position, j)) {
            continue;
        }
        double x = 0, terms = 0;
        for (int64_t c = 0; c < p->d_k; c++) {
            x += q[c] * o->k[j * p->d_k + c];
            terms += fabs(q[c] * o->k[j * p->d_k + c]);
        }
        x *= scale;
        o->max_terms = isfinite(terms) ? fmax(o->max_terms, fabs(scale) * terms) : o->max_terms;
        x = p->soft_cap > 0 ? (double)p->soft_cap * tanh(x / (double)p->soft_cap) : x;
        o->score[j] = x - alibi_of(o, head, position, j) + bias_of(o, head, i, j);
        top = fmax(top, o->score[j]);
    }
    memset(out, 0, (size_t)p->d_v * sizeof *out);
    *lse = -INFINITY;
    if (top == -INFINITY) {
        return;
    }
    double sum = p->has_sink_logits ? exp((double)o->run->sink_logits[head] - top) : 0;
    for (int64_t j = 0; j < o->n_kv; j++) {
        double w = exp(o->score[j] - top);
        sum += w;
        for (int64_t c = 0; c < p->d_v && o->score[j] != -INFINITY; c++) {
            out[c] += w * o->v[j * p->d_v + c];
            o->max_v = fmax(o->max_v, fabs(o->v[j * p->d_v + c]));
        }
    }
    for (int64_t c = 0; c < p->d_v; c++) {
        out[c] /= sum;
    }
    *lse = top + log(sum);
}

/* q k in f32, the sum begun at element `from`. */
static float naive_dot(const float *q, const float *k, int64_t d, int64_t from) {
    float x = 0;
    for (int64_t c = from; c < d; c++) {
        x += q[c] * k[c];
    }
    for (int64_t c = 0; c < from; c++) {
        x += q[c] * k[c];
    }
    return x;
}

void naive_row(oracle *o, int64_t head, int64_t i, int turn, bool pairs, double *out, double *lse) {
    const fv_problem *p = o->p;
    int64_t position = i + o->offset, batch = p->packed ? 0 : o->sequence;
    float scale = p->scale != 0 ? p->scale : 1 / sqrtf((float)p->d_k);
    float q[256], acc[256] = {0}, top = p->has_sink_logits ? o->run->sink_logits[head] : -INFINITY;
    for (int64_t c = 0; c < p->d_k; c++) {
        float x = (float)tensor_get(&o->run->q, batch, head, o->q_start + i, c);
        q[c] = (pairs ? rounded_to(FV_BF16, x) : x) * (turn % 2 == 0 ? 1 : scale);
    }
    for (int64_t j = 0; j < o->n_kv; j++) {
        o->score[j] = -INFINITY;
        if (!visible(o, position, j)) {
            continue;
        }
        float x = naive_dot(q, o->kf + j * p->d_k, p->d_k, turn / 2 * 37 % p->d_k);
        x = turn % 2 == 0 ? x * scale : x;
        x = p->soft_cap > 0 ? p->soft_cap * tanhf(x / p->soft_cap) : x;
        x = x - (float)alibi_of(o, head, position, j) + (float)bias_of(o, head, i, j);
        o->score[j] = (double)x;
        top = fmaxf(top, x);
    }
    float sum = p->has_sink_logits ? expf(o->run->sink_logits[head] - top) : 0;
    for (int64_t j = 0; j < o->n_kv; j++) {
        sum += o->score[j] == -INFINITY ? 0 : expf((float)o->score[j] - top);
    }
    for (int64_t j = 0; j < o->n_kv; j++) {
        float w = o->score[j] == -INFINITY ? 0 : rounded_to(o->run->v.dtype, expf((float)o->score[j] - top) / sum);
        for (int64_t c = 0; c < p->d_v && w != 0; c++) {
            acc[c] += w * o->vf[j * p->d_v + c];
        }
    }
    for (int64_t c = 0; c < p->d_v; c++) {
        out[c] = (double)rounded_to(p->out_dtype, acc[c]);
    }
    *lse = (double)(top + logf(sum));
}
