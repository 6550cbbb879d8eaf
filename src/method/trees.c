/* trees.c - registry rows: selectors that search, chunk or sort keys before they choose. */
#include "method/method.h"

static const fv_method_parameter dhsa_parameters[] = {
    {.name = "budget", .help = "keys that a block of 128 queries sees", .value = 2048, .least = 1, .most = 1 << 30},
    {.name = "density", .help = "this share of the chunks so far in place of a budget", .value = 0, .least = 0, .most = 1},
    {.name = "chunk", .help = "keys of a chunk, where no profile cuts", .value = 16, .least = 1, .most = 1 << 20},
    {.name = "local", .help = "last keys that are always seen", .value = 128, .least = 0, .most = 1 << 30},
    {.name = "sinks", .help = "first keys that are always seen", .value = 128, .least = 0, .most = 1 << 30},
    {.name = "norm", .help = "chunk means times the root of their length; 0: plain", .value = 1, .least = 0, .most = 1},
};

static const fv_method_parameter hip_parameters[] = {
    {.name = "k", .help = "keys that a search keeps", .value = 512, .least = 1, .most = 1 << 20},
    {.name = "block_q", .help = "queries that share a search: 16, 32 or 64", .value = 64, .least = 16, .most = 64},
    {.name = "block_k", .help = "keys of a leaf of the tree", .value = 2, .least = 1, .most = 64},
    {.name = "window", .help = "last keys that are always seen", .value = 256, .least = 64, .most = 1 << 30},
    {.name = "sinks", .help = "first keys that are always kept", .value = 16, .least = 0, .most = 1 << 20},
    {.name = "stride", .help = "every which query of a block is asked", .value = 2, .least = 1, .most = 64},
    {.name = "center", .help = "a range's middle block stands for it; 0: its first", .value = 1, .least = 0, .most = 1},
};

static const fv_method_parameter longheads_parameters[] = {
    {.name = "chunk", .help = "keys of a chunk, a multiple of 64", .value = 256, .least = 64, .most = 4096},
    {.name = "length", .help = "keys that a query sees; earlier queries are dense", .value = 4096, .least = 192, .most = 1 << 30},
};

static const fvi_method_row row[] = {
    {.info = {.name = "dam",
              .title = "columns and diagonals found on short inputs, a head's own (needs a profile)",
              .paper = "DAM: Dynamic Attention Mask for Long-Context Large Language Model Inference Acceleration, 2025",
              .key = "dam",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD},
     .selector = &fvi_select_dam,
     .masks_only = true,
     .profile = true},
    {.info = {.name = "dhsa",
              .title = "the best chunks of keys for each block of queries",
              .paper = "Xiong et al., Long-Context Modeling with Dynamic Hierarchical Sparse Attention for On-Device LLMs, 2025",
              .key = "dhsa",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = dhsa_parameters,
              .n_parameters = 6},
     .selector = &fvi_select_dhsa,
     .masks_only = true,
     .profile = true,
     .break_even = 4096},
    {.info = {.name = "gali",
              .title = "logits interpolated between whole positions, for texts beyond training (arrays only)",
              .paper =
                  "A Training-Free Length Extrapolation Approach for LLMs: Greedy Attention Logit Interpolation (GALI), 2025",
              .key = "gali",
              .axes = 0,
              .has = FV_HAS_FORWARD,
              .not_a_choice = "a cache keeps keys at one rotation, and this needs two; fv_gali_attention of "
                              "<fovea/experimental.h> computes it on arrays"}},
    {.info = {.name = "hip",
              .title = "tree search over keys for each block of queries",
              .paper = "Lee et al., HiP Attention: Sparse Sub-Quadratic Attention with Hierarchical Attention Pruning, ICLR 2025",
              .key = "hip",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = hip_parameters,
              .n_parameters = 7},
     .selector = &fvi_select_hip,
     .masks_only = true,
     .break_even = 3072},
    {.info = {.name = "hyper-attention",
              .title = "rows that hash alike meet in blocks, weighted samples stand for the rest (arrays only)",
              .paper = "Han et al., HyperAttention: Long-context Attention in Near-Linear Time, ICLR 2024",
              .key = "hyper-attention",
              .axes = 0,
              .has = FV_HAS_FORWARD,
              .not_a_choice =
                  "its samples weigh more than they are, which an index of keys cannot say yet; fv_hyper_attention of "
                  "<fovea/experimental.h> computes it on arrays"}},
    {.info = {.name = "longheads",
              .title =
                  "whole chunks that each query picks by their summaries (positions are not re-indexed yet)",
              .paper = "Lu et al., LongHeads: Multi-Head Attention is Secretly a Long Context Processor, 2024",
              .key = "",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = longheads_parameters,
              .n_parameters = 2},
     .selector = &fvi_select_longheads,
     .masks_only = true,
     .break_even = 8192},
};

const fvi_method_family fvi_methods_trees = {row, sizeof row / sizeof *row};
