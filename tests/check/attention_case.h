/* attention_case.h - random attention problems with their operands inside poisoned buffers. */
#ifndef TEST_ATTENTION_CASE_H
#define TEST_ATTENTION_CASE_H

#include "base/base.h"
#include "base/rng.h"
#include "poison.h"

typedef enum mask_kind {
    MASK_FULL,
    MASK_CAUSAL,
    MASK_CAUSAL_OFFSET,
    MASK_WINDOW,
    MASK_WINDOW_SINKS,
    MASK_WINDOW_BOTH,
    MASK_KEYS,
    MASK_LENGTHS,
    MASK_PACKED,
    MASK_KINDS
} mask_kind;

enum { WIDTH_KINDS = 8, DTYPE_KINDS = 4, MOST_SEQUENCES = 4 };

/* A tensor with a layout of its own: padded rows, interleaved heads, elements apart, negative or zero strides. */
typedef struct operand {
    fv_tensor t;
    guard g;
    unsigned char *kept; /* the buffer's bytes before the run */
} operand;

typedef struct attention_case {
    fv_problem p;
    fv_run run;
    operand q, k, v, out, bias;
    guard lse, mask;
    int32_t q_start[MOST_SEQUENCES + 1], k_start[MOST_SEQUENCES + 1], kv_length[MOST_SEQUENCES];
    float slopes[64], sink_logits[64];
    mask_kind mask_kind;
    int width_kind, dtype_kind;
    double deviation;
    char text[400];
} attention_case;

/* Most multiply-adds of QK over all rows and heads; the oracle goes over each row asked for. */
typedef struct case_limits {
    double pairs_times_width;
    int64_t most_keys;
} case_limits;

/* The `index`-th of a series: kinds of mask, width and dtype take turns by index, all else comes from rng. */
void case_make(attention_case *c, fvi_rng *rng, int64_t index, const case_limits *limits);
void case_free(attention_case *c);
/* Fills out and lse with poison again. */
void case_reset(attention_case *c);
/* plan, workspace inside guards, run; on a broken guard or a changed input prints and returns FV_ERR_STATE. */
fv_status case_run(fv_context *ctx, attention_case *c);
/* Whether the run wrote only its rows: call when out has been read; overwrites out. */
bool case_out_is_clean(attention_case *c);

/* A contiguous tensor in a guard, filled with normal deviates rounded to the dtype. */
operand operand_normal(fvi_rng *rng, fv_dtype dtype, int64_t b, int64_t h, int64_t n, int64_t d, double deviation);
void operand_free(operand *o);
double normal(fvi_rng *rng);

#endif
