/* rowop_avx512.c - rowop.h at level avx512. */
#include "kernel/rowop_inline.h"

static void swiglu(int64_t n, const float *gate, const float *up, float *out) { rowop_swiglu(n, gate, up, out); }
static void exp_shift(int64_t n, const float *x, float shift, float *out) { rowop_exp_shift(n, x, shift, out); }

void fvi_rowop_avx512(fvi_rowop_ops *ops) { *ops = (fvi_rowop_ops){.swiglu = swiglu, .exp_shift = exp_shift}; }
