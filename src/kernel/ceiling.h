/* ceiling.h - what the machine can do at most: loops with nothing but the instruction measured, in independent chains. */
#ifndef FVI_CEILING_H
#define FVI_CEILING_H

#include "base/base.h"

/* Before each loop over chains in C: they must stay in registers at any level of optimisation. Chains begin with different
 * values: equal ones are one chain to a compiler, and the ceiling would read several times too high. */
#ifdef __clang__
#define FVI_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FVI_UNROLL _Pragma("GCC unroll 16")
#endif

/* Runs `steps` steps, at least 1. x: 16 floats that the compiler knows nothing of; the result goes to sink[0..15] so that work
 * is done. */
typedef void (*fvi_ceiling_loop)(int64_t steps, const float *x, float *sink);

typedef struct fvi_ceiling_op {
    fvi_ceiling_loop loop; /* NULL: the processor has no such instruction */
    double work;           /* operations of a step */
} fvi_ceiling_op;

/* Reads n bytes (a multiple of FVI_READ_UNIT, 64-byte aligned); the answer depends on all of them. */
typedef uint64_t (*fvi_ceiling_read)(const void *p, size_t n);
enum { FVI_READ_UNIT = 4096, FVI_READS = 4 };

typedef struct fvi_ceiling_ops {
    fvi_ceiling_op fma_f32, dot_bf16, dot_int8, amx_bf16, clock;
    fvi_ceiling_read read[FVI_READS]; /* ways to read, of which a machine likes one best */
} fvi_ceiling_ops;

/* Portable C first, then overwritten level by level up to what `cpu` allows. */
void fvi_ceiling_pick(const fvi_cpu *cpu, fvi_ceiling_ops *ops);

void fvi_ceiling_c(fvi_ceiling_ops *ops);
void fvi_ceiling_avx2(fvi_ceiling_ops *ops);
void fvi_ceiling_avx512(fvi_ceiling_ops *ops);
void fvi_ceiling_avx512bf16(fvi_ceiling_ops *ops);
void fvi_ceiling_avx512vnni(fvi_ceiling_ops *ops);
void fvi_ceiling_amx(fvi_ceiling_ops *ops);

#endif
