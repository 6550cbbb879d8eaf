/* bind.c - every tensor that is asked for is held against the shape that the metadata imply, before anything multiplies. */
#include "model/bind.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

fv_status fvi_binder_init(fvi_binder *b, fv_model *model) {
    *b = (fvi_binder){.model = model, .n = fvi_max(model->gguf->n_tensors, 1)};
    b->used = fvi_zalloc(model->ctx, (size_t)b->n, sizeof *b->used);
    return b->used != NULL ? FV_OK : fvi_fail(model->ctx, FV_ERR_MEMORY, "no memory for the directory of weights");
}

void fvi_binder_release(fvi_binder *b) {
    fvi_release(b->model->ctx, b->used, (size_t)b->n, sizeof *b->used);
    b->used = NULL;
}

fv_status fvi_binder_finish(const fvi_binder *b) {
    const fvi_gguf *g = b->model->gguf;
    for (int64_t i = 0; i < g->n_tensors; i++) {
        if (!b->used[i]) {
            const fvi_string name = g->tensor[i].name;
            return fvi_fail(
                b->model->ctx, FV_ERR_UNSUPPORTED,
                "%s: tensor %.*s is no part of a %s model as it is run here; to leave it out would give wrong results", g->path,
                (int)fvi_min((int64_t)name.size, 64), name.data, b->model->arch->name);
        }
    }
    return FV_OK;
}

fv_status fvi_bind_number(fv_model *model, const char *field, bool required, int64_t most, int64_t *inout) {
    char key[96];
    uint32_t v = (uint32_t)*inout;
    snprintf(key, sizeof key, "%s.%s", model->arch->name, field);
    fv_status status = fvi_gguf_u32(model->gguf, key, required, 1, (uint32_t)most, &v);
    *inout = v;
    return status;
}

/* The tensor with its shape checked; n1 = 1 for a vector. NULL if it is absent and not required. */
static fv_status find(fvi_binder *b, const char *name, bool required, int64_t n0, int64_t n1, const fvi_gguf_tensor **out) {
    const fvi_gguf *g = b->model->gguf;
    const fvi_gguf_tensor *t = *out = fvi_gguf_find_tensor(g, name);
    if (t == NULL) {
        return required ? fvi_fail(b->model->ctx, FV_ERR_FORMAT, "%s: tensor %s is missing", g->path, name) : FV_OK;
    }
    b->used[t - g->tensor] = true;
    int64_t shape[4] = {1, 1, 1, 1};
    memcpy(shape, t->shape, (size_t)t->rank * sizeof *shape);
    if (shape[0] != n0 || shape[1] != n1 || shape[2] != 1 || shape[3] != 1) {
        return fvi_fail(b->model->ctx, FV_ERR_FORMAT,
                        "%s: tensor %s at offset %llu is %lld x %lld x %lld x %lld; by the metadata it must be %lld x %lld",
                        g->path, name, (unsigned long long)t->offset, (long long)shape[0], (long long)shape[1],
                        (long long)shape[2], (long long)shape[3], (long long)n0, (long long)n1);
    }
    return FV_OK;
}

void fvi_matrix_name(fvi_matrix *to, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(to->name, sizeof to->name, format, args);
    va_end(args);
}

fv_status fvi_bind_matrix(fvi_binder *b, fvi_matrix *to, bool required, int64_t n_in, int64_t n_out) {
    const fvi_gguf_tensor *t;
    fv_status status = find(b, to->name, required, n_in, n_out, &t);
    if (status != FV_OK || t == NULL) {
        return status;
    }
    if (t->dtype > FV_Q4_1) {
        return fvi_fail(b->model->ctx, FV_ERR_UNSUPPORTED, "%s: tensor %s is %s, which is no type of weights",
                        b->model->gguf->path, to->name, fv_dtype_name(t->dtype));
    }
    to->w = (fvi_linear){.name = to->name, .data = t->data, .dtype = t->dtype, .n_in = n_in, .n_out = n_out};
    return FV_OK;
}

fv_status fvi_bind_vector(fvi_binder *b, const char *name, int64_t n, float *out) {
    const fvi_gguf_tensor *t;
    fv_status status = find(b, name, true, n, 1, &t);
    if (status != FV_OK) {
        return status;
    }
    if (t->dtype > FV_BF16) {
        return fvi_fail(b->model->ctx, FV_ERR_UNSUPPORTED, "%s: tensor %s is %s; vectors must be f32, f16 or bf16",
                        b->model->gguf->path, name, fv_dtype_name(t->dtype));
    }
    const fvi_linear row = {.name = name, .data = t->data, .dtype = t->dtype, .n_in = n, .n_out = 1};
    return fvi_linear_rows(b->model->gemm, &row, &(int32_t){0}, 1, out);
}
