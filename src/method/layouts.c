/* layouts.c - registry rows: windows in the plane and in volumes, whose tokens stand in row-major order; and patterns that last
 * over denoising steps. Most are for arrays alone. */
#include "method/method.h"

enum { LINE = 1 << 30, AXIS = 1 << 20 };

static const fv_method_parameter faster_na_parameters[] = {
    {.name = "width", .help = "tokens along the last axis; 0: the sequence is one line", .value = 0, .least = 0, .most = AXIS},
    {.name = "height", .help = "rows of the plane; 0: there is none", .value = 0, .least = 0, .most = AXIS},
    {.name = "depth", .help = "planes of the volume; 0: there is none", .value = 0, .least = 0, .most = AXIS},
    {.name = "window", .help = "keys that a query sees along an axis, those nearest to it", .value = 7, .least = 1, .most = LINE},
    {.name = "window_h", .help = "the same along the height; 0: as window", .value = 0, .least = 0, .most = LINE},
    {.name = "window_d", .help = "the same along the depth; 0: as window", .value = 0, .least = 0, .most = LINE},
    {.name = "dilation", .help = "tokens from one key to the next along an axis", .value = 1, .least = 1, .most = AXIS},
    {.name = "dilation_h", .help = "the same along the height; 0: as dilation", .value = 0, .least = 0, .most = AXIS},
    {.name = "dilation_d", .help = "the same along the depth; 0: as dilation", .value = 0, .least = 0, .most = AXIS},
    {.name = "causal", .help = "1: windows end at the query along an axis", .value = 0, .least = 0, .most = 1},
    {.name = "causal_h", .help = "the same along the height; -1: as causal", .value = -1, .least = -1, .most = 1},
    {.name = "causal_d", .help = "the same along the depth; -1: as causal", .value = -1, .least = -1, .most = 1},
};

static const fv_method_parameter gna_parameters[] = {
    {.name = "width", .help = "tokens along the last axis; 0: the sequence is one line", .value = 0, .least = 0, .most = AXIS},
    {.name = "height", .help = "rows of the plane; 0: there is none", .value = 0, .least = 0, .most = AXIS},
    {.name = "depth", .help = "planes of the volume; 0: there is none", .value = 0, .least = 0, .most = AXIS},
    {.name = "window", .help = "keys that a query sees along an axis", .value = 256, .least = 1, .most = LINE},
    {.name = "window_h", .help = "the same along the height; 0: as window", .value = 0, .least = 0, .most = LINE},
    {.name = "window_d", .help = "the same along the depth; 0: as window", .value = 0, .least = 0, .most = LINE},
    {.name = "stride", .help = "neighbours along an axis that share a window", .value = 1, .least = 1, .most = LINE},
    {.name = "stride_h", .help = "the same along the height; 0: as stride", .value = 0, .least = 0, .most = LINE},
    {.name = "stride_d", .help = "the same along the depth; 0: as stride", .value = 0, .least = 0, .most = LINE},
    {.name = "dilation", .help = "tokens from one key to the next along an axis", .value = 1, .least = 1, .most = AXIS},
    {.name = "dilation_h", .help = "the same along the height; 0: as dilation", .value = 0, .least = 0, .most = AXIS},
    {.name = "dilation_d", .help = "the same along the depth; 0: as dilation", .value = 0, .least = 0, .most = AXIS},
    {.name = "causal", .help = "1: windows end at the query along an axis", .value = 0, .least = 0, .most = 1},
    {.name = "causal_h", .help = "the same along the height; -1: as causal", .value = -1, .least = -1, .most = 1},
    {.name = "causal_d", .help = "the same along the depth; -1: as causal", .value = -1, .least = -1, .most = 1},
};

static const fv_method_parameter halonet_parameters[] = {
    {.name = "width", .help = "tokens of a row of the plane", .value = 0, .least = 0, .most = AXIS},
    {.name = "height", .help = "rows of the plane", .value = 0, .least = 0, .most = AXIS},
    {.name = "block", .help = "side of a block of tokens that share a window", .value = 8, .least = 1, .most = AXIS},
    {.name = "halo", .help = "tokens seen on each side of the block", .value = 3, .least = 0, .most = AXIS},
    {.name = "stride",
     .help = "a query every so many tokens of an axis: n_q = n_kv / stride^2",
     .value = 1,
     .least = 1,
     .most = AXIS},
};

static const fv_method_parameter sparsed_parameters[] = {
    {.name = "block", .help = "tokens of a block: divides 64 or is a multiple of it", .value = 128, .least = 1, .most = AXIS},
    {.name = "select", .help = "share of the key blocks that a query block visits", .value = 0.3, .least = 0, .most = 1},
    {.name = "skip", .help = "share of the steps that attend to everything first", .value = 0.2, .least = 0, .most = 1},
    {.name = "steps", .help = "denoising steps of a generation", .value = 128, .least = 1, .most = AXIS},
    {.name = "generated", .help = "last tokens, which are being generated: selected apart", .value = 0, .least = 0, .most = LINE},
};

/* Of gna and faster-na, whose first parameters are the shape. */
static const char *on_arrays_if_shaped(const double *value) {
    return value[0] > 0 || value[1] > 0 ? "a model's tokens are one line of any length: a shape needs `fovea attend --shape`"
                                        : NULL;
}

static const char *halonet_on_arrays(const double *value) {
    (void)value;
    return "a model's tokens are a line, and halonet's windows are of a plane: `fovea attend --shape` has it";
}

static const char *sparsed_on_arrays(const double *value) {
    (void)value;
    return "this model generates token by token and has no denoising steps: `fovea attend --steps` has them";
}

static const fvi_method_row row[] = {
    {.info = {.name = "faster-na",
              .title = "the nearest keys in a line, a plane or a volume (no backward yet)",
              .paper =
                  "Hassani et al., Faster Neighborhood Attention: Reducing the O(n^2) Cost of Self Attention at the Threadblock "
                  "Level, NeurIPS 2024",
              .key = "faster-na",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = faster_na_parameters,
              .n_parameters = sizeof faster_na_parameters / sizeof *faster_na_parameters},
     .selector = &fvi_select_faster_na,
     .masks_only = true,
     .arrays_only = on_arrays_if_shaped},
    {.info = {.name = "gna",
              .title = "windows in a line, a plane or a volume, shared by groups of queries (no backward yet)",
              .paper =
                  "Hassani et al., Generalized Neighborhood Attention: Multi-dimensional Sparse Attention at the Speed of Light, "
                  "2025",
              .key = "gna",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = gna_parameters,
              .n_parameters = sizeof gna_parameters / sizeof *gna_parameters},
     .selector = &fvi_select_gna,
     .masks_only = true,
     .arrays_only = on_arrays_if_shaped},
    {.info = {.name = "halonet",
              .title = "blocks of a plane and a halo around them (no backward yet)",
              .paper = "Vaswani et al., Scaling Local Self-Attention for Parameter Efficient Visual Backbones, CVPR 2021",
              .key = "halonet",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = halonet_parameters,
              .n_parameters = sizeof halonet_parameters / sizeof *halonet_parameters},
     .selector = &fvi_select_halonet,
     .masks_only = true,
     .arrays_only = halonet_on_arrays},
    {.info = {.name = "sparsed",
              .title = "blocks chosen at an early denoising step and kept for the later ones",
              .paper = "Wang et al., SparseD: Sparse Attention for Diffusion Language Models, 2025",
              .key = "sparsed",
              .axes = FV_AXIS_PREFILL,
              .has = FV_HAS_FORWARD,
              .parameters = sparsed_parameters,
              .n_parameters = sizeof sparsed_parameters / sizeof *sparsed_parameters},
     .selector = &fvi_select_sparsed,
     .masks_only = true,
     .arrays_only = sparsed_on_arrays},
};

const fvi_method_family fvi_methods_layouts = {row, sizeof row / sizeof *row};
