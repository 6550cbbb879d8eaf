/* lab.c - see lab.h. */
#include "lab/lab.h"

#include <math.h>

int64_t fvi_lab_n_vocab(const fv_model *model) {
    fv_model_facts facts;
    fv_model_describe(model, &facts);
    return facts.n_vocab;
}

int32_t fvi_lab_bos(const fv_model *model) {
    const fv_vocab *vocab = fv_model_vocab(model);
    return fv_vocab_add_bos(vocab) ? fv_vocab_bos(vocab) : -1;
}

double fvi_lab_lse(const float *logits, int64_t n) {
    float most = logits[0];
    for (int64_t i = 1; i < n; i++) {
        most = logits[i] > most ? logits[i] : most;
    }
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += exp((double)logits[i] - most);
    }
    return most + log(sum);
}

int32_t fvi_lab_argmax(const float *logits, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return (int32_t)best;
}

double fvi_lab_cost(const fv_model *model, int64_t n) {
    fv_model_facts facts;
    fv_model_describe(model, &facts);
    double weights = 2 * (double)facts.parameters;
    double attention = (double)facts.layers * (double)(facts.h_q * (facts.d_k + facts.d_v)) * (double)n;
    return (double)n * (weights + attention);
}
