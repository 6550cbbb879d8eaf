/* chat.c - prompt forms. Only a form's own markers are parsed as special tokens; a user's text is text, whatever it says.
 *
 *   plain    the text as it is
 *   chatml   <|im_start|>user\n TEXT <|im_end|>\n <|im_start|>assistant\n
 * In chatml a first turn begins with the system message that the file's template has of its own, if any; a later turn first
 * closes the answer before it, whose end token ended the generation without becoming part of the sequence. */
#include "model/arch.h"

#include <string.h>

typedef struct writer {
    fv_model *model;
    fv_tokens *out;
    fv_status status;
} writer;

static void text(writer *w, const char *s, size_t size) {
    if (w->status == FV_OK) {
        w->status = fv_tokenize(w->model->ctx, w->model->vocab, s, size, false, w->out);
    }
}

static void push(writer *w, int32_t id) {
    if (w->status != FV_OK) {
        return;
    }
    if (!fvi_grow(w->model->ctx, (void **)&w->out->id, &w->out->capacity, w->out->n + 1, sizeof id)) {
        w->status = fvi_fail(w->model->ctx, FV_ERR_MEMORY, "no memory for a turn of %lld tokens", (long long)w->out->n + 1);
        return;
    }
    w->out->id[w->out->n++] = id;
}

/* A marker must be one special token, or the form makes no sense to this model. */
static void marker(writer *w, const char *name) {
    const int64_t before = w->out->n;
    if (w->status != FV_OK) {
        return;
    }
    w->status = fv_tokenize(w->model->ctx, w->model->vocab, name, strlen(name), true, w->out);
    if (w->status == FV_OK && w->out->n != before + 1) {
        w->status =
            fvi_fail(w->model->ctx, FV_ERR_UNSUPPORTED, "the form chatml needs the token %s, which the vocabulary lacks", name);
    }
}

/* role\n TEXT between the markers. They are tokenized together, as a template's output is. */
static void message(writer *w, const char *role, const char *s, size_t size) {
    fv_context *ctx = w->model->ctx;
    const size_t head = strlen(role);
    char *joined = w->status == FV_OK && size < SIZE_MAX - head ? fvi_alloc(ctx, head + size, 1) : NULL;
    if (joined == NULL) {
        w->status = w->status == FV_OK ? fvi_fail(ctx, FV_ERR_MEMORY, "no memory for a turn of %zu bytes", size) : w->status;
        return;
    }
    memcpy(joined, role, head);
    memcpy(joined + head, s, size);
    marker(w, "<|im_start|>");
    text(w, joined, head + size);
    marker(w, "<|im_end|>");
    text(w, "\n", 1);
    fvi_release(ctx, joined, head + size, 1);
}

static void chatml(writer *w, const char *s, size_t size, bool first) {
    if (!first) {
        marker(w, "<|im_end|>");
        text(w, "\n", 1);
    } else if (w->model->system != NULL) {
        message(w, "system\n", w->model->system, strlen(w->model->system));
    }
    message(w, "user\n", s, size);
    marker(w, "<|im_start|>");
    text(w, "assistant\n", 10);
}

fv_status fv_chat_turn(fv_model *model, const char *form, const char *s, size_t size, bool first, fv_tokens *out) {
    form = form != NULL ? form : model->facts.prompt_form;
    const bool plain = strcmp(form, "plain") == 0;
    if (!plain && strcmp(form, "chatml") != 0) {
        return fvi_fail(model->ctx, FV_ERR_ARGUMENT, "no prompt form \"%.32s\"; there are plain and chatml", form);
    }
    writer w = {model, out, FV_OK};
    const int64_t before = out->n;
    if (first && fv_vocab_add_bos(model->vocab) && fv_vocab_bos(model->vocab) >= 0) {
        push(&w, fv_vocab_bos(model->vocab));
    }
    if (plain) {
        text(&w, s, size);
    } else {
        chatml(&w, s, size, first);
    }
    if (w.status != FV_OK) {
        out->n = before;
    }
    return w.status;
}
