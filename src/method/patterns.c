/* patterns.c - registry rows: published patterns that are fixed before a query is seen. */
#include "method/method.h"

static const fv_method_parameter strided_parameters[] = {
    {.name = "stride",
     .help = "l: keys of the local set, and positions between the others",
     .value = 128,
     .least = 1,
     .most = 1 << 20},
    {.name = "form",
     .help = "local and strided set: 0 in turn over heads, 1 merged, 2 in turn over layers",
     .value = 0,
     .most = 2},
};

static const fv_method_parameter fixed_parameters[] = {
    {.name = "length", .help = "l: keys of a segment", .value = 128, .least = 1, .most = 1 << 20},
    {.name = "cells", .help = "c: keys of a segment that later rows see", .value = 32, .least = 1, .most = 1 << 20},
    {.name = "groups",
     .help = "different cells that heads take in turn, from a segment's end",
     .value = 4,
     .least = 1,
     .most = 1 << 16},
    {.name = "form", .help = "segment and cells: 0 in turn over heads, 1 merged, 2 in turn over layers", .value = 1, .most = 2},
};

static const fvi_method_row row[] = {
    {.info = {.name = "sparse-fixed",
              .title = "the own segment, and cells at the end of each",
              .paper = "Child et al., Generating Long Sequences with Sparse Transformers, 2019",
              .key = "sparse-transformer",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = fixed_parameters,
              .n_parameters = 4},
     .selector = &fvi_select_sparse_fixed,
     .masks_only = true},
    {.info = {.name = "sparse-strided",
              .title = "a window, and every l-th key",
              .paper = "Child et al., Generating Long Sequences with Sparse Transformers, 2019",
              .key = "sparse-transformer",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = strided_parameters,
              .n_parameters = 2},
     .selector = &fvi_select_sparse_strided,
     .masks_only = true},
};

const fvi_method_family fvi_methods_patterns = {row, sizeof row / sizeof *row};
