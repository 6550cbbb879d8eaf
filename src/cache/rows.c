/* rows.c - every pair of types; halves of different kinds go through f32, which holds both exactly: one rounding. */
#include "cache/rows.h"

#include "kernel/convert.h"

static void copy_4(void *to, const void *from, int64_t n) { memcpy(to, from, (size_t)n * 4); }
static void copy_2(void *to, const void *from, int64_t n) { memcpy(to, from, (size_t)n * 2); }
static void f16_from_f32(void *to, const void *from, int64_t n) { fvi_convert_to_f16(n, from, to); }
static void bf16_from_f32(void *to, const void *from, int64_t n) { fvi_convert_to_bf16(n, from, to); }
static void f32_from_f16(void *to, const void *from, int64_t n) { fvi_convert_to_f32(FV_F16, from, n, to); }
static void f32_from_bf16(void *to, const void *from, int64_t n) { fvi_convert_to_f32(FV_BF16, from, n, to); }

static void by_way_of_f32(fv_dtype type, uint16_t *to, const uint16_t *from, int64_t n,
                          void (*narrow)(int64_t n, const float *x, uint16_t *out)) {
    float wide[256];
    for (int64_t i = 0; i < n; i += 256) {
        int64_t some = fvi_min(256, n - i);
        fvi_convert_to_f32(type, from + i, some, wide);
        narrow(some, wide, to + i);
    }
}

static void bf16_from_f16(void *to, const void *from, int64_t n) { by_way_of_f32(FV_F16, to, from, n, fvi_convert_to_bf16); }
static void f16_from_bf16(void *to, const void *from, int64_t n) { by_way_of_f32(FV_BF16, to, from, n, fvi_convert_to_f16); }

fvi_row_move fvi_row_move_find(const fvi_cpu *cpu, fv_dtype to, fv_dtype from) {
    static const fvi_row_move move[3][3] = {
        [FV_F32] = {[FV_F32] = copy_4, [FV_F16] = f32_from_f16, [FV_BF16] = f32_from_bf16},
        [FV_F16] = {[FV_F32] = f16_from_f32, [FV_F16] = copy_2, [FV_BF16] = f16_from_bf16},
        [FV_BF16] = {[FV_F32] = bf16_from_f32, [FV_F16] = bf16_from_f16, [FV_BF16] = copy_2},
    };
#if defined(__x86_64__)
    if (cpu->avx2 && to == FV_F16 && from == FV_F32) {
        return fvi_row_f16_from_f32_avx2;
    }
#endif
    (void)cpu;
    return (unsigned)to < 3 && (unsigned)from < 3 ? move[to][from] : NULL;
}
