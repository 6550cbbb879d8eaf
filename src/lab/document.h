/* document.h - a text of a wanted length with facts in it, and the questions about them, as tokens. */
#ifndef FVI_DOCUMENT_H
#define FVI_DOCUMENT_H

#include "lab/lab.h"

typedef struct fvi_question {
    fv_tokens fact;   /* " " + the sentence */
    fv_tokens ask;    /* the question in its form */
    fv_tokens answer; /* " " + the answer: tokenized apart, as it stands in training texts */
} fvi_question;

/* What documents of all lengths are made of. */
typedef struct fvi_material {
    fv_context *ctx;
    const fv_vocab *vocab;
    const fv_fact *fact;
    fvi_question *question;
    int n;
    fv_tokens text;
    int32_t bos;         /* -1: none */
    int64_t fact_tokens; /* of all facts */
    int64_t room;        /* tokens after the document: the longest question, its answer and FVI_SPARE; at least FVI_STEPS */
} fvi_material;

enum {
    FVI_SPARE = 2,  /* tokens that a generated answer may be longer than the right one */
    FVI_STEPS = 16, /* tokens generated at the document's end, for their speed */
};

/* Tokenizes everything and checks facts and form. Release in any case. form NULL: the default. */
fv_status fvi_material_make(fv_model *model, const fv_compare_options *options, fvi_material *out);
void fvi_material_release(fvi_material *material);
/* Tokens of the document for a length; FV_ERR_RANGE if the text or the length is too short. */
fv_status fvi_document_size(const fvi_material *material, int64_t length, int64_t *out);
/* Appends the document to an empty list. */
fv_status fvi_document_make(const fvi_material *material, int64_t length, fv_tokens *out);

#endif
