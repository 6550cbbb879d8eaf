/* profile.c - see profile.h. */
#include "select/profile.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

fv_status fv_profile_create(fv_context *ctx, const char *method, int layers, int64_t heads, fv_profile **out) {
    *out = NULL;
    if (layers < 1 || layers > 1 << 16 || heads < 1 || heads > 1 << 16 || strlen(method) >= sizeof((*out)->method)) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "a profile of '%.80s' for %d layers of %lld heads: there are 1 to 65536 of both, and a name has up to 63 "
                        "characters",
                        method, layers, (long long)heads);
    }
    fv_profile *p = fvi_zalloc(ctx, 1, sizeof *p);
    if (p == NULL) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for a profile");
    }
    *p = (fv_profile){.ctx = ctx, .layers = layers, .heads = heads};
    snprintf(p->method, sizeof p->method, "%s", method);
    p->at = fvi_zalloc(ctx, (size_t)(layers * heads), sizeof *p->at);
    if (p->at == NULL) {
        fv_profile_destroy(p);
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for a profile of %d layers of %lld heads", layers, (long long)heads);
    }
    *out = p;
    return FV_OK;
}

void fv_profile_destroy(fv_profile *p) {
    if (p == NULL) {
        return;
    }
    for (int64_t i = 0; p->at != NULL && i < p->layers * p->heads; i++) {
        fvi_release(p->ctx, p->at[i].number, (size_t)p->at[i].n, sizeof(double));
    }
    fvi_release(p->ctx, p->at, (size_t)(p->layers * p->heads), sizeof *p->at);
    fvi_release(p->ctx, p, 1, sizeof *p);
}

const char *fv_profile_method(const fv_profile *p) { return p->method; }
int fv_profile_layers(const fv_profile *p) { return p->layers; }
int64_t fv_profile_heads(const fv_profile *p) { return p->heads; }
uint64_t fv_profile_model(const fv_profile *p) { return p->model; }
void fv_profile_set_model(fv_profile *p, uint64_t fingerprint) { p->model = fingerprint; }

fv_status fv_profile_set(fv_profile *p, int layer, int64_t head, const double *number, int64_t n) {
    if (layer < 0 || layer >= p->layers || head < 0 || head >= p->heads || n < 1) {
        return fvi_fail(p->ctx, FV_ERR_RANGE, "%lld numbers for layer %d, head %lld of a profile of %d layers of %lld heads",
                        (long long)n, layer, (long long)head, p->layers, (long long)p->heads);
    }
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(number[i])) {
            return fvi_fail(p->ctx, FV_ERR_ARGUMENT, "number %lld for layer %d, head %lld of a profile is not finite",
                            (long long)i, layer, (long long)head);
        }
    }
    double *copy = fvi_alloc(p->ctx, (size_t)n, sizeof *copy);
    if (copy == NULL) {
        return fvi_fail(p->ctx, FV_ERR_MEMORY, "no memory for %lld numbers of a profile", (long long)n);
    }
    memcpy(copy, number, (size_t)n * sizeof *copy);
    fvi_numbers *at = &p->at[layer * p->heads + head];
    fvi_release(p->ctx, at->number, (size_t)at->n, sizeof *copy);
    *at = (fvi_numbers){copy, n};
    return FV_OK;
}

const double *fv_profile_get(const fv_profile *p, int layer, int64_t head, int64_t *n) {
    *n = 0;
    if (layer < 0 || layer >= p->layers || head < 0 || head >= p->heads) {
        return NULL;
    }
    const fvi_numbers *at = &p->at[layer * p->heads + head];
    *n = at->n;
    return at->number;
}
