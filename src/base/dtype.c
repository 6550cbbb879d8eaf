/* dtype.c - names and sizes of element types, and plain views. */
#include "base/base.h"

const char *fv_dtype_name(fv_dtype dtype) {
    static const char *const name[FV_DTYPE_COUNT] = {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "i32", "u8"};
    return (unsigned)dtype < FV_DTYPE_COUNT ? name[dtype] : dtype == FV_AUTO ? "auto" : "unknown";
}

size_t fv_dtype_bytes(fv_dtype dtype, int64_t n) {
    static const struct {
        uint8_t block, bytes;
    } size[FV_DTYPE_COUNT] = {{1, 4}, {1, 2}, {1, 2}, {32, 34}, {32, 18}, {32, 20}, {1, 4}, {1, 1}};
    if ((unsigned)dtype >= FV_DTYPE_COUNT || n < 0 || n % size[dtype].block != 0) {
        return 0;
    }
    size_t bytes;
    return fvi_mul((size_t)(n / size[dtype].block), size[dtype].bytes, &bytes) ? bytes : 0;
}

fv_tensor fv_tensor_view(const void *data, fv_dtype dtype, int64_t b, int64_t h, int64_t n, int64_t d) {
    return (fv_tensor){
        .data = (void *)(uintptr_t)data, .dtype = dtype, .rank = 4, .shape = {b, h, n, d}, .stride = {h * n * d, n * d, d, 1}};
}
