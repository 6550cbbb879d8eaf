/* trees.c - registry rows: selectors that search, chunk or sort keys before they choose. */
#include "method/method.h"

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
    {.info = {.name = "hip",
              .title = "tree search over keys for each block of queries",
              .paper = "Lee et al., HiP Attention: Sparse Sub-Quadratic Attention with Hierarchical Attention Pruning, ICLR 2025",
              .key = "hip",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = hip_parameters,
              .n_parameters = 7},
     .selector = &fvi_select_hip,
     .masks_only = true},
};

const fvi_method_family fvi_methods_trees = {row, sizeof row / sizeof *row};
