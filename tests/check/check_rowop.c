/* check_rowop.c - kernel/rowop.h at every level, kernel/convert.h and the ops of op/op.h, against double; and that a row's bits
 * do not depend on the rows beside it. */
#include "base/rng.h"
#include "kernel/convert.h"
#include "op/op.h"
#include "poison.h"

#include <math.h>

static int failures;

static void expect(bool ok, const char *what, const char *level, double value, double want) {
    if (!ok && failures++ < 20) {
        printf("FAIL %s %s: %.9g, should be %.9g\n", what, level, value, want);
    }
}

/* In units of the last place of `want`, which for subnormals is that of the smallest. */
static double ulps(float value, double want) {
    double place = ldexp(1, ilogb(fmax(fabs(want), 0x1p-126)) - 23);
    return fabs((double)value - want) / place;
}

static void check_exp(const fvi_rowop_ops *ops, const char *level) {
    double worst = 0, worst_silu = 0;
    enum { N = 1003 };
    guard x = guard_make(N * 4, 4, true), y = guard_make(N * 4, 4, true), up = guard_make(N * 4, 4, false);
    float *xv = (float *)x.data, *yv = (float *)y.data, *uv = (float *)up.data;
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < N; i++) {
            xv[i] = (float)(-87.3 + (87.3 + 88.7) * (i + N * round) / (200.0 * N));
            uv[i] = 1.5f;
        }
        ops->exp_shift(N, xv, 0, yv);
        for (int i = 0; i < N; i++) {
            worst = fmax(worst, ulps(yv[i], exp(xv[i])));
        }
        float alone;
        ops->exp_shift(1, xv + 77, 0, &alone);
        expect(memcmp(&alone, &yv[77], 4) == 0, "exp alone", level, alone, yv[77]);
        ops->swiglu(N, xv, uv, yv);
        for (int i = 0; i < N; i++) {
            worst_silu = fmax(worst_silu, ulps(yv[i], 1.5 * xv[i] / (1 + exp(-(double)xv[i]))));
        }
    }
    expect(worst <= 2, "exp, ulp", level, worst, 2);
    expect(worst_silu <= 6, "silu, ulp", level, worst_silu, 6);
    expect(guard_intact(&x) && guard_intact(&y) && guard_intact(&up), "guards", level, 0, 1);
    float special[] = {-104.5f, -INFINITY, 88.73f, INFINITY, NAN, 0.0f, -103.0f}, out[7];
    ops->exp_shift(7, special, 0, out);
    expect(out[0] == 0 && out[1] == 0 && isinf(out[2]) && isinf(out[3]) && isnan(out[4]) && out[5] == 1 && out[6] > 0,
           "exp at its ends", level, out[6], 0x1p-149);
    float far[] = {-200.0f, 200.0f}, one[] = {1.0f, 1.0f};
    ops->swiglu(2, far, one, out);
    expect(out[0] == 0 && out[1] == 200, "silu far out", level, out[1], 200);
    printf("%s: exp %.2f ulp, silu %.2f ulp\n", level, worst, worst_silu);
    guard_free(&x);
    guard_free(&y);
    guard_free(&up);
}

static void check_halves(void) {
    for (uint32_t h = 0; h < 0x10000; h++) {
        uint16_t half = (uint16_t)h, back[1];
        float f = fvi_convert_f16(half), g = fvi_f16_to_f32(half);
        expect(isnan(g) ? isnan(f) : memcmp(&f, &g, 4) == 0, "f16", "", f, g);
        fvi_convert_to_f16(1, &f, back);
        expect(isnan(f) || back[0] == half, "f16 and back", "", back[0], half);
        fvi_rng r = {h};
        uint32_t bits = (uint32_t)fvi_rng_next(&r);
        memcpy(&f, &bits, 4);
        fvi_convert_to_bf16(1, &f, back);
        expect(back[0] == fvi_f32_to_bf16(f), "bf16", "", back[0], fvi_f32_to_bf16(f));
    }
}

/* A level's conversions against level 0: the same bits, for any bits. */
static void check_convert(const fvi_convert_ops *ops, const char *level) {
    enum { N = 32 * 9 };
    static const fv_dtype types[] = {FV_F32, FV_F16, FV_BF16, FV_Q8_0, FV_Q4_0, FV_Q4_1};
    fvi_rng r = {11};
    for (int t = 0; t < 6; t++) {
        guard row = guard_make(fv_dtype_bytes(types[t], N), types[t] == FV_F32 ? 4 : 2, true), out = guard_make(N * 4, 4, true);
        float want[N];
        for (size_t i = 0; i < row.size; i++) {
            row.data[i] = (unsigned char)(fvi_rng_next(&r) & (i % 2 ? 0xbb : 0xff)); /* no NaN: their bits may differ */
        }
        fvi_convert_to_f32(types[t], row.data, N, want);
        expect(ops->to_f32(types[t], row.data, N, (float *)out.data), "a type's conversion", level, t, t);
        expect(memcmp(want, out.data, sizeof want) == 0 && guard_intact(&out), "bits of a conversion", level, t, t);
        guard_free(&row);
        guard_free(&out);
    }
    guard x = guard_make(1001 * 4, 4, true), half = guard_make(1001 * 2, 2, true);
    for (size_t i = 0; i < x.size; i++) {
        x.data[i] = (unsigned char)(i < 8 ? 0xff : fvi_rng_next(&r));
    }
    ops->to_bf16(1001, (const float *)x.data, (uint16_t *)half.data);
    for (int i = 0; i < 1001; i++) {
        uint16_t want = fvi_f32_to_bf16(((float *)x.data)[i]), is = ((uint16_t *)half.data)[i];
        expect(is == want, "bf16 of", level, is, want);
    }
    expect(guard_intact(&half), "wrote outside bf16", level, 0, 0);
    expect(!ops->to_f32(FV_I32, x.data, 1, (float *)half.data), "a type without conversion", level, 0, 0);
    guard_free(&x);
    guard_free(&half);
}

/* Element by element; and that what is not there is zero. */
static void check_pack(const fvi_convert_ops *ops, const char *level) {
    static const int64_t sizes[][2] = {{1, 1}, {64, 32}, {65, 33}, {16, 512}, {7, 95}, {130, 64}};
    for (int s = 0; s < 6; s++) {
        const int64_t n = sizes[s][0], k = sizes[s][1], columns = fvi_round_up(k, 32);
        guard w = guard_make((size_t)(n * k) * 2, 2, true), out = guard_make((size_t)fvi_convert_packed(n, k) * 2, 64, true);
        uint16_t *wv = (uint16_t *)w.data, *ov = (uint16_t *)out.data;
        for (int64_t i = 0; i < n * k; i++) {
            wv[i] = (uint16_t)(i % 65521 + 1);
        }
        ops->pack(n, k, wv, ov);
        for (int64_t r = 0; r < fvi_round_up(n, 64); r++) {
            for (int64_t c = 0; c < columns; c++) {
                uint16_t want = r < n && c < k ? wv[r * k + c] : 0;
                uint16_t is = ov[r / 64 * 64 * columns + c / 2 * 128 + r % 64 * 2 + c % 2];
                expect(is == want, "packed", level, is, want);
            }
        }
        expect(guard_intact(&w) && guard_intact(&out), "guards of packed", level, 0, 1);
        guard_free(&w);
        guard_free(&out);
    }
}

static void check_scale(const fvi_rowop_ops *ops, const char *level) {
    enum { N = 77 };
    guard x = guard_make(N * 4, 4, true), y = guard_make(N * 4, 4, true);
    float *xv = (float *)x.data, *yv = (float *)y.data;
    for (int i = 0; i < N; i++) {
        xv[i] = i % 5 == 0 ? -0.0f : (float)i - 30.25f;
    }
    ops->scale(N, xv, 1.0f / 3, yv);
    for (int i = 0; i < N; i++) {
        expect(yv[i] == xv[i] * (1.0f / 3) && (yv[i] != 0 || !signbit(yv[i])), "scale", level, yv[i], xv[i] * (1.0f / 3));
    }
    ops->scale(N, xv, 1.0f / 3, xv);
    expect(memcmp(xv, yv, N * 4) == 0, "scale in place", level, xv[1], yv[1]);
    expect(guard_intact(&x) && guard_intact(&y), "guards of scale", level, 0, 1);
    guard_free(&x);
    guard_free(&y);
}

static void check_rmsnorm(const fvi_rowop_ops *ops, const char *level) {
    static const int64_t widths[] = {1, 15, 16, 33, 512};
    for (int c = 0; c < 5; c++) {
        int64_t d = widths[c], m = 3;
        guard x = guard_make((size_t)(m * d) * 4, 4, true), w = guard_make((size_t)d * 4, 4, true);
        guard y = guard_make((size_t)(m * d) * 4, 4, true);
        float *xv = (float *)x.data, *wv = (float *)w.data, *yv = (float *)y.data;
        fvi_rng r = {(uint64_t)d};
        for (int64_t i = 0; i < m * d; i++) {
            xv[i] = (float)(fvi_rng_unit(&r) * 4 - 2);
            wv[i % d] = (float)fvi_rng_unit(&r);
        }
        fvi_rmsnorm(ops, m, d, xv, wv, 1e-5f, yv);
        for (int64_t row = 0; row < m; row++) {
            double sum = 0;
            for (int64_t i = 0; i < d; i++) {
                sum += (double)xv[row * d + i] * xv[row * d + i];
            }
            for (int64_t i = 0; i < d; i++) {
                double want = xv[row * d + i] / sqrt(sum / (double)d + 1e-5) * wv[i];
                double bound = ((double)d / 16 + 10) * 0x1p-24 * fabs(want);
                expect(fabs(yv[row * d + i] - want) <= bound, "rmsnorm", level, yv[row * d + i], want);
            }
        }
        float alone[512];
        fvi_rmsnorm(ops, 1, d, xv + d, wv, 1e-5f, alone);
        expect(memcmp(alone, yv + d, (size_t)d * 4) == 0, "rmsnorm alone", level, alone[0], yv[d]);
        float base[3 * 512], sum[3 * 512], add[3 * 512];
        for (int64_t i = 0; i < m * d; i++) {
            sum[i] = xv[i];
            add[i] = (float)fvi_rng_unit(&r);
        }
        fvi_rowop_ops plain;
        fvi_rowop_c(&plain);
        fvi_rmsnorm(&plain, m, d, xv, wv, 1e-5f, base);
        expect(memcmp(base, yv, (size_t)(m * d) * 4) == 0, "rmsnorm as at level c", level, yv[0], base[0]);
        for (int64_t i = 0; i < m * d; i++) {
            base[i] = sum[i] + add[i];
        }
        fvi_add_rmsnorm(ops, m, d, sum, add, wv, 1e-5f, add);
        expect(memcmp(base, sum, (size_t)(m * d) * 4) == 0, "sum before rmsnorm", level, sum[0], base[0]);
        fvi_rmsnorm(ops, m, d, base, wv, 1e-5f, base);
        expect(memcmp(base, add, (size_t)(m * d) * 4) == 0, "rmsnorm of a sum", level, add[0], base[0]);
        fvi_rmsnorm(ops, m, d, xv, wv, 1e-5f, xv);
        expect(memcmp(xv, yv, (size_t)(m * d) * 4) == 0, "rmsnorm in place", level, xv[0], yv[0]);
        expect(guard_intact(&x) && guard_intact(&y) && guard_intact(&w), "rmsnorm guards", level, 0, 1);
        guard_free(&x);
        guard_free(&w);
        guard_free(&y);
    }
}

static void check_rope(const fvi_rowop_ops *ops, bool interleaved, int64_t first, int64_t d) {
    enum { M = 5, H = 3 };
    int64_t d_head = d + 6;
    guard table = guard_make((size_t)(M * d) * 4, 4, true), x = guard_make((size_t)(M * H * d_head) * 4, 4, true);
    float *tv = (float *)table.data, *xv = (float *)x.data;
    float before[M * H * 70];
    fvi_rng r = {(uint64_t)(first + d)};
    for (int64_t i = 0; i < M * H * d_head; i++) {
        before[i] = xv[i] = (float)(fvi_rng_unit(&r) - 0.5);
    }
    fvi_rope_table(first, M, d, 10000, 1, tv);
    fvi_rope(ops, M, H, d_head, d, interleaved, tv, xv);
    for (int64_t row = 0; row < M * H; row++) {
        const float *from = before + row * d_head, *to = xv + row * d_head;
        for (int64_t j = 0; j < d / 2; j++) {
            int64_t a = interleaved ? 2 * j : j, b = interleaved ? 2 * j + 1 : j + d / 2;
            double angle = (double)(first + row / H) * pow(10000, -2.0 * (double)j / (double)d);
            double want_a = from[a] * cos(angle) - from[b] * sin(angle), want_b = from[a] * sin(angle) + from[b] * cos(angle);
            expect(fabs(to[a] - want_a) <= 0x1p-23, "rope", interleaved ? "interleaved" : "halves", to[a], want_a);
            expect(fabs(to[b] - want_b) <= 0x1p-23, "rope", interleaved ? "interleaved" : "halves", to[b], want_b);
        }
        expect(memcmp(from + d, to + d, (size_t)(d_head - d) * 4) == 0, "rope beyond d", "", to[d], from[d]);
    }
    expect(guard_intact(&table) && guard_intact(&x), "rope guards", "", 0, 1);
    guard_free(&table);
    guard_free(&x);
}

static void check_level(const fvi_rowop_ops *ops, const fvi_convert_ops *convert, const char *level) {
    static const int64_t firsts[] = {0, 1000, (1 << 20) - 5}, widths[] = {2, 32, 64};
    check_exp(ops, level);
    check_convert(convert, level);
    check_pack(convert, level);
    check_scale(ops, level);
    check_rmsnorm(ops, level);
    for (int i = 0; i < 9; i++) {
        check_rope(ops, true, firsts[i / 3], widths[i % 3]);
        check_rope(ops, false, firsts[i / 3], widths[i % 3]);
    }
}

int main(void) {
    fvi_cpu cpu = fvi_cpu_detect();
    fvi_rowop_ops ops;
    fvi_convert_ops convert;
    fvi_rowop_c(&ops);
    fvi_convert_c(&convert);
    check_level(&ops, &convert, "c");
#if defined(__x86_64__)
    if (cpu.avx2) {
        fvi_rowop_avx2(&ops);
        fvi_convert_avx2(&convert);
        check_level(&ops, &convert, "avx2");
    }
    if (cpu.avx512) {
        fvi_rowop_avx512(&ops);
        fvi_convert_avx512(&convert);
        check_level(&ops, &convert, "avx512");
    }
#else
    (void)cpu;
#endif
    check_halves();
    printf("row ops: %d failed\n", failures);
    return failures != 0;
}
