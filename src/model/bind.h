/* bind.h - from a file's tensors to weights: what every architecture needs to read and check them. */
#ifndef FVI_BIND_H
#define FVI_BIND_H

#include "model/arch.h"

/* A matrix with its own name, which messages of later products use. */
typedef struct fvi_matrix {
    fvi_linear w; /* w.data NULL: absent */
    char name[48];
} fvi_matrix;

/* Which tensors of the file have been read. A tensor that nothing reads (a bias, say) would otherwise be lost in silence. */
typedef struct fvi_binder {
    fv_model *model;
    bool *used;
    int64_t n;
} fvi_binder;

fv_status fvi_binder_init(fvi_binder *b, fv_model *model);
void fvi_binder_release(fvi_binder *b);
/* FV_ERR_UNSUPPORTED with the name of the first tensor that was not read. */
fv_status fvi_binder_finish(const fvi_binder *b);

/* A whole number from 1 to `most` at "<architecture>.<field>"; stays as it is where it is absent and not required. */
fv_status fvi_bind_number(fv_model *model, const char *field, bool required, int64_t most, int64_t *inout);

/* The matrix `name` of n_out rows of n_in, named before the call by fvi_matrix_name. */
fv_status fvi_bind_matrix(fvi_binder *b, fvi_matrix *to, bool required, int64_t n_in, int64_t n_out);
void fvi_matrix_name(fvi_matrix *to, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Copies a vector of n out as f32: the file's may be f16 or bf16. */
fv_status fvi_bind_vector(fvi_binder *b, const char *name, int64_t n, float *out);

#endif
