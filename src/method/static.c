/* static.c - registry rows: patterns that are fixed before a query is seen. */
#include "method/method.h"

static const fv_method_parameter window_parameters[] = {
    {.name = "size", .help = "keys a query sees, its own included", .value = 1024, .least = 1, .most = 1 << 30},
};

static const fv_method_parameter sinks_parameters[] = {
    {.name = "sinks", .help = "first keys that stay visible", .value = 64, .least = 0, .most = 1 << 30},
    {.name = "size", .help = "keys of the window, the query's own included", .value = 1024, .least = 1, .most = 1 << 30},
};

static const fv_method_parameter dilated_parameters[] = {
    {.name = "size", .help = "keys a query sees, its own included", .value = 1024, .least = 1, .most = 1 << 30},
    {.name = "dilation", .help = "positions from one key to the next", .value = 4, .least = 1, .most = 1 << 20},
};

static const fv_method_parameter random_parameters[] = {
    {.name = "density", .help = "share of the blocks, or columns, that are drawn", .value = 0.1, .least = 0, .most = 1},
    {.name = "columns",
     .help = "0: blocks of 64 keys; 1: single columns, the same for all rows; 2: keys for each row",
     .value = 0,
     .least = 0,
     .most = 2},
    {.name = "seed", .help = "of the draw", .value = 1, .least = 0, .most = 1e9},
    {.name = "shared", .help = "of keys for each row, the share that is the same for all rows", .value = 0, .most = 1},
};

static const fv_method_parameter delta_parameters[] = {
    {.name = "gamma", .help = "rows from one that is computed densely to the next", .value = 64, .least = 2, .most = 4096},
};

static const fvi_method_row row[] = {
    {.info = {.name = "delta",
              .title = "a correction over another method: delta(METHOD) adds what every gamma-th row lost",
              .paper =
                  "Willette, Lee, Hwang: Delta Attention: Fast and Accurate Sparse Attention Inference by Delta Correction, 2025",
              .key = "delta-attention",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = delta_parameters,
              .n_parameters = 1},
     .wraps = true},
    {.info = {.name = "dilated",
              .title = "a sliding window with gaps",
              .paper = "Beltagy et al., Longformer: The Long-Document Transformer, 2020",
              .key = "",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = dilated_parameters,
              .n_parameters = 2},
     .selector = &fvi_select_dilated,
     .masks_only = true},
    {.info = {.name = "random",
              .title = "keys at random: what a selection has to beat",
              .paper = "",
              .key = "",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = random_parameters,
              .n_parameters = 4},
     .selector = &fvi_select_random,
     .masks_only = true},
    {.info = {.name = "sinks",
              .title = "the first keys and a sliding window",
              .paper = "Xiao et al., Efficient Streaming Language Models with Attention Sinks, ICLR 2024",
              .key = "",
              .axes = FV_AXIS_PREFILL | FV_AXIS_DECODE,
              .has = FV_HAS_FORWARD | FV_HAS_STEP,
              .parameters = sinks_parameters,
              .n_parameters = 2},
     .selector = &fvi_select_sinks,
     .masks_only = true},
    {.info = {.name = "window",
              .title = "a sliding window",
              .paper = "Beltagy et al., Longformer: The Long-Document Transformer, 2020",
              .key = "",
              .axes = FV_AXIS_PREFILL | FV_AXIS_DECODE,
              .has = FV_HAS_FORWARD | FV_HAS_STEP,
              .parameters = window_parameters,
              .n_parameters = 1},
     .selector = &fvi_select_window,
     .masks_only = true},
};

const fvi_method_family fvi_methods_static = {row, sizeof row / sizeof *row};
