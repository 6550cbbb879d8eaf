/* tools.c - registry rows: published tools, which say something about methods. They stand on no axis of a recipe. */
#include "method/method.h"

static const fvi_method_row row[] = {
    {.info = {.name = "fusemax",
              .title = "passes, buffers, traffic, time and energy of an attention algorithm",
              .paper = "Nayak et al., FuseMax: Leveraging Extended Einsums to Optimize Attention Accelerator Design, MICRO 2024",
              .key = "fusemax",
              .axes = 0,
              .has = FV_HAS_FORWARD,
              .not_a_choice = "it is a tool that counts what algorithms cost: fv_cascade_analyse in <fovea/experimental.h>"}},
};

const fvi_method_family fvi_methods_tools = {row, sizeof row / sizeof *row};
