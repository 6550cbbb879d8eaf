/* gguf.h - GGUF v2 and v3 files by mmap: metadata and tensor directory, every offset, count, type and length checked. */
#ifndef FVI_GGUF_H
#define FVI_GGUF_H

#include "base/base.h"
#include "fovea/model.h"

typedef enum fvi_gguf_type {
    FVI_GGUF_U8 = 0,
    FVI_GGUF_I8,
    FVI_GGUF_U16,
    FVI_GGUF_I16,
    FVI_GGUF_U32,
    FVI_GGUF_I32,
    FVI_GGUF_F32,
    FVI_GGUF_BOOL,
    FVI_GGUF_STRING,
    FVI_GGUF_ARRAY,
    FVI_GGUF_U64,
    FVI_GGUF_I64,
    FVI_GGUF_F64,
    FVI_GGUF_TYPE_COUNT
} fvi_gguf_type;

/* Not terminated; points into the mapping. */
typedef struct fvi_string {
    const char *data;
    size_t size;
} fvi_string;

typedef struct fvi_gguf_entry {
    fvi_string key;
    fvi_gguf_type type;    /* FVI_GGUF_ARRAY: see element */
    fvi_gguf_type element; /* of an array; arrays of arrays are refused */
    uint64_t count;        /* of an array, else 1 */
    const uint8_t *data;   /* first value in the mapping, unaligned */
    uint64_t offset, bytes;
} fvi_gguf_entry;

typedef struct fvi_gguf_tensor {
    fvi_string name;
    fv_dtype dtype;
    uint32_t file_type;     /* GGUF's own number of the type */
    int rank;               /* 1..4 */
    int64_t shape[4];       /* fastest first, as in the file: a weight of n_out rows of n_in is {n_in, n_out} */
    const void *data;       /* in the mapping */
    uint64_t offset, bytes; /* from the file's start */
} fvi_gguf_tensor;

typedef struct fvi_gguf {
    fv_context *ctx;
    char *path;
    uint32_t version;
    const uint8_t *map;
    size_t map_bytes;
    bool mapped;
    fvi_gguf_entry *entry;
    int64_t n_entries;
    fvi_gguf_tensor *tensor;
    int64_t n_tensors;
} fvi_gguf;

fv_status fvi_gguf_open(fv_context *ctx, const char *path, fvi_gguf **out);
/* The same over memory that outlives it (fuzzing, tests). `name` is for messages. Tensors are aligned within the file, so the
 * memory must be 64-byte aligned if they are to be read in place.
 * A tensor of a type that GGUF knows and Fovea does not compute with is listed with dtype FV_DTYPE_COUNT. */
fv_status fvi_gguf_parse(fv_context *ctx, const char *name, const void *data, size_t size, fvi_gguf **out);
void fvi_gguf_destroy(fvi_gguf *g);

const fvi_gguf_entry *fvi_gguf_find(const fvi_gguf *g, const char *key);
const fvi_gguf_tensor *fvi_gguf_find_tensor(const fvi_gguf *g, const char *name);
/* The entry's value if it is there and a number (any integer width, float or bool) in range; else the default / an error that
 * names file, offset and field. */
fv_status fvi_gguf_u32(const fvi_gguf *g, const char *key, bool required, uint32_t least, uint32_t most, uint32_t *inout);
fv_status fvi_gguf_f32(const fvi_gguf *g, const char *key, bool required, float *inout);
fv_status fvi_gguf_bool(const fvi_gguf *g, const char *key, bool *inout);
/* A string entry; *out = {NULL, 0} where it is absent. A wrong type is an error. */
fv_status fvi_gguf_string(const fvi_gguf *g, const char *key, fvi_string *out);
/* i-th string of an array of strings: *cursor starts at NULL and is moved on; call for i = 0, 1, 2 ... */
fvi_string fvi_gguf_next_string(const fvi_gguf_entry *array, const uint8_t **cursor);

/* GGUF's name of a tensor type ("q4_k"), NULL for a number it does not have. */
const char *fvi_gguf_type_name(uint32_t file_type);
/* "u32", "string", ... of a metadata value. */
const char *fvi_gguf_value_name(fvi_gguf_type type);
/* Bytes of one value; 0 for strings and arrays. */
size_t fvi_gguf_value_bytes(fvi_gguf_type type);
/* Refuses names that come twice and tensors that share bytes; part of opening. */
fv_status fvi_gguf_check(const fvi_gguf *g);
/* Where the record of an entry or a tensor starts in the file, from its key or name. */
uint64_t fvi_gguf_record(const fvi_gguf *g, fvi_string name);
/* "file: offset 0x...: KIND 'NAME': SENTENCE"; kind "" leaves the middle out. */
fv_status fvi_gguf_fail(const fvi_gguf *g, fv_status status, uint64_t offset, const char *kind, fvi_string name,
                        const char *format, ...) __attribute__((format(printf, 6, 7)));

/* The printed listing of an open file. */
fv_status fvi_file_from_gguf(const fvi_gguf *g, fv_file **out);

#endif
