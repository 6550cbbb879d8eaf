/* rows.h - rows of numbers moved from any of f32, f16, bf16 to any other, one function for each pair. */
#ifndef FVI_CACHE_ROWS_H
#define FVI_CACHE_ROWS_H

#include "base/base.h"

/* n contiguous numbers from `from` to `to`, rounded to nearest even; the two do not overlap. */
typedef void (*fvi_row_move)(void *to, const void *from, int64_t n);

/* NULL unless both are f32, f16 or bf16. The same bits for any processor. */
fvi_row_move fvi_row_move_find(const fvi_cpu *cpu, fv_dtype to, fv_dtype from);

void fvi_row_f16_from_f32_avx2(void *to, const void *from, int64_t n);

#endif
