/* logits_dump.c - for test_logits.py: the logits after each token, as f32 rows.
 *
 *   logits_dump MODEL IDS PROMPT OUT      IDS: int32 ids; the first PROMPT of them are the prompt, the rest are steps
 * K and V are kept in f32. */
#include "fovea/fovea.h"

#include <stdio.h>
#include <stdlib.h>

enum { MOST = 1 << 16 };

typedef struct dump {
    fv_context *ctx;
    fv_model *model;
    fv_session *session;
    int32_t id[MOST];
    int64_t n, prompt, n_vocab;
    FILE *out;
} dump;

static int write_row(void *user, int64_t position, const float *logits) {
    dump *d = user;
    (void)position;
    return fwrite(logits, sizeof *logits, (size_t)d->n_vocab, d->out) != (size_t)d->n_vocab;
}

static fv_status run(dump *d, const char *path) {
    const fv_session_options options = {.kv_dtype = FV_F32};
    const fv_feed rows = {.on_logits = write_row, .user = d};
    fv_model_facts facts;
    fv_status status = fv_model_open(d->ctx, path, NULL, &d->model);
    if (status != FV_OK) {
        return status;
    }
    fv_model_describe(d->model, &facts);
    d->n_vocab = facts.n_vocab;
    status = fv_session_create(d->model, &options, &d->session);
    if (status == FV_OK) {
        status = fv_session_feed(d->session, d->id, d->prompt, &rows);
    }
    if (status == FV_OK) {
        status = fv_session_finish(d->session);
    }
    for (int64_t i = d->prompt; i < d->n && status == FV_OK; i++) {
        status = fv_session_step(d->session, d->id[i]);
        if (status == FV_OK && write_row(d, i, fv_session_logits(d->session)) != 0) {
            return FV_ERR_IO;
        }
    }
    return status;
}

int main(int argc, char **argv) {
    static dump d;
    FILE *ids = argc == 5 ? fopen(argv[2], "rb") : NULL;
    if (ids == NULL || fv_context_create(NULL, &d.ctx) != FV_OK) {
        fprintf(stderr, "usage: logits_dump MODEL IDS PROMPT OUT\n");
        return 2;
    }
    d.n = (int64_t)fread(d.id, sizeof *d.id, MOST, ids);
    fclose(ids);
    d.prompt = atoll(argv[3]);
    d.out = fopen(argv[4], "wb");
    fv_status status = d.out != NULL ? run(&d, argv[1]) : FV_ERR_IO;
    if (d.out != NULL && fclose(d.out) != 0 && status == FV_OK) {
        status = FV_ERR_IO;
    }
    if (status != FV_OK) {
        fprintf(stderr, "logits_dump: %s: %s\n", fv_status_name(status), fv_message(d.ctx));
    }
    fv_session_destroy(d.session);
    fv_model_destroy(d.model);
    fv_context_destroy(d.ctx);
    return status != FV_OK;
}
