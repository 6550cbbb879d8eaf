#include "kernel/decode.h"
void fvi_decode_avx512(fvi_decode_ops *ops) { (void)ops; }
