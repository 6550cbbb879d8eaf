/* arch.h - a model from inside, and the table of architectures.
 *
 * An architecture is one file and one row of fvi_arch_table: how to read its weights, what scratch a pass needs, and the pass
 * itself. The session above knows tokens, caches and plans, but no layer; the architecture below knows layers, but not
 * where a prompt was cut. */
#ifndef FVI_ARCH_H
#define FVI_ARCH_H

#include "fovea/model.h"
#include "model/gguf.h"
#include "model/linear.h"
#include "op/op.h"

/* Rows of one pass, f32, each array 64-byte aligned. A pass goes through the layers whole; within a layer what is worked on row
 * by row is worked on `narrow` rows at a time, and only they have room in the arrays marked so. */
typedef struct fvi_pass {
    int64_t rows, narrow;
    float *x;       /* (rows, d_model) the residual stream; after a pass its hidden rows, before the output norm */
    float *normed;  /* (rows, d_model) */
    float *q;       /* (rows, h_q, d_k) */
    float *k;       /* (narrow, h_kv, d_k) */
    float *v;       /* (narrow, h_kv, d_v) */
    float *mix;     /* (rows, h_q, d_v) what attention gives */
    float *gate;    /* (narrow, d_ffn) */
    float *up;      /* (narrow, d_ffn) */
    float *cos_sin; /* (rows, rotated / 2, 2) */
} fvi_pass;

typedef struct fvi_arch {
    const char *name; /* general.architecture */
    /* Fills facts and weights from model->gguf; every tensor's shape is held against the metadata. On an error `unload` is
     * called all the same. */
    fv_status (*load)(fv_model *model);
    void (*unload)(fv_model *model);
    /* Bytes of scratch for passes of up to out->rows rows, out->narrow at a time; lays it out from `base` (NULL: only the size is
     * wanted). */
    size_t (*scratch)(const fv_model *model, void *base, fvi_pass *out);
    /* Takes n tokens, which stand at session->ran and on, through all layers: appends to the session's cache, leaves hidden rows
     * in pass->x. A phase of FV_PREFILL multiplies weights as for prompts, FV_DECODE (n = 1) in place. Calls fvi_session_tick
     * after each layer. */
    fv_status (*forward)(fv_session *session, const fvi_pass *pass, const int32_t *tokens, int64_t n, fv_phase phase);
    /* Output norm and head: logits (n, n_vocab) of hidden (n, d_model). `normed` (n, d_model) is scratch, may be `hidden`. */
    fv_status (*head)(fv_model *model, const float *hidden, int64_t n, fv_phase phase, float *normed, float *logits);
} fvi_arch;

struct fv_model {
    fv_context *ctx;
    fvi_gguf *gguf;
    fv_vocab *vocab;
    fvi_gemm *gemm;
    fvi_rowop_ops rowop;
    const fvi_arch *arch;
    void *weights; /* the architecture's */
    fv_model_facts facts;
    fv_rope rope;                        /* the architecture's, of all layers; width 0: it has none */
    char *architecture, *name, *license; /* behind the facts */
    char *system;                        /* the chat template's own system message, or NULL */
    uint64_t fingerprint;                /* 0: not asked for yet */
};

/* The row of this name, NULL if there is none. */
const fvi_arch *fvi_arch_find(fvi_string name);
extern const fvi_arch fvi_arch_llama;

/* FV_ERR_MEMORY with both figures if `bytes` more than the file and the unpacked weights cannot fit in this machine. */
fv_status fvi_model_fits(const fv_model *model, size_t bytes, const char *what);

/* A 64-bit hash that goes on from `hash` (start with any number). Each 8 bytes are one bijective step, so that a change within
 * one of them always changes the result. */
uint64_t fvi_digest(uint64_t hash, const void *data, size_t size);

#endif
