/* session_save.c - writes a session under another name beside its place, brings it to disk, and renames it: whoever opens the
 * path sees the old file or the new one, whole. */
#include "model/session_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static fv_status io_fail(fvi_stream *f, const char *what) {
    return fvi_fail(f->ctx, FV_ERR_IO, "%s: cannot %s: %s", f->path, what, strerror(errno));
}

static fv_status put(fvi_stream *f, const void *data, size_t size) {
    const char *p = data;
    f->whole = fvi_digest(f->whole, data, size);
    f->part = fvi_digest(f->part, data, size);
    for (size_t left = size; left > 0;) {
        ssize_t n = write(f->fd, p, left);
        if (n < 0 && errno != EINTR) {
            return io_fail(f, "write");
        }
        p += n > 0 ? n : 0;
        left -= n > 0 ? (size_t)n : 0;
    }
    f->offset += size;
    return FV_OK;
}

static fv_status put_head(fvi_stream *f, uint32_t tag, uint64_t bytes) {
    const uint32_t word[2] = {tag, 0};
    f->part = 0;
    fv_status status = put(f, word, sizeof word);
    return status == FV_OK ? put(f, &bytes, sizeof bytes) : status;
}

static fv_status put_tail(fvi_stream *f) {
    const uint64_t part = f->part;
    return put(f, &part, sizeof part);
}

static fv_status put_section(fvi_stream *f, uint32_t tag, const void *data, size_t size) {
    fv_status status = put_head(f, tag, size);
    if (status == FV_OK && size > 0) {
        status = put(f, data, size);
    }
    return status == FV_OK ? put_tail(f) : status;
}

static fv_status put_layer(fvi_stream *f, const fv_session *s, int layer, char *buffer) {
    const fv_cache_desc d = fv_cache_describe(s->cache);
    fv_status status = put_head(f, FVI_SESSION_KV, (uint64_t)s->tokens.n * fvi_session_entry_bytes(d));
    for (int64_t from = 0; from < s->tokens.n && status == FV_OK; from += FVI_SESSION_FILE_ENTRIES) {
        const int64_t n = fvi_min(FVI_SESSION_FILE_ENTRIES, s->tokens.n - from);
        char *k = buffer, *v = buffer + (size_t)(n * d.h_kv) * fvi_session_k_bytes(d);
        for (int64_t h = 0; h < d.h_kv && status == FV_OK; h++) {
            status = fv_cache_read(s->cache, layer, h, from, n, k + (size_t)(h * n) * fvi_session_k_bytes(d),
                                   v + (size_t)(h * n) * fvi_session_v_bytes(d));
        }
        if (status == FV_OK) {
            status = put(f, buffer, (size_t)n * fvi_session_entry_bytes(d));
        }
    }
    return status == FV_OK ? put_tail(f) : status;
}

static fvi_session_opts describe(const fv_session *s) {
    const fv_cache_desc d = fv_cache_describe(s->cache);
    return (fvi_session_opts){.fingerprint = fv_model_fingerprint(s->model),
                              .context = s->options.context,
                              .chunk = s->options.chunk,
                              .position = s->tokens.n,
                              .recipe_bytes = (int64_t)strlen(s->recipe_text),
                              .eligible_pairs = s->stats.eligible_pairs,
                              .visited_pairs = s->stats.visited_pairs,
                              .exact_pairs = s->stats.exact_pairs,
                              .k_rows = s->stats.k_rows,
                              .v_rows = s->stats.v_rows,
                              .k_dtype = d.k_dtype,
                              .v_dtype = d.v_dtype,
                              .kv_option = s->options.kv_dtype,
                              .beyond_trained = s->options.beyond_trained,
                              .max_error = (double)s->options.max_error,
                              .has_hidden = s->has_hidden,
                              .has_logits = s->has_logits,
                              .kv_layer_bytes = s->tokens.n * (int64_t)fvi_session_entry_bytes(d),
                              .n_vocab = s->model->facts.n_vocab};
}

static fv_status put_kv(fvi_stream *f, const fv_session *s) {
    const fv_cache_desc d = fv_cache_describe(s->cache);
    const size_t size = FVI_SESSION_FILE_ENTRIES * fvi_session_entry_bytes(d);
    char *buffer = fvi_alloc(f->ctx, size, 1);
    if (buffer == NULL) {
        return fvi_fail(f->ctx, FV_ERR_MEMORY, "no memory for a buffer of %zu bytes", size);
    }
    fv_status status = FV_OK;
    for (int layer = 0; layer < d.layers && status == FV_OK; layer++) {
        status = put_layer(f, s, layer, buffer);
    }
    fvi_release(f->ctx, buffer, size, 1);
    return status;
}

static fv_status put_session(fvi_stream *f, const fv_session *s) {
    const fvi_session_opts o = describe(s);
    const uint32_t version[2] = {FVI_SESSION_FILE_VERSION, 0};
    fv_status status = put(f, FVI_SESSION_FILE_MAGIC, 8);
    if (status == FV_OK) {
        status = put(f, version, sizeof version);
    }
    if (status == FV_OK) {
        status = put_section(f, FVI_SESSION_OPTS, &o, sizeof o);
    }
    if (status == FV_OK) {
        status = put_section(f, FVI_SESSION_RCPE, s->recipe_text, (size_t)o.recipe_bytes);
    }
    if (status == FV_OK) {
        status = put_section(f, FVI_SESSION_TOKS, s->tokens.id, (size_t)s->tokens.n * sizeof(int32_t));
    }
    if (status == FV_OK) {
        status = put_kv(f, s);
    }
    if (status == FV_OK && s->has_hidden) {
        status = put_section(f, FVI_SESSION_HIDN, s->hidden, (size_t)s->model->facts.d_model * sizeof(float));
    }
    if (status == FV_OK && s->has_logits) {
        status = put_section(f, FVI_SESSION_LOGT, s->logits, (size_t)s->model->facts.n_vocab * sizeof(float));
    }
    if (status == FV_OK) {
        status = put(f, FVI_SESSION_FILE_END, 8);
    }
    const uint64_t whole = f->whole;
    return status == FV_OK ? put(f, &whole, sizeof whole) : status;
}

/* So that the name itself is on disk. Some file systems cannot sync a directory; the file is whole all the same. */
static void sync_directory(const char *path, char *buffer) {
    const char *slash = strrchr(path, '/');
    size_t n = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
    memcpy(buffer, n > 0 ? path : ".", n > 0 ? n : 1);
    buffer[n > 0 ? n : 1] = '\0';
    int fd = open(buffer, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
}

/* A new file of its own; its rights are those that the umask leaves. */
static int create_beside(const char *path, char *name, size_t size) {
    uint64_t number = (uint64_t)getpid() << 32 ^ (uint64_t)(fvi_seconds() * 1e9);
    int fd = -1;
    errno = EEXIST;
    for (int attempt = 0; attempt < 100 && fd < 0 && errno == EEXIST; attempt++) {
        snprintf(name, size, "%s.tmp-%06x", path, (unsigned)(fvi_digest(number, &attempt, sizeof attempt) >> 40));
        fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    }
    return fd;
}

static fv_status write_and_rename(fvi_stream *f, const fv_session *s, char *temporary, size_t size) {
    f->fd = create_beside(f->path, temporary, size);
    if (f->fd < 0) {
        return io_fail(f, "create a file beside it");
    }
    fv_status status = put_session(f, s);
    if (status == FV_OK && fsync(f->fd) != 0) {
        status = io_fail(f, "bring to disk");
    }
    if (close(f->fd) != 0 && status == FV_OK) {
        status = io_fail(f, "close");
    }
    if (status == FV_OK && rename(temporary, f->path) != 0) {
        status = io_fail(f, "put the new file in its place");
    }
    if (status != FV_OK) {
        unlink(temporary);
    }
    return status;
}

fv_status fv_session_save(fv_session *session, const char *path) {
    if (session->tokens.n > session->ran) {
        return fvi_fail(
            session->ctx, FV_ERR_STATE,
            "%lld tokens of the open prompt wait for its end, since the method looks at whole prompts; finish it, then save",
            (long long)(session->tokens.n - session->ran));
    }
    if (session->options.profile != NULL) {
        return fvi_fail(session->ctx, FV_ERR_UNSUPPORTED,
                        "the session's profile is its caller's and %s could not name it: write the profile to a file, and name "
                        "that in the recipe",
                        path);
    }
    const size_t n = strlen(path), size = n + sizeof ".tmp-000000";
    char *temporary = fvi_alloc(session->ctx, size, 1);
    if (temporary == NULL) {
        return fvi_fail(session->ctx, FV_ERR_MEMORY, "no memory for a file's name");
    }
    fvi_stream f = {.ctx = session->ctx, .path = path, .fd = -1};
    fv_status status = write_and_rename(&f, session, temporary, size);
    if (status == FV_OK) {
        sync_directory(path, temporary);
    }
    fvi_release(session->ctx, temporary, size, 1);
    return status;
}
