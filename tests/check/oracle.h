/* oracle.h - attention as the header states it: one row at a time, unblocked, in double, on the data as stored. And `naive`, the
 * textbook computation that the kernels' error is measured against: scores and sums in f32, weights rounded to the type of V,
 * the output to its own type; and queries rounded to bf16 where a kernel takes its products in pairs of bf16. */
#ifndef TEST_ORACLE_H
#define TEST_ORACLE_H

#include "base/base.h"

/* Keys and values of one sequence and KV head, widened. */
typedef struct oracle {
    const fv_problem *p;
    const fv_run *run;
    int64_t sequence, n_q, n_kv, q_start, k_start, offset;
    double *k, *v;    /* (n_kv, d_k), (n_kv, d_v) */
    float *kf, *vf;   /* the same */
    double *score;    /* (n_kv), the last row's */
    double max_v;     /* largest |v| that a row asked for could see, so far */
    double max_terms; /* largest sum of |products| behind a score: what its rounding errors are in proportion to */
} oracle;

/* n_kv and offset follow from the run's tensors, or from kv_length, k_start and q_start. */
void oracle_open(oracle *o, const fv_problem *p, const fv_run *run, int64_t sequence, int64_t kv_head);
void oracle_close(oracle *o);

/* Query row i of the sequence, query head `head`: out (d_v) and the log-sum-exp. */
void oracle_row(oracle *o, int64_t head, int64_t i, double *out, double *lse);
/* `turn` 0, 1, 2 ...: the sum over d begins elsewhere, and the scale goes on q or on the score. A few rows may be lucky in one
 * order; the error of the naive computation is the largest over several. */
void naive_row(oracle *o, int64_t head, int64_t i, int turn, bool pairs, double *out, double *lse);

/* Element of a rank 4 tensor of f32, f16 or bf16. */
double tensor_get(const fv_tensor *t, int64_t b, int64_t h, int64_t i, int64_t c);
void tensor_set(const fv_tensor *t, int64_t b, int64_t h, int64_t i, int64_t c, float value);
/* `x` as the type can hold it. */
float rounded_to(fv_dtype dtype, float x);
/* Distance between neighbours of the type near x. */
double ulp_of(fv_dtype dtype, double x);

#endif
