/* generate.c - prompt in, text out. Text leaves the program token by token; what could be the beginning of a stop string or is
 * half a UTF-8 character waits. */
#include "generate.h"

#include "common.h"
#include "stops.h"

#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int generator_open(generator *g, fv_context *ctx, const fv_model *model, fv_session *session, int64_t room,
                   const fv_sampler_options *sampling, const cli_texts *stop) {
    const fv_vocab *vocab = fv_model_vocab(model);
    fv_model_facts facts;
    fv_model_describe(model, &facts);
    *g = (generator){.ctx = ctx, .vocab = vocab, .session = session, .stop = stop, .n_vocab = facts.n_vocab, .room = room};
    g->repeat_last = sampling->repeat_last;
    size_t longest = 0, size = 0;
    for (int id = 0; id < fv_vocab_size(vocab); id++) {
        longest = fv_vocab_piece(vocab, id, &size) && size > longest ? size : longest;
    }
    g->piece_size = longest + 8;
    g->piece = malloc(g->piece_size);
    if (!g->piece) {
        return terminal_error(EXIT_RUNTIME, "out of memory");
    }
    fv_status status = fv_sampler_create(ctx, sampling, &g->sampler);
    return status ? terminal_status(ctx, status) : 0;
}

void generator_close(generator *g) {
    fv_sampler_destroy(g->sampler);
    fv_session_destroy(g->session);
    free(g->piece);
}

static int on_feed(void *user, int64_t done, int64_t total) {
    (void)user;
    return terminal_progress(NULL, "reading the prompt", total ? (double)done / (double)total : 1);
}

/* The sampler punishes repetition of the prompt's tokens too. */
static fv_status accept_prompt(generator *g, const fv_tokens *prompt) {
    int64_t from = prompt->n > g->repeat_last ? prompt->n - g->repeat_last : 0;
    fv_status status = FV_OK;
    for (int64_t i = from; i < prompt->n && !status; i++) {
        status = fv_sampler_accept(g->sampler, prompt->id[i]);
    }
    return status;
}

/* What the session did since `before`. */
static void add_times(fv_session_times *to, const fv_session *session, fv_session_times before) {
    const fv_session_times after = fv_session_seconds(session);
    to->embed += after.embed - before.embed;
    to->rows += after.rows - before.rows;
    to->weights += after.weights - before.weights;
    to->append += after.append - before.append;
    to->attention += after.attention - before.attention;
    to->head += after.head - before.head;
    to->total += after.total - before.total;
}

int generator_read(generator *g, int32_t before, const fv_tokens *prompt) {
    if (prompt->n == 0 && fv_session_logits(g->session)) {
        return 0;
    }
    double began = now();
    const fv_session_times times = fv_session_seconds(g->session);
    fv_feed feed = {.progress = on_feed};
    fv_status status = accept_prompt(g, prompt);
    status = status || before < 0 ? status : fv_session_feed(g->session, &before, 1, NULL);
    status = status ? status : fv_session_feed(g->session, prompt->id, prompt->n, &feed);
    status = status ? status : fv_session_finish(g->session);
    terminal_progress_end();
    g->prompt_seconds += now() - began;
    add_times(&g->prompt_times, g->session, times);
    g->prompt_tokens += prompt->n;
    return status ? terminal_status(g->ctx, status) : 0;
}

static int put(const char *text, size_t size) {
    if (size == 0) {
        return 0;
    }
    fwrite(text, 1, size, stdout);
    return terminal_flush();
}

/* Shows one token's text, less what is held back. */
static int show(generator *g, fv_detokenizer *state, stops *held, int32_t id) {
    size_t size = 0;
    fv_status status = fv_detokenize(g->ctx, g->vocab, state, id, false, g->piece, g->piece_size, &size);
    if (status) {
        return terminal_status(g->ctx, status);
    }
    const char *ready;
    size_t n = stops_add(held, g->piece, size, &ready);
    return held->failed ? terminal_error(EXIT_RUNTIME, "out of memory") : put(ready, n);
}

static int show_rest(generator *g, fv_detokenizer *state, stops *held) {
    const char *ready;
    size_t n = stops_add(held, g->piece, fv_detokenize_flush(state, g->piece, g->piece_size), &ready);
    int code = put(ready, n);
    n = stops_end(held, &ready);
    return code ? code : put(ready, n);
}

/* One token: chosen, shown, and made part of the session if more is to come. */
static int write_token(generator *g, fv_detokenizer *state, stops *held, bool go_on) {
    int32_t id = 0;
    double began = now();
    fv_status status = fv_sample(g->sampler, fv_session_logits(g->session), g->n_vocab, &id);
    g->sample_seconds += now() - began;
    if (status) {
        return terminal_status(g->ctx, status);
    }
    g->ended = fv_vocab_is_end(g->vocab, id);
    if (g->ended) {
        return 0;
    }
    g->generated++;
    int code = show(g, state, held, id);
    if (!code && go_on) {
        status = fv_session_step(g->session, id);
        code = status ? terminal_status(g->ctx, status) : 0;
    }
    return code;
}

int generator_write(generator *g, int64_t n, bool opening, bool keep) {
    fv_detokenizer state = {.started = !opening};
    stops held;
    stops_init(&held, g->stop);
    double began = now();
    const fv_session_times times = fv_session_seconds(g->session);
    int code = 0;
    int64_t left = g->room - fv_session_position(g->session);
    for (int64_t i = 0; i < n && !code; i++) {
        if (i >= left) {
            terminal_note("the context of %" PRId64 " tokens is full", g->room);
            break;
        }
        code = write_token(g, &state, &held, keep || i + 1 < n);
        code = code ? code : terminal_interrupted() ? EXIT_INTERRUPTED : 0;
        if (g->ended || held.found) {
            break;
        }
    }
    int rest = code && code != EXIT_INTERRUPTED ? code : show_rest(g, &state, &held);
    stops_release(&held);
    g->step_seconds += now() - began;
    add_times(&g->step_times, g->session, times);
    return code ? code : rest;
}

/* A line of milliseconds by stage, `per` a second. */
static void print_times(const char *what, const fv_session_times *t, double sampling, double per) {
    terminal_note("%s: weights %.3f, attention %.3f, norms, rotations and gates %.3f, cache %.3f, embedding %.3f, head %.3f, "
                  "sampling %.3f",
                  what, t->weights * per, t->attention * per, t->rows * per, t->append * per, t->embed * per, t->head * per,
                  sampling * per);
}

void generator_stats(const generator *g) {
    char bytes[32];
    fv_run_stats s = fv_session_stats(g->session);
    double density = s.eligible_pairs ? (double)s.visited_pairs / (double)s.eligible_pairs : 1;
    terminal_note("prompt %" PRId64 " tokens in %.2f s, %.0f tokens/s", g->prompt_tokens, g->prompt_seconds,
                  g->prompt_seconds > 0 ? (double)g->prompt_tokens / g->prompt_seconds : 0);
    if (g->prompt_tokens > 0) {
        print_times("ms a prompt token", &g->prompt_times, 0, 1e3 / (double)g->prompt_tokens);
    }
    terminal_note("generated %" PRId64 " tokens in %.2f s, %.0f tokens/s", g->generated, g->step_seconds,
                  g->step_seconds > 0 ? (double)g->generated / g->step_seconds : 0);
    if (g->generated > 0) {
        print_times("ms a generated token", &g->step_times, g->sample_seconds, 1e3 / (double)g->generated);
    }
    if (s.tiles > 0) {
        terminal_note("chosen for %" PRIu64
                      " tiles in %.2f s of all threads; %.1f%% of them dense, since the method gives up there",
                      s.tiles, s.select_seconds, 100 * (double)s.fallback_tiles / (double)s.tiles);
    }
    if (s.audited_heads > 0) {
        terminal_note("audit: %" PRIu64 " of %" PRIu64 " heads run densely; the largest estimated error was %.3g", s.dense_heads,
                      s.audited_heads, s.worst_error);
    }
    terminal_note("KV %s for %" PRId64 " tokens, density %.3f, attention \"%s\"",
                  common_bytes((double)fv_session_kv_bytes(g->session), bytes), fv_session_position(g->session), density,
                  fv_session_recipe(g->session));
}
