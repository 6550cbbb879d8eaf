/* npy.c - reading and writing NumPy array files.
 *
 * A file is a magic number, a version, a header length, a Python dictionary as text, and the elements. The dictionary is read by
 * a parser of just the three fields that it must have. A length is believed only once the file is known to be so long.
 */
#include "npy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Where bytes come from: memory or a file, of a size known beforehand. */
typedef struct source {
    const uint8_t *memory;
    FILE *file;
    uint64_t size, at;
    const char *name;
    char *error;
    size_t error_size;
} source;

static bool __attribute__((format(printf, 3, 4))) refuse(const source *s, uint64_t offset, const char *format, ...) {
    char sentence[256];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    snprintf(s->error, s->error_size, "%s: offset 0x%" PRIx64 ": %s", s->name, offset, sentence);
    return false;
}

static bool take(source *s, void *out, uint64_t n, const char *what) {
    if (n > s->size - s->at) {
        return refuse(s, s->at, "%s needs %" PRIu64 " bytes, but the file ends at %" PRIu64, what, n, s->size);
    }
    if (s->memory != NULL) {
        memcpy(out, s->memory + s->at, (size_t)n);
    } else if (fread(out, 1, (size_t)n, s->file) != n) {
        return refuse(s, s->at, "cannot read the %" PRIu64 " bytes of %s", n, what);
    }
    s->at += n;
    return true;
}

/* ---- the dictionary ---- */

typedef struct cursor {
    const source *source;
    const char *text, *at, *end;
    uint64_t start; /* of text in the file */
} cursor;

static bool bad(const cursor *c, const char *wanted) {
    return refuse(c->source, c->start + (uint64_t)(c->at - c->text), "header: %s expected", wanted);
}

static void skip_spaces(cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\t')) {
        c->at++;
    }
}

/* The file's offset of what comes next. */
static uint64_t here(cursor *c) {
    skip_spaces(c);
    return c->start + (uint64_t)(c->at - c->text);
}

/* Moves past one character, and the spaces before it, if it is there. */
static bool next_is(cursor *c, char wanted) {
    skip_spaces(c);
    bool is = c->at < c->end && *c->at == wanted;
    c->at += is;
    return is;
}

/* A quoted word without escapes, cut to `size`. */
static bool read_quoted(cursor *c, char *out, size_t size) {
    skip_spaces(c);
    if (c->at == c->end || (*c->at != '\'' && *c->at != '"')) {
        return bad(c, "a quoted word");
    }
    char quote = *c->at++;
    size_t n = 0;
    for (; c->at < c->end && *c->at != quote; c->at++) {
        if (n + 1 < size) {
            out[n++] = *c->at >= ' ' && *c->at <= '~' ? *c->at : '?';
        }
    }
    out[n] = '\0';
    return c->at < c->end ? (c->at++, true) : bad(c, "a closing quote");
}

static bool read_word(cursor *c, const char *word) {
    size_t n = strlen(word);
    skip_spaces(c);
    if ((size_t)(c->end - c->at) < n || memcmp(c->at, word, n) != 0) {
        return false;
    }
    c->at += n;
    return true;
}

static bool read_descr(cursor *c, npy *out) {
    static const struct {
        const char *descr;
        fv_dtype dtype;
    } known[] = {{"<f4", FV_F32}, {"<f2", FV_F16}, {"<u2", FV_BF16}, {"|V2", FV_BF16}, {"<V2", FV_BF16}, {"<i4", FV_I32}};
    char word[24];
    uint64_t offset = here(c);
    if (!read_quoted(c, word, sizeof word)) {
        return false;
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(word, known[i].descr) == 0) {
            out->dtype = known[i].dtype;
            return true;
        }
    }
    return refuse(c->source, offset, "descr: elements of type '%s' (<f4, <f2, <i4, and <u2 or |V2 for bfloat16, are read)", word);
}

static bool read_order(cursor *c) {
    uint64_t offset = here(c);
    if (read_word(c, "True")) {
        return refuse(c->source, offset, "fortran_order: True (C order is read: save numpy.ascontiguousarray)");
    }
    return read_word(c, "False") || bad(c, "True or False");
}

static bool read_length(cursor *c, int64_t *out) {
    skip_spaces(c);
    const char *first = c->at;
    int64_t n = 0;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
        if (__builtin_mul_overflow(n, (int64_t)10, &n) || __builtin_add_overflow(n, (int64_t)(*c->at - '0'), &n)) {
            return bad(c, "shape: a length below 2^63");
        }
    }
    *out = n;
    return c->at > first || bad(c, "shape: a length");
}

/* (2, 3), (2, 3,) or (2,); not (2), which is no tuple. */
static bool read_shape(cursor *c, npy *out) {
    if (!next_is(c, '(')) {
        return bad(c, "shape: '('");
    }
    bool comma = true;
    while (!next_is(c, ')')) {
        if (!comma) {
            return bad(c, "shape: ',' or ')'");
        }
        if (out->rank == 4) {
            return bad(c, "shape: 1 to 4 lengths, ')'");
        }
        if (!read_length(c, &out->shape[out->rank])) {
            return false;
        }
        out->rank++;
        comma = next_is(c, ',');
    }
    return out->rank > 0 && (out->rank > 1 || comma) ? true : bad(c, "shape: a tuple of 1 to 4 lengths before this");
}

/* Bits of the fields that were seen; each must come once. */
enum { SEEN_DESCR = 1, SEEN_ORDER = 2, SEEN_SHAPE = 4, SEEN_ALL = 7 };

static bool read_field(cursor *c, npy *out, unsigned *seen) {
    static const char *const name[] = {"descr", "fortran_order", "shape"};
    char word[24];
    uint64_t offset = here(c);
    if (!read_quoted(c, word, sizeof word)) {
        return false;
    }
    for (unsigned i = 0; i < 3; i++) {
        if (strcmp(word, name[i]) != 0) {
            continue;
        }
        if (*seen & 1u << i) {
            return refuse(c->source, offset, "header: '%s' comes twice", word);
        }
        *seen |= 1u << i;
        if (!next_is(c, ':')) {
            return bad(c, "':'");
        }
        return i == 0 ? read_descr(c, out) : i == 1 ? read_order(c) : read_shape(c, out);
    }
    return refuse(c->source, offset, "header: '%s' is not a field of it (descr, fortran_order and shape are)", word);
}

static bool read_dictionary(cursor *c, npy *out) {
    unsigned seen = 0;
    if (!next_is(c, '{')) {
        return bad(c, "'{'");
    }
    bool comma = true;
    while (!next_is(c, '}')) {
        if (!comma) {
            return bad(c, "',' or '}'");
        }
        if (!read_field(c, out, &seen)) {
            return false;
        }
        comma = next_is(c, ',');
    }
    skip_spaces(c);
    if (c->at != c->end) {
        return bad(c, "nothing more after '}'");
    }
    return seen == SEEN_ALL || bad(c, "before its end each of descr, fortran_order and shape");
}

/* ---- the file ---- */

static bool read_header_length(source *s, uint64_t *out) {
    uint8_t head[8] = {0}, length[4] = {0};
    if (!take(s, head, sizeof head, "the magic number and version")) {
        return false;
    }
    if (memcmp(head, "\x93NUMPY", 6) != 0) {
        return refuse(s, 0, "not a .npy file: it does not start with \\x93NUMPY");
    }
    if (head[6] < 1 || head[6] > 3) {
        return refuse(s, 6, "version %d.%d (1 to 3 are read)", head[6], head[7]);
    }
    if (!take(s, length, head[6] == 1 ? 2 : 4, "the header length")) {
        return false;
    }
    *out = length[0] | (uint64_t)length[1] << 8 | (uint64_t)length[2] << 16 | (uint64_t)length[3] << 24;
    return *out <= s->size - s->at || refuse(s, 8, "a header of %" PRIu64 " bytes, but the file ends at %" PRIu64, *out, s->size);
}

static bool read_header(source *s, npy *out) {
    uint64_t length = 0;
    if (!read_header_length(s, &length)) {
        return false;
    }
    char *text = malloc(length + 1);
    if (text == NULL) {
        return refuse(s, s->at, "no memory for a header of %" PRIu64 " bytes", length);
    }
    uint64_t start = s->at;
    bool good = take(s, text, length, "the header");
    if (good) {
        cursor c = {.source = s, .text = text, .at = text, .end = text + length, .start = start};
        good = read_dictionary(&c, out);
    }
    free(text);
    return good;
}

/* Bytes of the elements, false on overflow; an empty array has none whatever its other lengths are. */
static bool element_bytes(const npy *a, size_t *out) {
    int64_t n = 1;
    for (int i = 0; i < a->rank; i++) {
        if (a->shape[i] == 0) {
            *out = 0;
            return true;
        }
    }
    for (int i = 0; i < a->rank; i++) {
        if (a->shape[i] < 0 || __builtin_mul_overflow(n, a->shape[i], &n)) {
            return false;
        }
    }
    *out = fv_dtype_bytes(a->dtype, n);
    return *out != 0;
}

static bool read_elements(source *s, npy *out) {
    uint64_t has = s->size - s->at;
    if (!element_bytes(out, &out->bytes)) {
        return refuse(s, s->at, "shape: the size in bytes overflows 64 bits");
    }
    if (out->bytes != has) {
        return refuse(s, s->at, "the shape has %zu bytes of elements, but the file has %" PRIu64 " after its header", out->bytes,
                      has);
    }
    out->data = aligned_alloc(64, out->bytes / 64 * 64 + 64);
    if (out->data == NULL) {
        return refuse(s, s->at, "no memory for %zu bytes of elements", out->bytes);
    }
    return take(s, out->data, out->bytes, "the elements");
}

static bool read_array(source *s, npy *out) {
    memset(out, 0, sizeof *out);
    bool good = read_header(s, out) && read_elements(s, out);
    if (!good) {
        npy_free(out);
    }
    return good;
}

bool npy_parse(const void *data, size_t size, const char *name, npy *out, char *error, size_t error_size) {
    source s = {.memory = data, .size = size, .name = name, .error = error, .error_size = error_size};
    return read_array(&s, out);
}

/* stat before fopen: opening a pipe would wait for its writer. */
bool npy_read(const char *path, npy *out, char *error, size_t error_size) {
    struct stat st;
    memset(out, 0, sizeof *out);
    if (stat(path, &st) != 0) {
        snprintf(error, error_size, "%s: cannot open: %s", path, strerror(errno));
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        snprintf(error, error_size, "%s: %s, not a file", path, S_ISDIR(st.st_mode) ? "a directory" : "a device or pipe");
        return false;
    }
    source s = {.size = (uint64_t)st.st_size, .name = path, .error = error, .error_size = error_size};
    s.file = fopen(path, "rb");
    if (s.file == NULL) {
        snprintf(error, error_size, "%s: cannot open: %s", path, strerror(errno));
        return false;
    }
    bool good = read_array(&s, out);
    fclose(s.file);
    return good;
}

void npy_free(npy *array) {
    free(array->data);
    memset(array, 0, sizeof *array);
}

/* ---- writing ---- */

/* The whole head; elements after it are aligned to 64 bytes, as NumPy has it. */
static size_t format_head(const npy *a, const char *descr, char out[256]) {
    char shape[112] = "";
    size_t n = 0;
    for (int i = 0; i < a->rank; i++) {
        n += (size_t)snprintf(shape + n, sizeof shape - n, "%s%" PRId64, i == 0 ? "" : ", ", a->shape[i]);
    }
    memcpy(out, "\x93NUMPY\1\0\0", 10);
    n = 10 + (size_t)snprintf(out + 10, 246, "{'descr': '%s', 'fortran_order': False, 'shape': (%s%s), }", descr, shape,
                              a->rank == 1 ? "," : "");
    while ((n + 1) % 64 != 0) {
        out[n++] = ' ';
    }
    out[n++] = '\n';
    out[8] = (char)(uint8_t)((n - 10) & 0xff);
    out[9] = (char)(uint8_t)((n - 10) >> 8);
    return n;
}

static const char *descr_of(fv_dtype dtype) {
    return dtype == FV_F32 ? "<f4" : dtype == FV_F16 ? "<f2" : dtype == FV_BF16 ? "<u2" : dtype == FV_I32 ? "<i4" : NULL;
}

bool npy_write(const char *path, const npy *array, char *error, size_t error_size) {
    const char *descr = descr_of(array->dtype);
    size_t bytes;
    char head[256];
    if (descr == NULL || array->rank < 1 || array->rank > 4 || !element_bytes(array, &bytes)) {
        snprintf(error, error_size, "%s: an array of %s and rank %d cannot be written (f32, f16, bf16 or i32 of rank 1 to 4 can)",
                 path, fv_dtype_name(array->dtype), array->rank);
        return false;
    }
    size_t n = format_head(array, descr, head);
    FILE *f = fopen(path, "wb");
    if (f == NULL) {
        snprintf(error, error_size, "%s: cannot write: %s", path, strerror(errno));
        return false;
    }
    bool good = fwrite(head, 1, n, f) == n && fwrite(array->data, 1, bytes, f) == bytes;
    good = fclose(f) == 0 && good;
    if (!good) {
        snprintf(error, error_size, "%s: cannot write its %zu bytes: %s", path, n + bytes, strerror(errno));
    }
    return good;
}
