/* fuzz_session.c - any bytes as a session file of a tiny model. The last byte says how: 1 repairs the digests, which no
 * mutation would ever hit, so that what stands behind them is reached; 2 puts the model's fingerprint in. What loads must go on.
 */
#include "fuzz.h"
#include "model/session_file.h"
#include "tiny.h"

static alloc_fail memory;
static fv_context *ctx;
static fv_model *model;

static void start(void) {
    size_t size;
    uint8_t *image = tiny_model(TINY_PLAIN, false, &size, NULL);
    char path[] = "/tmp/fovea-fuzz-model-XXXXXX";
    int fd = mkstemp(path);
    FUZZ_CHECK(fd >= 0 && write(fd, image, size) == (ssize_t)size);
    close(fd);
    ctx = alloc_fail_begin(&memory, 1);
    fv_status status = fv_model_open(ctx, path, NULL, &model);
    if (status != FV_OK) {
        fprintf(stderr, "%s\n", fv_message(ctx));
    }
    FUZZ_CHECK(status == FV_OK);
    unlink(path);
    free(image);
}

typedef struct repair {
    uint8_t *data;
    size_t size, at;
    uint64_t whole, part;
} repair;

static void pass(repair *r, size_t n) {
    r->whole = fvi_digest(r->whole, r->data + r->at, n);
    r->part = fvi_digest(r->part, r->data + r->at, n);
    r->at += n;
}

/* Bytes that the loader digests at a time: entries of a cache come in pieces. */
static size_t piece_of(const repair *r, uint32_t tag) {
    const fvi_session_opts *o = (const fvi_session_opts *)(const void *)(r->data + 32);
    uint64_t entry = 2 * (fv_dtype_bytes((fv_dtype)o->k_dtype, 16) + fv_dtype_bytes((fv_dtype)o->v_dtype, 16));
    return tag == FVI_SESSION_KV && entry > 0 ? entry * FVI_SESSION_FILE_ENTRIES : SIZE_MAX;
}

/* Walks the sections as the file gives them and writes the right digest behind each. */
static bool repair_section(repair *r) {
    uint32_t tag;
    uint64_t bytes;
    if (r->size - r->at < 24) {
        return false;
    }
    memcpy(&tag, r->data + r->at, 4);
    memcpy(&bytes, r->data + r->at + 8, 8);
    if (bytes > r->size - r->at - 24) {
        return false;
    }
    r->part = 0;
    pass(r, 8);
    pass(r, 8);
    for (size_t left = bytes; left > 0;) {
        size_t piece = piece_of(r, tag), n = left < piece ? left : piece;
        pass(r, n);
        left -= n;
    }
    memcpy(r->data + r->at, &r->part, 8);
    pass(r, 8);
    return true;
}

static void repair_all(uint8_t *data, size_t size) {
    repair r = {.data = data, .size = size};
    if (size < 32 + sizeof(fvi_session_opts)) {
        return;
    }
    pass(&r, 8);
    pass(&r, 8);
    while (r.size - r.at > 16 && repair_section(&r)) {
    }
    if (r.size - r.at == 16) {
        pass(&r, 8);
        memcpy(r.data + r.at, &r.whole, 8);
    }
}

static void go_on(fv_session *s) {
    int64_t position = fv_session_position(s);
    FUZZ_CHECK(position >= 0 && position <= 1 << 20);
    if (fv_session_logits(s) == NULL) {
        return;
    }
    if (fv_session_step(s, 5) == FV_OK) {
        FUZZ_CHECK(fv_session_position(s) == position + 1 && fv_session_logits(s) != NULL);
    }
    FUZZ_CHECK(fv_session_rollback(s, position / 2) == FV_OK);
    FUZZ_CHECK(fv_session_position(s) == position / 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (model == NULL) {
        start();
    }
    if (size == 0) {
        return 0;
    }
    int how = data[--size];
    uint8_t *copy = fuzz_copy(data, size);
    const size_t fingerprint_at = 32;
    if ((how & 2) != 0 && size >= fingerprint_at + 8) {
        uint64_t fingerprint = fv_model_fingerprint(model);
        memcpy(copy + fingerprint_at, &fingerprint, 8);
    }
    if ((how & 1) != 0) {
        repair_all(copy, size);
    }
    fuzz_file file = fuzz_open(copy, size);
    fv_session *s;
    long long blocks = memory.blocks;
    alloc_fail_arm(&memory, (how & 4) != 0 ? fuzz_failing(data, size) : 0);
    fv_status status = fv_session_load(model, file.path, &s);
    FUZZ_CHECK((status == FV_OK) == (s != NULL));
    if (status == FV_OK) {
        go_on(s);
        fv_session_destroy(s);
    } else {
        FUZZ_CHECK(fv_message(ctx)[0] != '\0');
    }
    alloc_fail_arm(&memory, 0);
    FUZZ_CHECK(memory.blocks == blocks && memory.mismatched == 0 && memory.overrun == 0);
    fuzz_close(&file);
    free(copy);
    return 0;
}
