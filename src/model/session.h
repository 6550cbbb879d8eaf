/* session.h - a session from inside. */
#ifndef FVI_SESSION_H
#define FVI_SESSION_H

#include "model/arch.h"

struct fv_session {
    fv_model *model;
    fv_context *ctx;
    fv_session_options options; /* as resolved: nothing is 0, recipe is `recipe_text` */
    char *recipe_text;          /* as it was given */
    fv_recipe *recipe;
    fv_plan *plan[2]; /* by phase */
    fv_cache *cache;

    void *block; /* one allocation: scratch, workspace, hidden, logits, spare */
    size_t block_bytes;
    fvi_pass scratch;
    void *workspace;
    size_t workspace_bytes;

    float *hidden; /* (d_model) of the prompt's last token so far, before the output norm */
    bool has_hidden;
    float *logits; /* (n_vocab) */
    float *spare;  /* (n_vocab) the next logits are made here and change places when they are whole */
    bool has_logits;

    float *rows; /* (rows_capacity, n_vocab) for on_logits; allocated by the first feed that asks for them */
    int64_t rows_capacity;

    fv_tokens tokens;
    fv_run_stats stats;
    fv_session_times times;
};

/* Adds the time since `at` to a stage; the present time, for the next one. */
static inline double fvi_lap(double at, double *stage) {
    const double now = fvi_seconds();
    *stage += now - at;
    return now;
}

/* Drops what lies at and past `position`; what was known of the present token is gone. */
fv_status fvi_session_cut(fv_session *s, int64_t position);
/* Appends ids to s->tokens without running them. */
fv_status fvi_session_remember(fv_session *s, const int32_t *tokens, int64_t n);

#endif
