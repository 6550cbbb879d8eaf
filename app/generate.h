/* generate.h - a session that reads prompts and writes answers to stdout, as `fovea run` needs it. */
#ifndef FOVEA_APP_GENERATE_H
#define FOVEA_APP_GENERATE_H

#include "cli.h"

typedef struct generator {
    fv_context *ctx;
    const fv_vocab *vocab;
    fv_session *session; /* owned */
    fv_sampler *sampler; /* owned */
    const cli_texts *stop;
    int64_t n_vocab, room; /* most tokens of the session */
    int repeat_last;
    char *piece; /* scratch for the longest token */
    size_t piece_size;
    bool ended; /* the last answer ended with an end token, which is not in the session */
    int64_t prompt_tokens, generated;
    double prompt_seconds, step_seconds, sample_seconds;
    fv_session_times prompt_times, step_times; /* the session's part of them, by stage */
} generator;

/* The functions return 0 or the exit code after printing the reason. */

/* Takes over the session, also when it fails. */
int generator_open(generator *g, fv_context *ctx, const fv_model *model, fv_session *session, int64_t room,
                   const fv_sampler_options *sampling, const cli_texts *stop);
void generator_close(generator *g);
/* Feeds a whole prompt, `before` it that id if it is not -1; no tokens is legal where the session has logits already. */
int generator_read(generator *g, int32_t before, const fv_tokens *prompt);
/* Writes up to n tokens, or until an end token or a stop string. `opening`: the answer begins a text of its own (in a chat), so
 * a vocabulary that puts a space before each word drops the first. `keep`: the session will be used again and gets the last token
 * too. */
int generator_write(generator *g, int64_t n, bool opening, bool keep);
void generator_stats(const generator *g);

#endif
