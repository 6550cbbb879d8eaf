/* rowop_avx512.c - rowop.h at level avx512. */
#include "kernel/rowop_inline.h"

static void swiglu(int64_t n, const float *gate, const float *up, float *out) { rowop_swiglu(n, gate, up, out); }
static void exp_shift(int64_t n, const float *x, float shift, float *out) { rowop_exp_shift(n, x, shift, out); }
static void add(int64_t n, float *x, const float *y) { rowop_add(n, x, y); }
static void mix(int64_t n, float *x, float a, const float *y, float b) { rowop_mix(n, x, a, y, b); }
static void scale(int64_t n, const float *x, float by, float *out) { rowop_scale(n, x, by, out); }
static void hide(int64_t rows, const uint64_t *seen, float *s) { rowop_hide(rows, seen, s); }
static void norm(int64_t d, const float *x, const float *weight, float eps, float *out) { rowop_norm(d, x, weight, eps, out); }
static void turn_pairs(int64_t d, const float *cos_sin, float *x) { rowop_turn_pairs(d, cos_sin, x); }
static void turn_halves(int64_t d, const float *cos_sin, float *x) { rowop_turn_halves(d, cos_sin, x); }

void fvi_rowop_avx512(fvi_rowop_ops *ops) {
    *ops = (fvi_rowop_ops){.swiglu = swiglu,
                           .exp_shift = exp_shift,
                           .add = add,
                           .mix = mix,
                           .scale = scale,
                           .hide = hide,
                           .norm = norm,
                           .turn_pairs = turn_pairs,
                           .turn_halves = turn_halves};
}
