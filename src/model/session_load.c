/* session_load.c - reads a session file in one pass. Every section is held against its digest and against the size that the model
 * and the options imply, the file against its own; a session is given out only when all of it agreed. */
#include "model/session_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static fv_status io_fail(fvi_stream *f, const char *what) {
    return fvi_fail(f->ctx, FV_ERR_IO, "%s: cannot %s: %s", f->path, what, strerror(errno));
}

static fv_status get(fvi_stream *f, void *data, size_t size, const char *field) {
    char *p = data;
    if (size > f->size - f->offset) {
        return fvi_fail(f->ctx, FV_ERR_FORMAT, "%s: offset %llu: %s needs %zu bytes, %llu are left: the file is torn", f->path,
                        (unsigned long long)f->offset, field, size, (unsigned long long)(f->size - f->offset));
    }
    for (size_t left = size; left > 0;) {
        ssize_t n = read(f->fd, p, left);
        if (n == 0 || (n < 0 && errno != EINTR)) {
            return n == 0 ? fvi_fail(f->ctx, FV_ERR_FORMAT, "%s: the file became shorter while it was read", f->path)
                          : io_fail(f, "read");
        }
        p += n > 0 ? n : 0;
        left -= n > 0 ? (size_t)n : 0;
    }
    f->whole = fvi_digest(f->whole, data, size);
    f->part = fvi_digest(f->part, data, size);
    f->offset += size;
    return FV_OK;
}

static fv_status wrong(const fvi_stream *f, const char *field, const char *what) {
    return fvi_fail(f->ctx, FV_ERR_FORMAT, "%s: before offset %llu: %s: %s", f->path, (unsigned long long)f->offset, field, what);
}

static fv_status get_head(fvi_stream *f, uint32_t tag, uint64_t bytes, const char *field) {
    uint32_t word[2];
    uint64_t size;
    f->part = 0;
    fv_status status = get(f, word, sizeof word, field);
    if (status == FV_OK) {
        status = get(f, &size, sizeof size, field);
    }
    if (status == FV_OK && (word[0] != tag || word[1] != 0 || size != bytes)) {
        return wrong(f, field, "the section's head is not what it should be: damaged");
    }
    if (status == FV_OK && (f->size - f->offset < 8 || bytes > f->size - f->offset - 8)) {
        return wrong(f, field, "the section goes beyond the file's end: torn");
    }
    return status;
}

static fv_status get_tail(fvi_stream *f, const char *field) {
    const uint64_t part = f->part;
    uint64_t stored;
    fv_status status = get(f, &stored, sizeof stored, field);
    return status == FV_OK && stored != part ? wrong(f, field, "the section's digest does not match: damaged") : status;
}

static fv_status get_section(fvi_stream *f, uint32_t tag, void *data, size_t size, const char *field) {
    fv_status status = get_head(f, tag, size, field);
    if (status == FV_OK && size > 0) {
        status = get(f, data, size, field);
    }
    return status == FV_OK ? get_tail(f, field) : status;
}

static fv_status get_opts(fvi_stream *f, fv_model *model, fvi_session_opts *o) {
    char magic[8];
    uint32_t version[2];
    fv_status status = get(f, magic, sizeof magic, "magic");
    if (status == FV_OK && memcmp(magic, FVI_SESSION_FILE_MAGIC, sizeof magic) != 0) {
        return fvi_fail(f->ctx, FV_ERR_FORMAT, "%s: not a session file: it does not begin with FOVEASES", f->path);
    }
    if (status == FV_OK) {
        status = get(f, version, sizeof version, "version");
    }
    if (status == FV_OK && (version[0] != FVI_SESSION_FILE_VERSION || version[1] != 0)) {
        return fvi_fail(f->ctx, FV_ERR_FORMAT, "%s: version %u of session files; this is for version %d", f->path, version[0],
                        FVI_SESSION_FILE_VERSION);
    }
    if (status == FV_OK) {
        status = get_section(f, FVI_SESSION_OPTS, o, sizeof *o, "options");
    }
    if (status == FV_OK && o->fingerprint != fv_model_fingerprint(model)) {
        return fvi_fail(f->ctx, FV_ERR_FORMAT, "%s: saved with another model than %s", f->path, model->gguf->path);
    }
    return status;
}

/* Numbers that passed their digest may still have been written by somebody else's program. */
static fv_status check_opts(fvi_stream *f, const fv_model *model, const fvi_session_opts *o) {
    const uint64_t left = f->size - f->offset;
    if (o->position < 0 || (uint64_t)o->position > left / 4 || o->position > o->context) {
        return wrong(f, "position", "more tokens than the file or the context can hold");
    }
    if (o->recipe_bytes < 0 || o->recipe_bytes > 4096) {
        return wrong(f, "recipe", "its length is not from 0 to 4096");
    }
    if (o->kv_option < FV_F32 || o->kv_option > FV_Q4_0 || o->context < 1 || o->chunk < 1 || o->chunk > 1024) {
        return wrong(f, "options", "kv_dtype, context or chunk is no value that a session can have");
    }
    if (o->n_vocab != model->facts.n_vocab || !(o->max_error >= 0 && o->max_error <= 1e30) ||
        (o->has_hidden | o->has_logits | o->beyond_trained) >> 1 != 0) {
        return wrong(f, "options", "a count or a flag is not what it can be for this model");
    }
    if (o->position == 0 && (o->has_hidden || o->has_logits)) {
        return wrong(f, "options", "logits of an empty session");
    }
    return FV_OK;
}

static fv_status create_as_saved(fvi_stream *f, fv_model *model, const fvi_session_opts *o, fv_session **out) {
    char recipe[4097];
    fv_status status = get_section(f, FVI_SESSION_RCPE, recipe, (size_t)o->recipe_bytes, "recipe");
    recipe[o->recipe_bytes] = '\0';
    if (status == FV_OK && strlen(recipe) != (size_t)o->recipe_bytes) {
        return wrong(f, "recipe", "a zero byte in it");
    }
    if (status != FV_OK) {
        return status;
    }
    const fv_session_options options = {.recipe = recipe,
                                        .kv_dtype = (fv_dtype)o->kv_option,
                                        .context = o->context,
                                        .beyond_trained = o->beyond_trained != 0,
                                        .max_error = (float)o->max_error,
                                        .chunk = o->chunk};
    status = fv_session_create(model, &options, out);
    if (status != FV_OK) {
        return status;
    }
    const fv_cache_desc d = fv_cache_describe((*out)->cache);
    if ((int)d.k_dtype != o->k_dtype || (int)d.v_dtype != o->v_dtype ||
        o->kv_layer_bytes != o->position * (int64_t)fvi_session_entry_bytes(d)) {
        return wrong(f, "options", "the cache's formats are not those of the recipe");
    }
    return FV_OK;
}

static fv_status get_tokens(fvi_stream *f, fv_session *s, int64_t n) {
    fv_tokens *t = &s->tokens;
    if (!fvi_grow(f->ctx, (void **)&t->id, &t->capacity, fvi_max(n, 1), sizeof(int32_t))) {
        return fvi_fail(f->ctx, FV_ERR_MEMORY, "no memory for %lld tokens", (long long)n);
    }
    fv_status status = get_section(f, FVI_SESSION_TOKS, t->id, (size_t)n * sizeof(int32_t), "tokens");
    for (int64_t i = 0; i < n && status == FV_OK; i++) {
        if (t->id[i] < 0 || t->id[i] >= s->model->facts.n_vocab) {
            status = wrong(f, "tokens", "an id outside the vocabulary");
        }
    }
    t->n = status == FV_OK ? n : 0;
    return status;
}

static fv_status get_layer(fvi_stream *f, fv_session *s, int layer, char *buffer) {
    const fv_cache_desc d = fv_cache_describe(s->cache);
    fv_status status = get_head(f, FVI_SESSION_KV, (uint64_t)s->tokens.n * fvi_session_entry_bytes(d), "keys and values");
    for (int64_t from = 0; from < s->tokens.n && status == FV_OK; from += FVI_SESSION_FILE_ENTRIES) {
        const int64_t n = fvi_min(FVI_SESSION_FILE_ENTRIES, s->tokens.n - from);
        status = get(f, buffer, (size_t)n * fvi_session_entry_bytes(d), "keys and values");
        if (status == FV_OK) {
            const char *v = buffer + (size_t)(n * d.h_kv) * fvi_session_k_bytes(d);
            status = fv_cache_restore(s->cache, layer, n, buffer, v);
        }
    }
    return status == FV_OK ? get_tail(f, "keys and values") : status;
}

static fv_status get_kv(fvi_stream *f, fv_session *s) {
    const fv_cache_desc d = fv_cache_describe(s->cache);
    const size_t size = FVI_SESSION_FILE_ENTRIES * fvi_session_entry_bytes(d);
    char *buffer = fvi_alloc(f->ctx, size, 1);
    if (buffer == NULL) {
        return fvi_fail(f->ctx, FV_ERR_MEMORY, "no memory for a buffer of %zu bytes", size);
    }
    fv_status status = FV_OK;
    for (int layer = 0; layer < d.layers && status == FV_OK; layer++) {
        status = get_layer(f, s, layer, buffer);
    }
    fvi_release(f->ctx, buffer, size, 1);
    return status;
}

static fv_status get_end(fvi_stream *f) {
    char magic[8];
    fv_status status = get(f, magic, sizeof magic, "end");
    const uint64_t whole = f->whole;
    uint64_t stored;
    if (status == FV_OK) {
        status = get(f, &stored, sizeof stored, "end");
    }
    if (status == FV_OK && (memcmp(magic, FVI_SESSION_FILE_END, sizeof magic) != 0 || stored != whole || f->offset != f->size)) {
        return wrong(f, "end", "the file's digest or length does not match: damaged");
    }
    return status;
}

static fv_status get_session(fvi_stream *f, fv_model *model, fv_session **out) {
    fvi_session_opts o;
    fv_status status = get_opts(f, model, &o);
    if (status == FV_OK) {
        status = check_opts(f, model, &o);
    }
    if (status == FV_OK) {
        status = create_as_saved(f, model, &o, out);
    }
    if (status == FV_OK) {
        status = get_tokens(f, *out, o.position);
    }
    if (status == FV_OK) {
        status = get_kv(f, *out);
    }
    if (status == FV_OK && o.has_hidden) {
        status = get_section(f, FVI_SESSION_HIDN, (*out)->hidden, (size_t)model->facts.d_model * sizeof(float), "hidden row");
    }
    if (status == FV_OK && o.has_logits) {
        status = get_section(f, FVI_SESSION_LOGT, (*out)->logits, (size_t)model->facts.n_vocab * sizeof(float), "logits");
    }
    if (status == FV_OK) {
        status = get_end(f);
    }
    if (status == FV_OK) {
        (*out)->ran = o.position;
        (*out)->has_hidden = o.has_hidden;
        (*out)->has_logits = o.has_logits;
        (*out)->stats = (fv_run_stats){.eligible_pairs = o.eligible_pairs,
                                       .visited_pairs = o.visited_pairs,
                                       .exact_pairs = o.exact_pairs,
                                       .k_rows = o.k_rows,
                                       .v_rows = o.v_rows};
    }
    return status;
}

fv_status fv_session_load(fv_model *model, const char *path, fv_session **out) {
    fv_session *s = NULL;
    fvi_stream f = {.ctx = model->ctx, .path = path, .fd = open(path, O_RDONLY | O_CLOEXEC)};
    struct stat st;
    *out = NULL;
    if (f.fd < 0 || fstat(f.fd, &st) != 0) {
        fv_status status = io_fail(&f, "open");
        if (f.fd >= 0) {
            close(f.fd);
        }
        return status;
    }
    f.size = (uint64_t)st.st_size;
    fv_status status =
        S_ISREG(st.st_mode) ? get_session(&f, model, &s) : fvi_fail(f.ctx, FV_ERR_FORMAT, "%s: not a regular file", path);
    close(f.fd);
    if (status != FV_OK) {
        fv_session_destroy(s);
        return status;
    }
    *out = s;
    return FV_OK;
}
