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

static const fvi_method_row row[] = {
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
};

const fvi_method_family fvi_methods_trees = {row, sizeof row / sizeof *row};
