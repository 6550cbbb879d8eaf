/* row.c - the toy's family: a method's row stands in a file of src/method. */
#include "method/method.h"

extern const fvi_selector fvi_select_alike; /* of a method: in select.h */

static const fv_method_parameter parameters[] = {
    {.name = "least", .help = "of the product of two mean keys", .value = 0, .least = -1e9, .most = 1e9}};

static const fvi_method_row row[] = {{.info = {.name = "alike",
                                               .title = "blocks like the own one",
                                               .axes = FV_AXIS_PREFILL,
                                               .has = FV_HAS_FORWARD,
                                               .paper = "",
                                               .key = "",
                                               .parameters = parameters,
                                               .n_parameters = 1},
                                      .selector = &fvi_select_alike,
                                      .masks_only = true}};

const fvi_method_family fvi_methods_toy = {row, 1};
