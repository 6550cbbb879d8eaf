/* f16 and bf16 against definitions in double: every pattern there and back, and rounding to nearest even between neighbours. */
#include "base/base.h"
#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

typedef float (*widen)(uint16_t);
typedef uint16_t (*narrow)(float);

static float bf16_to_f32(uint16_t h) { return fvi_bf16_to_f32(h); }

/* sign, exponent and digits by the format's definition */
static double value_of(uint16_t h, int digits, int bias) {
    int exponents = 1 << (15 - digits), e = h >> digits & (exponents - 1), m = h & ((1 << digits) - 1);
    double sign = h >> 15 ? -1 : 1, one = ldexp(1, digits);
    if (e == exponents - 1) {
        return m == 0 ? sign * (double)INFINITY : (double)NAN;
    }
    return sign * (e == 0 ? ldexp(m / one, 1 - bias) : ldexp(1 + m / one, e - bias));
}

static void every_pattern(widen up, narrow down, int digits, int bias) {
    for (uint32_t h = 0; h < 0x10000; h++) {
        double want = value_of((uint16_t)h, digits, bias);
        float got = up((uint16_t)h);
        if (isnan(want)) {
            assert_true(isnan(got));
            assert_true(isnan(up(down(got))));
            continue;
        }
        if ((double)got != want || (signbit(got) != 0) != (h >> 15 == 1)) {
            fail_msg("pattern %04x is %.17g, expected %.17g", h, (double)got, want);
        }
        assert_int_equal(down(got), h);
    }
}

/* Between two neighbours a < b of the same sign: just below the middle goes to a, just above to b, the middle to the even one. */
static void rounding(widen up, narrow down, uint16_t infinity) {
    for (uint32_t h = 0; h + 1 < infinity; h++) {
        float a = up((uint16_t)h), b = up((uint16_t)(h + 1));
        float middle = (float)(((double)a + (double)b) / 2); /* exact: one digit more than the narrow type */
        assert_int_equal(down(nextafterf(middle, 0)), h);
        assert_int_equal(down(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(down(middle), (h & 1) == 0 ? h : h + 1);
        assert_int_equal(down(-middle), 0x8000u | ((h & 1) == 0 ? h : h + 1));
    }
    double last = up((uint16_t)(infinity - 1)), step = last - (double)up((uint16_t)(infinity - 2));
    if (last + step / 2 <= (double)3.4028234e38f) {
        assert_int_equal(down((float)(last + step / 2)), infinity);
        assert_int_equal(down(nextafterf((float)(last + step / 2), 0)), infinity - 1);
    }
    assert_int_equal(down(INFINITY), infinity);
    assert_int_equal(down(-INFINITY), 0x8000u | infinity);
}

/* Any float lands on a neighbour at most half a step away. */
static void random_floats(widen up, narrow down) {
    fvi_rng rng = {20240607};
    print_message("seed %llu\n", (unsigned long long)rng.state);
    for (int i = 0; i < 200000; i++) {
        float f = (float)ldexp(fvi_rng_unit(&rng) * 2 - 1, (int)fvi_rng_below(&rng, 40) - 25);
        uint16_t h = down(f);
        double error = fabs((double)up(h) - (double)f);
        if (h & 0x7fffu) {
            assert_true(error <= fabs((double)up((uint16_t)(h - 1)) - (double)f));
        }
        assert_true(error <= fabs((double)up((uint16_t)(h + 1)) - (double)f));
    }
}

static void f16_patterns(void **state) {
    (void)state;
    every_pattern(fvi_f16_to_f32, fvi_f32_to_f16, 10, 15);
}

static void f16_rounding(void **state) {
    (void)state;
    rounding(fvi_f16_to_f32, fvi_f32_to_f16, 0x7c00);
    random_floats(fvi_f16_to_f32, fvi_f32_to_f16);
}

static void bf16_patterns(void **state) {
    (void)state;
    every_pattern(bf16_to_f32, fvi_f32_to_bf16, 7, 127);
}

static void bf16_rounding(void **state) {
    (void)state;
    rounding(bf16_to_f32, fvi_f32_to_bf16, 0x7f80);
    random_floats(bf16_to_f32, fvi_f32_to_bf16);
    assert_int_equal(fvi_f32_to_bf16(3.4028234e38f), 0x7f80);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f16_patterns),
        cmocka_unit_test(f16_rounding),
        cmocka_unit_test(bf16_patterns),
        cmocka_unit_test(bf16_rounding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
