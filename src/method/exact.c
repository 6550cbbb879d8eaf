/* exact.c - registry rows: attention that visits every key. */
#include "method/method.h"

static const fvi_method_row row[] = {
    {.info = {.name = "dense",
              .title = "every visible key, by online softmax over tiles",
              .paper = "Vaswani et al., Attention Is All You Need, NeurIPS 2017",
              .key = "",
              .axes = FV_AXIS_PREFILL | FV_AXIS_DECODE,
              .has = FV_HAS_FORWARD | FV_HAS_STEP},
     .selector = &fvi_select_dense},
    {.info = {.name = "gqa",
              .title = "groups of query heads share a K and a V head",
              .paper = "Ainslie et al., GQA: Training Generalized Multi-Query Transformer Models, EMNLP 2023",
              .key = "",
              .axes = FV_AXIS_HEADS,
              .has = FV_HAS_FORWARD | FV_HAS_STEP},
     .not_a_choice = "it follows from the shapes: give k and v fewer heads than q"},
    {.info = {.name = "mqa",
              .title = "all query heads share one K and one V head",
              .paper = "Shazeer, Fast Transformer Decoding: One Write-Head is All You Need, 2019",
              .key = "mqa",
              .axes = FV_AXIS_HEADS,
              .has = FV_HAS_FORWARD | FV_HAS_STEP},
     .not_a_choice = "it follows from the shapes: give k and v one head"},
};

const fvi_method_family fvi_methods_exact = {row, sizeof row / sizeof *row};
