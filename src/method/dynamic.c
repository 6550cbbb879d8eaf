/* dynamic.c - registry rows: selectors that look at a prompt's queries and keys and need no training. */
#include "method/method.h"

static const fv_method_parameter block_topk_parameters[] = {
    {.name = "blocks", .help = "blocks of 64 keys that a block of queries visits", .value = 32, .least = 2, .most = 1 << 24},
    {.name = "density", .help = "or this share of the blocks it can see, if that is more", .value = 0, .least = 0, .most = 1},
};

static const fv_method_parameter flexprefill_parameters[] = {
    {.name = "gamma", .help = "share of the attention of the last rows that is covered", .value = 0.9, .least = 0, .most = 1},
    {.name = "tau", .help = "divergence below which a head's pattern is one of blocks", .value = 0.1, .least = 0, .most = 1},
    {.name = "min",
     .help = "keys that are kept at least, of columns and of diagonals",
     .value = 512,
     .least = 1,
     .most = 1 << 24},
};

static const fv_method_parameter minference_parameters[] = {
    {.name = "kind", .help = "0: vertical-slash, 1: block-sparse, 2: A-shape", .value = 0, .least = 0, .most = 2},
    {.name = "vertical", .help = "columns of a vertical-slash head", .value = 1000, .least = 0, .most = 1 << 30},
    {.name = "slash", .help = "diagonals of a vertical-slash head", .value = 6096, .least = 0, .most = 1 << 30},
    {.name = "blocks", .help = "blocks of 64 keys of a block-sparse head", .value = 100, .least = 1, .most = 1 << 24},
    {.name = "init", .help = "first keys of an A-shape head", .value = 100, .least = 0, .most = 1 << 30},
    {.name = "local", .help = "keys of its window, the query's own included", .value = 800, .least = 1, .most = 1 << 30},
};

static const fv_method_parameter oracle_parameters[] = {
    {.name = "mass", .help = "share of a query block's attention that is kept", .value = 0.95, .least = 0, .most = 1},
    {.name = "density", .help = "not 0: this share of the blocks it can see instead", .value = 0, .least = 0, .most = 1},
};

static const fv_method_parameter sample_attention_parameters[] = {
    {.name = "alpha", .help = "share of the sampled attention that the columns hold", .value = 0.95, .least = 0, .most = 1},
    {.name = "rows", .help = "share of the queries that is sampled", .value = 0.05, .least = 1e-4, .most = 1},
    {.name = "window", .help = "length of the window as a share of the keys", .value = 0.08, .least = 0, .most = 1},
};

static const fv_method_parameter xattention_parameters[] = {
    {.name = "stride", .help = "rows and keys of a group, a power of 2", .value = 8, .least = 2, .most = 128},
    {.name = "threshold", .help = "share of the estimated mass that is kept", .value = 0.9, .least = 0, .most = 1},
};

static const fvi_method_row row[] = {
    {.info = {.name = "block-topk",
              .title = "the blocks of keys whose means match a query block's mean best",
              .paper = "",
              .key = "",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = block_topk_parameters,
              .n_parameters = 2},
     .selector = &fvi_select_block_topk,
     .masks_only = true,
     .break_even = 3072},
    {.info = {.name = "flexprefill",
              .title = "columns and diagonals of blocks, or a map of blocks, as much as covers gamma of the attention",
              .paper = "Lai et al., FlexPrefill: A Context-Aware Sparse Attention Mechanism, ICLR 2025",
              .key = "flexprefill",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = flexprefill_parameters,
              .n_parameters = 3},
     .selector = &fvi_select_flexprefill,
     .masks_only = true,
     .break_even = 2048},
    {.info = {.name = "minference",
              .title = "each head by its pattern: columns and diagonals, blocks, or first keys and a window",
              .paper = "Jiang et al., MInference 1.0: Accelerating Pre-filling via Dynamic Sparse Attention, NeurIPS 2024",
              .key = "minference",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = minference_parameters,
              .n_parameters = 6},
     .selector = &fvi_select_minference,
     .masks_only = true,
     .profile = true,
     .break_even = 4096},
    {.info = {.name = "oracle",
              .title = "the blocks of keys that hold most of a query block's true attention",
              .paper = "",
              .key = "",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = oracle_parameters,
              .n_parameters = 2},
     .selector = &fvi_select_oracle,
     .masks_only = true},
    {.info = {.name = "sample-attention",
              .title = "a window, and the columns that hold most of a sample of rows' attention",
              .paper = "Zhu et al., SampleAttention: Near-Lossless Acceleration of Long Context LLM Inference, MLSys 2025",
              .key = "sample-attention",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = sample_attention_parameters,
              .n_parameters = 3},
     .selector = &fvi_select_sample_attention,
     .masks_only = true,
     .break_even = 1024},
    {.info = {.name = "xattention",
              .title = "blocks of 128 by 128 keys scored along antidiagonals",
              .paper = "Xu et al., XAttention: Block Sparse Attention with Antidiagonal Scoring, ICML 2025",
              .key = "",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = xattention_parameters,
              .n_parameters = 2},
     .selector = &fvi_select_xattention,
     .masks_only = true,
     .break_even = 1536},
};

const fvi_method_family fvi_methods_dynamic = {row, sizeof row / sizeof *row};
