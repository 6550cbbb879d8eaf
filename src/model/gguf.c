/* gguf.c - reading a GGUF file: header, metadata, tensor directory, tensor data, in the order of the file.
 *
 * Nothing in the file is believed. Every read goes through take(), which knows how many bytes are left; a count is compared with
 * what the rest of the file could hold before anything is allocated for it, so memory stays within about eight times the file.
 * What is refused is refused by its offset in the file. The mapping is read only and private; a file that another program cuts
 * short while it is mapped is outside of what can be checked here.
 */
#include "model/gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The smallest records: a key of one byte with a one-byte value; a name of one byte with one dimension. */
#define LEAST_ENTRY  14u
#define LEAST_TENSOR 33u
/* GGUF asks for multiples of 8 and powers of two; the top is far beyond a page and keeps sums small. */
#define LEAST_ALIGNMENT 8u
#define MOST_ALIGNMENT  (1u << 20)

typedef struct reader {
    fvi_gguf *g;
    uint64_t at;
    const char *kind; /* "key" or "tensor", "" before a name is known */
    fvi_string name;
} reader;

#define FAIL(r, status, offset, ...) fvi_gguf_fail((r)->g, status, offset, (r)->kind, (r)->name, __VA_ARGS__)

static uint64_t left(const reader *r) { return r->g->map_bytes - r->at; }

static fv_status take(reader *r, void *out, size_t size, const char *what) {
    if (left(r) < size) {
        return FAIL(r, FV_ERR_FORMAT, r->at, "%s needs %zu bytes, but the file ends at %zu", what, size, r->g->map_bytes);
    }
    memcpy(out, r->g->map + r->at, size);
    r->at += size;
    return FV_OK;
}

static fv_status take_string(reader *r, fvi_string *out, const char *what) {
    uint64_t at = r->at, size = 0;
    fv_status status = take(r, &size, 8, what);
    if (status != FV_OK) {
        return status;
    }
    if (size > left(r)) {
        return FAIL(r, FV_ERR_FORMAT, at, "%s is said to have %" PRIu64 " bytes, but the file has only %" PRIu64 " more", what,
                    size, left(r));
    }
    *out = (fvi_string){(const char *)r->g->map + r->at, (size_t)size};
    r->at += size;
    return FV_OK;
}

static fv_status take_name(reader *r, const char *kind, fvi_string *out) {
    uint64_t at = r->at;
    r->kind = "";
    fv_status status = take_string(r, out, kind);
    if (status == FV_OK && out->size == 0) {
        status = FAIL(r, FV_ERR_FORMAT, at, "a %s with an empty name", kind);
    }
    r->kind = kind;
    r->name = *out;
    return status;
}

/* ---- header ---- */

static fv_status read_version(reader *r) {
    char magic[4];
    fv_status status = take(r, magic, sizeof magic, "magic");
    if (status != FV_OK) {
        return status;
    }
    if (memcmp(magic, "GGUF", 4) != 0) {
        return FAIL(r, FV_ERR_FORMAT, 0, "not a GGUF file: it does not start with 'GGUF'");
    }
    status = take(r, &r->g->version, 4, "version");
    if (status != FV_OK) {
        return status;
    }
    uint32_t version = r->g->version;
    if (version == 0 || (version & 0xffff) == 0) {
        return version == 0 ? FAIL(r, FV_ERR_FORMAT, 4, "version 0 (2 and 3 are read)")
                            : FAIL(r, FV_ERR_UNSUPPORTED, 4, "a big-endian file (little-endian is read)");
    }
    if (version != 2 && version != 3) {
        return FAIL(r, FV_ERR_UNSUPPORTED, 4, "version %" PRIu32 " (2 and 3 are read)", version);
    }
    return FV_OK;
}

static fv_status read_count(reader *r, const char *what, uint64_t least_bytes, int64_t *out) {
    uint64_t at = r->at, n = 0;
    fv_status status = take(r, &n, 8, what);
    if (status != FV_OK) {
        return status;
    }
    uint64_t most = left(r) / least_bytes;
    if (n > most) {
        return FAIL(r, FV_ERR_FORMAT, at, "%s is %" PRIu64 ", but a file of %zu bytes holds at most %" PRIu64, what, n,
                    r->g->map_bytes, most);
    }
    *out = (int64_t)n;
    return FV_OK;
}

/* Both counts, then room for both tables; zeroed, so that a half-read one can be destroyed. */
static fv_status read_counts(reader *r) {
    fvi_gguf *g = r->g;
    int64_t tensors = 0, entries = 0;
    fv_status status = read_count(r, "tensor count", LEAST_TENSOR, &tensors);
    if (status == FV_OK) {
        status = read_count(r, "metadata count", LEAST_ENTRY, &entries);
    }
    if (status != FV_OK) {
        return status;
    }
    if (entries > 0) {
        g->entry = fvi_zalloc(g->ctx, (size_t)entries, sizeof *g->entry);
        g->n_entries = g->entry != NULL ? entries : 0;
    }
    if (tensors > 0) {
        g->tensor = fvi_zalloc(g->ctx, (size_t)tensors, sizeof *g->tensor);
        g->n_tensors = g->tensor != NULL ? tensors : 0;
    }
    if (g->n_entries != entries || g->n_tensors != tensors) {
        return fvi_fail(g->ctx, FV_ERR_MEMORY, "%s: no memory for %" PRId64 " metadata entries and %" PRId64 " tensors", g->path,
                        entries, tensors);
    }
    return FV_OK;
}

/* ---- metadata ---- */

static fv_status take_type(reader *r, const char *what, fvi_gguf_type *out) {
    uint64_t at = r->at;
    uint32_t type = 0;
    fv_status status = take(r, &type, 4, what);
    if (status == FV_OK && type >= FVI_GGUF_TYPE_COUNT) {
        status = FAIL(r, FV_ERR_FORMAT, at, "%s %" PRIu32 " is unknown (0 to %d are known)", what, type, FVI_GGUF_TYPE_COUNT - 1);
    }
    *out = status == FV_OK ? (fvi_gguf_type)type : FVI_GGUF_U8;
    return status;
}

static fv_status check_bools(reader *r, const fvi_gguf_entry *e) {
    for (uint64_t i = 0; i < e->count; i++) {
        if (e->data[i] > 1) {
            return FAIL(r, FV_ERR_FORMAT, e->offset + i, "a bool is %u (0 or 1 are right)", e->data[i]);
        }
    }
    return FV_OK;
}

static fv_status skip_strings(reader *r, uint64_t n) {
    fvi_string s;
    fv_status status = FV_OK;
    for (uint64_t i = 0; i < n && status == FV_OK; i++) {
        status = take_string(r, &s, "a string");
    }
    return status;
}

static fv_status skip_values(reader *r, fvi_gguf_entry *e, fvi_gguf_type type) {
    e->offset = r->at;
    e->data = r->g->map + r->at;
    uint64_t least = type == FVI_GGUF_STRING ? 8 : fvi_gguf_value_bytes(type);
    if (e->count > left(r) / least) {
        return FAIL(r, FV_ERR_FORMAT, r->at,
                    "%" PRIu64 " values of %s need at least %" PRIu64 " bytes each, but the file has only %" PRIu64 " more",
                    e->count, fvi_gguf_value_name(type), least, left(r));
    }
    fv_status status = FV_OK;
    if (type == FVI_GGUF_STRING) {
        status = skip_strings(r, e->count);
    } else {
        r->at += e->count * least;
        status = type == FVI_GGUF_BOOL ? check_bools(r, e) : FV_OK;
    }
    e->bytes = r->at - e->offset;
    return status;
}

static fv_status read_entry(reader *r, fvi_gguf_entry *e) {
    fv_status status = take_name(r, "key", &e->key);
    if (status == FV_OK) {
        status = take_type(r, "value type", &e->type);
    }
    if (status != FV_OK) {
        return status;
    }
    e->element = e->type;
    e->count = 1;
    if (e->type == FVI_GGUF_ARRAY) {
        uint64_t at = r->at;
        status = take_type(r, "element type", &e->element);
        if (status == FV_OK && e->element == FVI_GGUF_ARRAY) {
            status = FAIL(r, FV_ERR_UNSUPPORTED, at, "an array of arrays (arrays of numbers, bools and strings are read)");
        }
        if (status == FV_OK) {
            status = take(r, &e->count, 8, "array length");
        }
    }
    return status == FV_OK ? skip_values(r, e, e->element) : status;
}

/* ---- tensors ---- */

/* Tensor types by GGUF's numbers. What the table does not name is not a type of GGUF (or no longer one). */
static const struct {
    const char *name;
    uint16_t block, bytes;
    bool computed; /* has a dtype of ours */
    fv_dtype dtype;
} tensor_type[] = {
    [0] = {"f32", 1, 4, true, FV_F32},     [1] = {"f16", 1, 2, true, FV_F16},     [2] = {"q4_0", 32, 18, true, FV_Q4_0},
    [3] = {"q4_1", 32, 20, true, FV_Q4_1}, [6] = {"q5_0", 32, 22, false, 0},      [7] = {"q5_1", 32, 24, false, 0},
    [8] = {"q8_0", 32, 34, true, FV_Q8_0}, [9] = {"q8_1", 32, 36, false, 0},      [10] = {"q2_k", 256, 84, false, 0},
    [11] = {"q3_k", 256, 110, false, 0},   [12] = {"q4_k", 256, 144, false, 0},   [13] = {"q5_k", 256, 176, false, 0},
    [14] = {"q6_k", 256, 210, false, 0},   [15] = {"q8_k", 256, 292, false, 0},   [16] = {"iq2_xxs", 256, 66, false, 0},
    [17] = {"iq2_xs", 256, 74, false, 0},  [18] = {"iq3_xxs", 256, 98, false, 0}, [19] = {"iq1_s", 256, 50, false, 0},
    [20] = {"iq4_nl", 32, 18, false, 0},   [21] = {"iq3_s", 256, 110, false, 0},  [22] = {"iq2_s", 256, 82, false, 0},
    [23] = {"iq4_xs", 256, 136, false, 0}, [24] = {"i8", 1, 1, false, 0},         [25] = {"i16", 1, 2, false, 0},
    [26] = {"i32", 1, 4, false, 0},        [27] = {"i64", 1, 8, false, 0},        [28] = {"f64", 1, 8, false, 0},
    [29] = {"iq1_m", 256, 56, false, 0},   [30] = {"bf16", 1, 2, true, FV_BF16},  [34] = {"tq1_0", 256, 54, false, 0},
    [35] = {"tq2_0", 256, 66, false, 0},   [39] = {"mxfp4", 32, 17, false, 0},
};

const char *fvi_gguf_type_name(uint32_t file_type) {
    return file_type < sizeof tensor_type / sizeof *tensor_type ? tensor_type[file_type].name : NULL;
}

static fv_status read_shape(reader *r, fvi_gguf_tensor *t) {
    uint64_t at = r->at, n = 1;
    uint32_t rank = 0;
    fv_status status = take(r, &rank, 4, "rank");
    if (status == FV_OK && (rank < 1 || rank > 4)) {
        status = FAIL(r, FV_ERR_FORMAT, at, "rank %" PRIu32 " (1 to 4 are right)", rank);
    }
    if (status != FV_OK) {
        return status;
    }
    t->rank = (int)rank;
    for (int i = 0; i < 4; i++) {
        uint64_t d = 1;
        at = r->at;
        status = i < t->rank ? take(r, &d, 8, "dimension") : FV_OK;
        if (status != FV_OK) {
            return status;
        }
        if (d == 0 || d > INT64_MAX || __builtin_mul_overflow(n, d, &n) || n > INT64_MAX) {
            return FAIL(r, FV_ERR_FORMAT, at, "dimension %d is %" PRIu64 ": the shape must have from 1 to 2^63 - 1 elements", i,
                        d);
        }
        t->shape[i] = (int64_t)d;
    }
    return FV_OK;
}

static fv_status read_type(reader *r, fvi_gguf_tensor *t) {
    uint64_t at = r->at;
    fv_status status = take(r, &t->file_type, 4, "tensor type");
    if (status != FV_OK) {
        return status;
    }
    if (fvi_gguf_type_name(t->file_type) == NULL) {
        return FAIL(r, FV_ERR_FORMAT, at, "tensor type %" PRIu32 " is unknown", t->file_type);
    }
    uint64_t block = tensor_type[t->file_type].block;
    if ((uint64_t)t->shape[0] % block != 0) {
        return FAIL(r, FV_ERR_FORMAT, at, "rows of %" PRId64 " elements are not a multiple of the %" PRIu64 " of a %s block",
                    t->shape[0], block, fvi_gguf_type_name(t->file_type));
    }
    t->dtype = tensor_type[t->file_type].computed ? tensor_type[t->file_type].dtype : FV_DTYPE_COUNT;
    uint64_t n = (uint64_t)t->shape[0] * (uint64_t)t->shape[1] * (uint64_t)t->shape[2] * (uint64_t)t->shape[3];
    if (__builtin_mul_overflow(n / block, (uint64_t)tensor_type[t->file_type].bytes, &t->bytes)) {
        return FAIL(r, FV_ERR_FORMAT, at, "its size in bytes overflows 64 bits");
    }
    return FV_OK;
}

/* t->offset stays relative to the data's start until place_tensors(). */
static fv_status read_tensor(reader *r, fvi_gguf_tensor *t) {
    fv_status status = take_name(r, "tensor", &t->name);
    if (status == FV_OK) {
        status = read_shape(r, t);
    }
    if (status == FV_OK) {
        status = read_type(r, t);
    }
    return status == FV_OK ? take(r, &t->offset, 8, "data offset") : status;
}

/* ---- where the data lies ---- */

static fv_status read_alignment(const fvi_gguf *g, uint32_t *out) {
    *out = 32;
    fv_status status = fvi_gguf_u32(g, "general.alignment", false, LEAST_ALIGNMENT, MOST_ALIGNMENT, out);
    if (status == FV_OK && (*out & (*out - 1)) != 0) {
        const fvi_gguf_entry *e = fvi_gguf_find(g, "general.alignment");
        status = fvi_gguf_fail(g, FV_ERR_FORMAT, e->offset, "key", e->key, "%" PRIu32 " is not a power of two", *out);
    }
    return status;
}

/* Tensor data starts at the next multiple of the alignment; each offset becomes one from the file's start. */
static fv_status place_tensors(reader *r) {
    fvi_gguf *g = r->g;
    uint32_t alignment;
    fv_status status = read_alignment(g, &alignment);
    uint64_t start = status == FV_OK ? (r->at + alignment - 1) / alignment * alignment : 0;
    for (int64_t i = 0; i < g->n_tensors && status == FV_OK; i++) {
        fvi_gguf_tensor *t = &g->tensor[i];
        uint64_t record = fvi_gguf_record(g, t->name), end;
        if (t->offset % alignment != 0) {
            return fvi_gguf_fail(g, FV_ERR_FORMAT, record, "tensor", t->name,
                                 "its data offset %" PRIu64 " is not a multiple of the alignment %" PRIu32, t->offset, alignment);
        }
        if (__builtin_add_overflow(start, t->offset, &t->offset) || __builtin_add_overflow(t->offset, t->bytes, &end) ||
            end > g->map_bytes) {
            return fvi_gguf_fail(g, FV_ERR_FORMAT, record, "tensor", t->name, "its %" PRIu64 " bytes end past the file's %zu",
                                 t->bytes, g->map_bytes);
        }
        t->data = g->map + t->offset;
    }
    return status;
}

/* ---- opening ---- */

static fv_status read_all(fvi_gguf *g) {
    reader r = {.g = g, .kind = ""};
    fv_status status = read_version(&r);
    if (status == FV_OK) {
        status = read_counts(&r);
    }
    for (int64_t i = 0; i < g->n_entries && status == FV_OK; i++) {
        status = read_entry(&r, &g->entry[i]);
    }
    for (int64_t i = 0; i < g->n_tensors && status == FV_OK; i++) {
        status = read_tensor(&r, &g->tensor[i]);
    }
    if (status == FV_OK) {
        status = place_tensors(&r);
    }
    return status == FV_OK ? fvi_gguf_check(g) : status;
}

/* NULL, and the context has the message, without memory. */
static fvi_gguf *create(fv_context *ctx, const char *name) {
    fvi_gguf *g = fvi_zalloc(ctx, 1, sizeof *g);
    char *path = fvi_strdup(ctx, name, strlen(name));
    if (g == NULL || path == NULL) {
        fvi_release(ctx, g, 1, sizeof *g);
        fvi_strfree(ctx, path);
        fvi_fail(ctx, FV_ERR_MEMORY, "%s: no memory to open it", name);
        return NULL;
    }
    g->ctx = ctx;
    g->path = path;
    return g;
}

void fvi_gguf_destroy(fvi_gguf *g) {
    if (g == NULL) {
        return;
    }
    if (g->mapped) {
        munmap((void *)(uintptr_t)g->map, g->map_bytes);
    }
    fvi_release(g->ctx, g->entry, (size_t)g->n_entries, sizeof *g->entry);
    fvi_release(g->ctx, g->tensor, (size_t)g->n_tensors, sizeof *g->tensor);
    fvi_strfree(g->ctx, g->path);
    fvi_release(g->ctx, g, 1, sizeof *g);
}

static fv_status map_descriptor(fvi_gguf *g, int fd) {
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return fvi_fail(g->ctx, FV_ERR_IO, "%s: %s", g->path, strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return fvi_fail(g->ctx, FV_ERR_IO, "%s: %s, not a file", g->path,
                        S_ISDIR(st.st_mode) ? "a directory" : "a device or pipe");
    }
    if (st.st_size == 0) {
        return fvi_fail(g->ctx, FV_ERR_FORMAT, "%s: offset 0x0: the file is empty, not a GGUF file", g->path);
    }
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) {
        return fvi_fail(g->ctx, FV_ERR_IO, "%s: cannot map its %lld bytes: %s", g->path, (long long)st.st_size, strerror(errno));
    }
    g->map = map;
    g->map_bytes = (size_t)st.st_size;
    g->mapped = true;
    return FV_OK;
}

/* O_NONBLOCK: opening a pipe that nobody writes to would wait for ever. */
static fv_status map_file(fvi_gguf *g) {
    int fd = open(g->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return fvi_fail(g->ctx, FV_ERR_IO, "%s: cannot open: %s", g->path, strerror(errno));
    }
    fv_status status = map_descriptor(g, fd);
    close(fd);
    return status;
}

static fv_status finish(fvi_gguf *g, fv_status status, fvi_gguf **out) {
    if (status == FV_OK) {
        status = read_all(g);
    }
    if (status == FV_OK) {
        *out = g;
    } else {
        fvi_gguf_destroy(g);
    }
    return status;
}

fv_status fvi_gguf_open(fv_context *ctx, const char *path, fvi_gguf **out) {
    *out = NULL;
    fvi_gguf *g = create(ctx, path);
    return g != NULL ? finish(g, map_file(g), out) : FV_ERR_MEMORY;
}

fv_status fvi_gguf_parse(fv_context *ctx, const char *name, const void *data, size_t size, fvi_gguf **out) {
    *out = NULL;
    fvi_gguf *g = create(ctx, name);
    if (g == NULL) {
        return FV_ERR_MEMORY;
    }
    g->map = data;
    g->map_bytes = size;
    return finish(g, FV_OK, out);
}
