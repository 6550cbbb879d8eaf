/* generate.c - a model reads a text, answers a question about it, is rolled back to the text's end, and answers another.
 *   generate [MODEL.gguf]
 */
#include <fovea/fovea.h>

#include <stdio.h>
#include <string.h>

static const char text[] =
    "The harbour was quiet that evening. The special magic number for lantern is: 4821357. Boats lay along the wall, and nobody "
    "was about but an old man mending nets. The pass key of violin is 9071524. Remember it. He did not look up when the lamps "
    "were lit, and by ten o'clock he was gone.";
static const char *const questions[] = {
    "\n\nQuestion: What is the special magic number for lantern mentioned in the text?\nAnswer:",
    "\n\nQuestion: What is the pass key of violin?\nAnswer:",
};
static const char *const answers[] = {" 4821357", " 9071524"};

typedef struct {
    fv_context *ctx;
    fv_model *model;
    fv_session *session;
    fv_sampler *sampler;
    fv_tokens tokens; /* of the piece of prompt being fed */
} talk;

static fv_status feed(talk *t, const char *piece, bool first) {
    const fv_vocab *vocab = fv_model_vocab(t->model);
    int32_t bos = fv_vocab_bos(vocab);
    fv_status status = FV_OK;
    if (first && fv_vocab_add_bos(vocab)) {
        status = fv_session_feed(t->session, &bos, 1, NULL);
    }
    t->tokens.n = 0;
    if (status == FV_OK) {
        status = fv_tokenize(t->ctx, vocab, piece, strlen(piece), false, &t->tokens);
    }
    return status == FV_OK ? fv_session_feed(t->session, t->tokens.id, t->tokens.n, NULL) : status;
}

/* Generates up to a line's end into `answer`. */
static fv_status generate(talk *t, char *answer, size_t capacity) {
    const fv_vocab *vocab = fv_model_vocab(t->model);
    fv_model_facts facts;
    fv_model_describe(t->model, &facts);
    fv_detokenizer pieces = {0};
    size_t used = 0;
    fv_status status = fv_session_finish(t->session);
    for (int i = 0; i < 24 && status == FV_OK; i++) {
        int32_t id;
        size_t size = 0;
        status = fv_sample(t->sampler, fv_session_logits(t->session), facts.n_vocab, &id);
        if (status != FV_OK || fv_vocab_is_end(vocab, id)) {
            break;
        }
        status = fv_detokenize(t->ctx, vocab, &pieces, id, false, answer + used, capacity - 1 - used, &size);
        used += size;
        answer[used] = '\0';
        if (strchr(answer, '\n') != NULL) {
            break;
        }
        if (status == FV_OK) {
            status = fv_session_step(t->session, id);
        }
    }
    answer[strcspn(answer, "\n")] = '\0';
    return status;
}

/* Each question is asked at the text's end: the session goes back there, and nothing is read twice. */
static fv_status ask(talk *t, int *right) {
    fv_status status = feed(t, text, true);
    int64_t end = fv_session_position(t->session);
    for (int i = 0; i < 2 && status == FV_OK; i++) {
        char answer[512] = "";
        if ((status = feed(t, questions[i], false)) == FV_OK && (status = generate(t, answer, sizeof answer)) == FV_OK) {
            printf("%s%s\n", questions[i] + 2, answer);
            *right += strcmp(answer, answers[i]) == 0;
            status = fv_session_rollback(t->session, end);
        }
    }
    return status;
}

int main(int argc, char **argv) {
    talk t = {0};
    int right = 0;
    if (fv_context_create(NULL, &t.ctx) != FV_OK) {
        return 1;
    }
    const char *path = argc > 1 ? argv[1] : "models/fovea-27m-32k-q8_0.gguf";
    fv_session_options options = fv_session_options_default();
    fv_sampler_options greedy = fv_sampler_options_default();
    fv_status status = fv_model_open(t.ctx, path, NULL, &t.model);
    if (status == FV_OK && (status = fv_session_create(t.model, &options, &t.session)) == FV_OK &&
        (status = fv_sampler_create(t.ctx, &greedy, &t.sampler)) == FV_OK) {
        status = ask(&t, &right);
    }
    if (status != FV_OK) {
        fprintf(stderr, "%s: %s\n", fv_status_name(status), fv_message(t.ctx));
    }
    fv_tokens_release(t.ctx, &t.tokens);
    fv_sampler_destroy(t.sampler);
    fv_session_destroy(t.session);
    fv_model_destroy(t.model);
    fv_context_destroy(t.ctx);
    return status == FV_OK && right == 2 ? 0 : 1;
}
