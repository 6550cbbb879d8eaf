/* patterns.c - registry rows: published patterns that are fixed before a query is seen. */
#include "method/method.h"

/* break_even: the lengths from which the defaults took less time than dense attention, and by how much, on 2 cores with bf16
 * tensors, 8 query and 2 KV heads of width 64; power-attention and masformer are dense below theirs by their definition. */

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

static const fv_method_parameter s2_parameters[] = {
    {.name = "block", .help = "keys of a block", .value = 64, .least = 16, .most = 1 << 20},
    {.name = "local", .help = "last blocks that a query sees, its own included", .value = 4, .least = 1, .most = 1 << 20},
    {.name = "stride", .help = "of the other blocks, one of so many", .value = 4, .least = 1, .most = 1 << 20},
    {.name = "offset", .help = "blocks that all shards are moved by", .value = 0, .most = 1 << 20},
    {.name = "dense_heads", .help = "last KV heads that see all", .value = 0, .most = 1 << 16},
    {.name = "dense_every", .help = "every so many layers one that sees all; 0: none", .value = 0, .most = 1 << 16},
};

static const fv_method_parameter power_parameters[] = {
    {.name = "block", .help = "keys of a block", .value = 256, .least = 1, .most = 1 << 20},
    {.name = "window", .help = "last blocks that a query sees, its own included", .value = 5, .least = 1, .most = 1 << 20},
    {.name = "sinks", .help = "first blocks that all queries see", .value = 1, .most = 1 << 20},
};

static const fv_method_parameter masformer_parameters[] = {
    {.name = "dense", .help = "first layers that see all", .value = 4, .most = 1 << 16},
    {.name = "size", .help = "keys of the block or the window at other layers", .value = 1024, .least = 1, .most = 1 << 30},
    {.name = "form", .help = "other layers see 0 their own block, 1 a window", .value = 0, .most = 1},
};

static const fv_method_parameter lsg_parameters[] = {
    {.name = "block", .help = "keys of a block", .value = 128, .least = 64, .most = 1 << 20},
    {.name = "sparse", .help = "keys seen beyond the local blocks, on each side; 0: none", .value = 128, .most = 1 << 20},
    {.name = "factor", .help = "of so many keys one is seen there", .value = 2, .least = 1, .most = 1 << 20},
    {.name = "reduction",
     .help = "which: 0 the largest norm, 1 stride, 2 block-stride; or means of keys: 3 pooling, 4 bos-pooling, 5 lsh",
     .value = 0,
     .most = 5},
    {.name = "globals", .help = "first positions that see all and are seen by all", .value = 1, .most = 1 << 20},
    {.name = "rounds", .help = "of hashing before the last one (lsh)", .value = 1, .most = 8},
    {.name = "seed", .help = "of lsh's projections", .value = 0, .most = 1 << 30},
    {.name = "mass",
     .help = "1: a mean weighs as much as the keys it stands for; 0: as one, as in the paper",
     .value = 0,
     .most = 1},
};

static const fv_method_parameter star_parameters[] = {
    {.name = "block", .help = "keys of a block of context; 0: a quarter of it", .value = 0, .most = 1 << 30},
    {.name = "anchor", .help = "first keys that each block sees; 0: a block", .value = 0, .most = 1 << 30},
    {.name = "query", .help = "last positions, which see all", .value = 64, .most = 1 << 30},
};

static const fv_method_parameter hepos_parameters[] = {
    {.name = "stride", .help = "r: of so many source positions a head sees one", .value = 4, .least = 1, .most = 1 << 16},
};

static const fv_method_parameter moa_parameters[] = {
    {.name = "alpha",
     .help = "keys of a head's span, whatever the prompt's length",
     .value = 0,
     .least = -(1 << 30),
     .most = 1 << 30},
    {.name = "beta", .help = "share of the prompt that is added to the span", .value = 0.5, .most = 1},
};

static const fvi_method_row row[] = {
    {.info = {.name = "hepos",
              .title = "head-wise strides over the source of a cross-attention",
              .paper = "Huang et al., Efficient Attentions for Long Document Summarization, NAACL 2021",
              .key = "hepos",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = hepos_parameters,
              .n_parameters = 1},
     .selector = &fvi_select_hepos,
     .masks_only = true},
    {.info = {.name = "lsg",
              .title = "local blocks, sparse keys or means of keys beyond them, global keys",
              .paper =
                  "Condevaux and Harispe, LSG Attention: Extrapolation of pretrained Transformers to long sequences, PAKDD 2023",
              .key = "lsg",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = lsg_parameters,
              .n_parameters = 8},
     .selector = &fvi_select_lsg,
     .masks_only = true,
     .break_even = 1024},
    {.info = {.name = "masformer",
              .title = "full attention at a few layers, blocks or a window at the others",
              .paper = "Zhang et al., Efficient Long-Range Transformers: You Need to Attend More, but Not Necessarily at Every "
                       "Layer, EMNLP 2023",
              .key = "masformer",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = masformer_parameters,
              .n_parameters = 3},
     .selector = &fvi_select_masformer,
     .masks_only = true,
     .break_even = 1024},
    {.info = {.name = "moa",
              .title = "windows whose span grows with the prompt, by head (rules from a profile)",
              .paper = "Fu et al., MoA: Mixture of Sparse Attention for Automatic Large Language Model Compression, 2024",
              .key = "moa",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = moa_parameters,
              .n_parameters = 2},
     .selector = &fvi_select_moa,
     .masks_only = true,
     .break_even = 256,
     .profile = true},
    {.info = {.name = "power-attention",
              .title = "sinks, a window, and blocks at distances that are powers of two",
              .paper =
                  "Chen et al., PowerAttention: Exponentially Scaling of Receptive Fields for Effective Sparse Attention, 2025",
              .key = "power-attention",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = power_parameters,
              .n_parameters = 3},
     .selector = &fvi_select_power,
     .masks_only = true,
     .break_even = 1536},
    {.info = {.name = "s2-attention",
              .title = "local blocks, and every stride-th block, others for each head",
              .paper = "Lin et al., S2-Attention: Hardware-Aware Context Sharding Among Attention Heads, 2024",
              .key = "s2-attention",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = s2_parameters,
              .n_parameters = 6},
     .selector = &fvi_select_s2,
     .masks_only = true,
     .break_even = 256},
    {.info = {.name = "sparse-fixed",
              .title = "the own segment, and cells at the end of each",
              .paper = "Child et al., Generating Long Sequences with Sparse Transformers, 2019",
              .key = "sparse-transformer",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = fixed_parameters,
              .n_parameters = 4},
     .selector = &fvi_select_sparse_fixed,
     .masks_only = true,
     .break_even = 256},
    {.info = {.name = "sparse-strided",
              .title = "a window, and every l-th key",
              .paper = "Child et al., Generating Long Sequences with Sparse Transformers, 2019",
              .key = "sparse-transformer",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = strided_parameters,
              .n_parameters = 2},
     .selector = &fvi_select_sparse_strided,
     .masks_only = true,
     .break_even = 256},
    {.info = {.name = "star-attention",
              .title = "context in blocks that see an anchor and themselves, then a query that sees all",
              .paper = "Acharya et al., Star Attention: Efficient LLM Inference over Long Sequences, 2024",
              .key = "star-attention",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = star_parameters,
              .n_parameters = 3},
     .selector = &fvi_select_star,
     .masks_only = true,
     .break_even = 512},
};

const fvi_method_family fvi_methods_patterns = {row, sizeof row / sizeof *row};
