/* dlpack.c - tensors in and out by DLPack, the C layout in which array libraries lend each other memory.
 * https://dmlc.github.io/dlpack/latest/c_api.html: the structs below are its unversioned ABI, which does not change. */
#include "base/base.h"

enum { DL_CPU = 1, DL_FLOAT = 2, DL_BFLOAT = 4 };

typedef struct dl_tensor {
    void *data;
    int32_t device_type, device_id;
    int32_t ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape;
    int64_t *strides; /* in elements; NULL: contiguous */
    uint64_t byte_offset;
} dl_tensor;

typedef struct dl_managed {
    dl_tensor tensor;
    void *manager_ctx;
    void (*deleter)(struct dl_managed *self);
} dl_managed;

/* What dl_managed.tensor points into, in one allocation. It keeps the allocator, not the context: a tensor that was lent
 * may be given back after its context is gone. */
typedef struct wrapper {
    dl_managed managed;
    int64_t shape[4], stride[4];
    fv_allocator allocator;
} wrapper;

static bool dtype_of(const dl_tensor *t, fv_dtype *out) {
    if (t->lanes != 1) {
        return false;
    }
    if (t->code == DL_BFLOAT && t->bits == 16) {
        *out = FV_BF16;
        return true;
    }
    if (t->code == DL_FLOAT && (t->bits == 32 || t->bits == 16)) {
        *out = t->bits == 32 ? FV_F32 : FV_F16;
        return true;
    }
    return false;
}

fv_status fv_tensor_from_dlpack(fv_context *ctx, const void *dl, fv_tensor *out) {
    const dl_tensor *t = dl;
    if (t == NULL) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "the DLTensor is NULL");
    }
    if (t->device_type != DL_CPU) {
        return fvi_fail(ctx, FV_ERR_UNSUPPORTED, "the DLTensor is on device type %d; only the CPU (1) can be read",
                        t->device_type);
    }
    fv_tensor v = {.rank = 4};
    if (!dtype_of(t, &v.dtype)) {
        return fvi_fail(
            ctx, FV_ERR_UNSUPPORTED,
            "the DLTensor's type is code %d of %d bits in %d lanes; float (2) of 32 or 16 bits or bfloat (4) of 16, in "
            "one lane, can be read",
            t->code, t->bits, t->lanes);
    }
    if (t->ndim != 3 && t->ndim != 4) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "the DLTensor has rank %d; 3 (h, n, d) or 4 (b, h, n, d) is right", t->ndim);
    }
    int lead = 4 - t->ndim;
    int64_t dense = 1;
    for (int i = 3; i >= 0; i--) {
        int64_t n = i < lead ? 1 : t->shape[i - lead];
        if (n < 0) {
            return fvi_fail(ctx, FV_ERR_ARGUMENT, "axis %d of the DLTensor has the negative length %lld", i - lead, (long long)n);
        }
        v.shape[i] = n;
        v.stride[i] = t->strides != NULL && i >= lead ? t->strides[i - lead] : dense;
        if (__builtin_mul_overflow(dense, fvi_max(n, 1), &dense)) {
            return fvi_fail(ctx, FV_ERR_ARGUMENT, "the DLTensor's shape overflows 64 bits at axis %d", i - lead);
        }
    }
    v.data = t->data == NULL ? NULL : (char *)t->data + t->byte_offset;
    *out = v;
    return FV_OK;
}

static void release_wrapper(dl_managed *self) {
    wrapper *w = self->manager_ctx;
    fv_allocator a = w->allocator;
    a.free(a.user, w, sizeof *w);
}

fv_status fv_tensor_to_dlpack(fv_context *ctx, const fv_tensor *view, void **out_managed) {
    static const struct {
        uint8_t code, bits;
    } type[] = {[FV_F32] = {DL_FLOAT, 32}, [FV_F16] = {DL_FLOAT, 16}, [FV_BF16] = {DL_BFLOAT, 16}};
    *out_managed = NULL;
    if ((unsigned)view->dtype >= sizeof type / sizeof *type) {
        return fvi_fail(ctx, FV_ERR_UNSUPPORTED, "DLPack has no type for %s; f32, f16 and bf16 can be lent",
                        fv_dtype_name(view->dtype));
    }
    if (view->rank < 1 || view->rank > 4) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "the view has rank %d; 1 to 4 is right", view->rank);
    }
    wrapper *w = fvi_zalloc(ctx, 1, sizeof *w);
    if (w == NULL) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for a DLPack wrapper of %zu bytes", sizeof *w);
    }
    for (int i = 0; i < view->rank; i++) {
        w->shape[i] = view->shape[i];
        w->stride[i] = view->stride[i];
    }
    w->allocator = ctx->allocator;
    w->managed = (dl_managed){.tensor = {.data = view->data,
                                         .device_type = DL_CPU,
                                         .ndim = view->rank,
                                         .code = type[view->dtype].code,
                                         .bits = type[view->dtype].bits,
                                         .lanes = 1,
                                         .shape = w->shape,
                                         .strides = w->stride},
                              .manager_ctx = w,
                              .deleter = release_wrapper};
    *out_managed = &w->managed;
    return FV_OK;
}
