/* tools.c - registry rows: published tools, which say something about methods. They stand on no axis of a recipe. */
#include "method/method.h"

static const fvi_method_row row[] = {
    {.info = {.name = "gna-simulator",
              .title = "leaves that neighborhood attention visits, and the speed-up they promise",
              .paper =
                  "Hassani et al., Generalized Neighborhood Attention: Multi-dimensional Sparse Attention at the Speed of Light, "
                  "2025",
              .key = "gna",
              .axes = 0,
              .has = FV_HAS_FORWARD,
              .not_a_choice = "it is a tool that says what gna costs beforehand: fv_gna_predict in <fovea/experimental.h>, and "
                              "`fovea bench gna`"}},
    {.info = {.name = "fusemax",
              .title = "passes, buffers, traffic, time and energy of an attention algorithm",
              .paper = "Nayak et al., FuseMax: Leveraging Extended Einsums to Optimize Attention Accelerator Design, MICRO 2024",
              .key = "fusemax",
              .axes = 0,
              .has = FV_HAS_FORWARD,
              .not_a_choice = "it is a tool that counts what algorithms cost: fv_cascade_analyse in <fovea/experimental.h>"}},
};

const fvi_method_family fvi_methods_tools = {row, sizeof row / sizeof *row};
