/* session.h - a session from inside. */
#ifndef FVI_SESSION_H
#define FVI_SESSION_H

#include "model/arch.h"

/* A feed's callbacks, and the positions of its tokens. */
typedef struct fvi_want {
    int64_t from, to;
    fv_feed feed;
} fvi_want;

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
    char *state; /* (layers, state_bytes) what a method of generated tokens keeps from one to the next; NULL: nothing */
    size_t state_bytes;
    int64_t steps; /* generated since it was kept; 0: what is there says nothing of the cache */

    float *hidden; /* (d_model) of the last token that ran, before the output norm */
    float *kept;   /* (d_model) what hidden was before the present call */
    bool has_hidden;
    float *logits; /* (n_vocab) */
    float *spare;  /* (n_vocab) the next logits are made here and change places when they are whole */
    bool has_logits;

    float *rows; /* (rows_capacity, n_vocab) for on_logits; allocated by the first feed that asks for them */
    int64_t rows_capacity;

    fv_tokens tokens; /* all, fed ones that have not run yet too */
    int64_t ran;      /* of those, how many are in the cache */
    int64_t grain;    /* prompt rows at absolute multiples that run together; INT64_MAX: the whole prompt */
    fvi_want *want;   /* what the feeds of the present prompt asked for */
    int64_t n_wants, want_capacity;
    const fv_feed *ticking; /* a pass over the whole prompt reports by layers to it */
    fv_run_stats stats;
    fv_session_times times;
};

/* Adds the time since `at` to a stage; the present time, for the next one. */
static inline double fvi_lap(double at, double *stage) {
    const double now = fvi_seconds();
    *stage += now - at;
    return now;
}

/* Keeps what a feed of the tokens at from .. to - 1 asks for. */
fv_status fvi_session_want(fv_session *s, const fv_feed *feed, int64_t from, int64_t to);
/* Gives the feeds that asked for them the logits of the hidden rows x (n, d_model), which stand at `first` and on. Uses
 * scratch.normed. */
fv_status fvi_session_hand_out(fv_session *s, const float *x, int64_t first, int64_t n);
/* After layer `done` of `layers`: progress of a pass over a whole prompt; FV_ERR_CANCELLED where it is stopped. */
fv_status fvi_session_tick(const fv_session *s, int done, int layers, int64_t n);
/* Drops what lies at and past `position`; what was known of the present token is gone. */
fv_status fvi_session_cut(fv_session *s, int64_t position);
/* Appends ids to s->tokens without running them. */
fv_status fvi_session_remember(fv_session *s, const int32_t *tokens, int64_t n);

#endif
