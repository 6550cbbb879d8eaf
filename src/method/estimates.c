/* estimates.c - registry rows: scores estimated cheaply before, or weighed again after they are made. */
#include "method/method.h"

static const fv_method_parameter spargeattn_parameters[] = {
    {.name = "sim",
     .help = "mean cosine within a block above which its mean stands for it",
     .value = 0.6,
     .least = -1,
     .most = 1},
    {.name = "cdf", .help = "share of the pooled mass that a block of queries takes", .value = 0.98, .least = 0, .most = 1},
    {.name = "topk", .help = "share of all blocks instead of cdf; 0: off", .value = 0, .least = 0, .most = 1},
    {.name = "sink", .help = "1: the first block is always on", .value = 0, .least = 0, .most = 1},
    {.name = "pv",
     .help = "powers of two below a row's largest score at which a block is skipped; 0: off",
     .value = 50,
     .least = 0,
     .most = 1e6},
};

static const fv_method_parameter row_topk_parameters[] = {
    {.name = "k", .help = "keys of a row", .value = 256, .least = 1, .most = 1 << 30},
};

static const fv_method_parameter top_theta_parameters[] = {
    {.name = "theta",
     .help = "scores above it take part, scale * q . k; a profile's comes first",
     .value = 0,
     .least = -1e30,
     .most = 1e30},
    {.name = "k", .help = "rows of so many keys or fewer are dense", .value = 256, .least = 1, .most = 1 << 30},
    {.name = "sdc",
     .help = "what the softmax's denominator gets back: 0 nothing, 1 exact, 2 by the threshold, 3 offline",
     .value = 0,
     .least = 0,
     .most = 3},
    {.name = "scale", .help = "factor on what it gets back", .value = 1, .least = 0, .most = 1e6},
    {.name = "vmc", .help = "1: what weights lack to 1 goes to the mean of V", .value = 0, .least = 0, .most = 1},
    {.name = "missing",
     .help = "sdc=3: the sum of exp(s - largest s) of what is left out; a profile's comes first",
     .value = 0,
     .least = 0,
     .most = 1e30},
};

static const fv_method_parameter sale_parameters[] = {
    {.name = "threshold",
     .help = "share of a row's reference above which a pair counts; a profile's comes first; below 1e-5 dense",
     .value = 0.004,
     .least = 0,
     .most = 1e6},
    {.name = "local", .help = "keys before a query that are visited, at least", .value = 128, .least = 64, .most = 1 << 20},
    {.name = "dense", .help = "prompts of so many keys or fewer are dense", .value = 1024, .least = 0, .most = 1 << 30},
};

static const fvi_method_row row[] = {
    {.info = {.name = "row-topk",
              .title = "each row's largest scores, exactly: a yardstick",
              .paper = "Gupta et al., Memory-efficient Transformers via Top-k Attention, 2021",
              .key = "",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = row_topk_parameters,
              .n_parameters = 1},
     .selector = &fvi_select_row_topk,
     .masks_only = true},
    {.info = {.name = "sale",
              .title = "blocks in which some four-bit score counts against first and nearest keys",
              .paper = "Ji et al., SALE: Low-bit Estimation for Efficient Sparse Attention in Long-context LLM Prefilling, 2025",
              .key = "sale",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = sale_parameters,
              .n_parameters = 3},
     .selector = &fvi_select_sale,
     .masks_only = true,
     .profile = true,
     .break_even = 8192},
    {.info = {.name = "spargeattn",
              .title = "blocks by their means where those stand for them, and a second look at their scores",
              .paper = "Zhang et al., SpargeAttn: Accurate and Training-free Sparse Attention Accelerating Any Model Inference, "
                       "ICML 2025",
              .key = "spargeattn",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = spargeattn_parameters,
              .n_parameters = 5},
     .selector = &fvi_select_spargeattn,
     .masks_only = true,
     .break_even = 1536},
    {.info = {.name = "top-theta",
              .title = "scores above a threshold found offline, with compensations for the others",
              .paper = "Berestizshevsky et al., Top-Theta Attention: Sparsifying Transformers by Compensated Thresholding, 2025",
              .key = "top-theta",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = top_theta_parameters,
              .n_parameters = 6},
     .selector = &fvi_select_top_theta,
     .masks_only = true,
     .profile = true},
};

const fvi_method_family fvi_methods_estimates = {row, sizeof row / sizeof *row};
