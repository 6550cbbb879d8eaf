/* decode_avx2.c - products of generated tokens for AVX2 and FMA. */
#include "kernel/decode.h"

void fvi_decode_avx2(fvi_decode_ops *ops) { (void)ops; }
