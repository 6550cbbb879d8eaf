/* quant_c.c - quant.h in portable C: level 0. */
#include "kernel/quant_inline.h"

void fvi_quant_c(fvi_quant_ops *ops) { *ops = quant_plain("c"); }
