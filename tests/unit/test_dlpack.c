/* DLPack in and out: layouts, offsets, types, devices and ranks that are refused. The ABI is written out once more here, from
 * its published description, so that a slip in the library's own structs shows. */
#include "fovea/attention.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct {
    int32_t device_type, device_id;
} DLDevice;
typedef struct {
    uint8_t code, bits;
    uint16_t lanes;
} DLDataType;
typedef struct {
    void *data;
    DLDevice device;
    int32_t ndim;
    DLDataType dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} DLTensor;
typedef struct DLManagedTensor {
    DLTensor dl_tensor;
    void *manager_ctx;
    void (*deleter)(struct DLManagedTensor *self);
} DLManagedTensor;

static fv_context *ctx;
static int64_t held; /* bytes of ours that are allocated */

static void *counting_alloc(void *user, size_t size) {
    *(int64_t *)user += (int64_t)size;
    return aligned_alloc(64, (size + 63) & ~(size_t)63);
}

static void counting_free(void *user, void *ptr, size_t size) {
    *(int64_t *)user -= (int64_t)size;
    free(ptr);
}

static int start(void **state) {
    (void)state;
    static const fv_allocator counting = {counting_alloc, counting_free, &held};
    return fv_context_create(&(fv_context_options){1, FV_LEVEL_C, &counting}, &ctx) == FV_OK ? 0 : -1;
}

static int stop(void **state) {
    (void)state;
    fv_context_destroy(ctx);
    return held == 0 ? 0 : -1;
}

static float numbers[2 * 3 * 5 * 7];
static int64_t shape4[] = {2, 3, 5, 7};

static DLTensor cpu_tensor(uint8_t code, uint8_t bits, int rank) {
    return (DLTensor){.data = numbers, .device = {1, 0}, .ndim = rank, .dtype = {code, bits, 1}, .shape = shape4 + 4 - rank};
}

static void assert_axes(const int64_t *got, int64_t a, int64_t b, int64_t c, int64_t d) {
    const int64_t want[] = {a, b, c, d};
    assert_memory_equal(got, want, sizeof want);
}

static void contiguous(void **state) {
    (void)state;
    DLTensor t = cpu_tensor(2, 32, 4);
    fv_tensor v;
    assert_int_equal(fv_tensor_from_dlpack(ctx, &t, &v), FV_OK);
    assert_ptr_equal(v.data, numbers);
    assert_int_equal(v.dtype, FV_F32);
    assert_int_equal(v.rank, 4);
    assert_axes(v.shape, 2, 3, 5, 7);
    assert_axes(v.stride, 105, 35, 7, 1);
}

static void rank_three_has_one_sequence(void **state) {
    (void)state;
    DLTensor t = cpu_tensor(2, 16, 3);
    fv_tensor v;
    assert_int_equal(fv_tensor_from_dlpack(ctx, &t, &v), FV_OK);
    assert_int_equal(v.dtype, FV_F16);
    assert_int_equal(v.rank, 4);
    assert_axes(v.shape, 1, 3, 5, 7);
    assert_int_equal(v.stride[1], 35);
}

static void strides_and_byte_offset(void **state) {
    (void)state;
    int64_t strides[] = {0, 7, 21, -1};
    DLTensor t = cpu_tensor(4, 16, 4);
    t.strides = strides;
    t.byte_offset = 12;
    fv_tensor v;
    assert_int_equal(fv_tensor_from_dlpack(ctx, &t, &v), FV_OK);
    assert_int_equal(v.dtype, FV_BF16);
    assert_ptr_equal(v.data, (char *)numbers + 12);
    assert_axes(v.stride, 0, 7, 21, -1);
}

static void refused(DLTensor t, fv_status status, const char *word) {
    fv_tensor v;
    assert_int_equal(fv_tensor_from_dlpack(ctx, &t, &v), status);
    if (strstr(fv_message(ctx), word) == NULL) {
        fail_msg("the message does not say '%s': %s", word, fv_message(ctx));
    }
}

static void wrong_ones_are_refused(void **state) {
    (void)state;
    DLTensor t = cpu_tensor(2, 32, 4);
    t.device.device_type = 2;
    refused(t, FV_ERR_UNSUPPORTED, "device type 2");
    refused(cpu_tensor(0, 32, 4), FV_ERR_UNSUPPORTED, "code 0");
    refused(cpu_tensor(2, 64, 4), FV_ERR_UNSUPPORTED, "64 bits");
    refused(cpu_tensor(4, 32, 4), FV_ERR_UNSUPPORTED, "code 4 of 32 bits");
    t = cpu_tensor(2, 32, 4);
    t.dtype.lanes = 4;
    refused(t, FV_ERR_UNSUPPORTED, "4 lanes");
    refused(cpu_tensor(2, 32, 2), FV_ERR_ARGUMENT, "rank 2");
    int64_t negative[] = {2, 3, -5, 7}, huge[] = {INT64_MAX, 3, 5, 7};
    t = cpu_tensor(2, 32, 4);
    t.shape = negative;
    refused(t, FV_ERR_ARGUMENT, "axis 2");
    t.shape = huge;
    refused(t, FV_ERR_ARGUMENT, "overflows");
    fv_tensor v;
    assert_int_equal(fv_tensor_from_dlpack(ctx, NULL, &v), FV_ERR_ARGUMENT);
}

static void lent_and_read_back(void **state) {
    (void)state;
    static const struct {
        fv_dtype dtype;
        uint8_t code, bits;
    } cases[] = {{FV_F32, 2, 32}, {FV_F16, 2, 16}, {FV_BF16, 4, 16}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fv_tensor view = fv_tensor_view(numbers, cases[i].dtype, 2, 3, 5, 7), back;
        view.stride[0] = -9;
        int64_t before = held;
        void *lent;
        assert_int_equal(fv_tensor_to_dlpack(ctx, &view, &lent), FV_OK);
        assert_true(held > before);
        DLManagedTensor *m = lent;
        assert_int_equal(m->dl_tensor.device.device_type, 1);
        assert_int_equal(m->dl_tensor.dtype.code, cases[i].code);
        assert_int_equal(m->dl_tensor.dtype.bits, cases[i].bits);
        assert_int_equal(m->dl_tensor.byte_offset, 0);
        assert_int_equal(fv_tensor_from_dlpack(ctx, &m->dl_tensor, &back), FV_OK);
        assert_memory_equal(&back, &view, sizeof view);
        m->deleter(m);
        assert_int_equal(held, before);
    }
}

static void given_back_after_its_context(void **state) {
    (void)state;
    int64_t bytes = 0;
    const fv_allocator counting = {counting_alloc, counting_free, &bytes};
    fv_context *other;
    assert_int_equal(fv_context_create(&(fv_context_options){1, FV_LEVEL_C, &counting}, &other), FV_OK);
    fv_tensor view = fv_tensor_view(numbers, FV_F32, 1, 1, 5, 7);
    void *lent;
    assert_int_equal(fv_tensor_to_dlpack(other, &view, &lent), FV_OK);
    fv_context_destroy(other);
    ((DLManagedTensor *)lent)->deleter(lent);
    assert_int_equal(bytes, 0);
}

static void what_has_no_type_is_not_lent(void **state) {
    (void)state;
    fv_tensor view = fv_tensor_view(numbers, FV_Q8_0, 1, 1, 1, 32);
    void *lent = numbers;
    assert_int_equal(fv_tensor_to_dlpack(ctx, &view, &lent), FV_ERR_UNSUPPORTED);
    assert_null(lent);
    assert_non_null(strstr(fv_message(ctx), "q8_0"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contiguous),
        cmocka_unit_test(rank_three_has_one_sequence),
        cmocka_unit_test(strides_and_byte_offset),
        cmocka_unit_test(wrong_ones_are_refused),
        cmocka_unit_test(lent_and_read_back),
        cmocka_unit_test(given_back_after_its_context),
        cmocka_unit_test(what_has_no_type_is_not_lent),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
