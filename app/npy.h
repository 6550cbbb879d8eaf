/* npy.h - NumPy array files: C order, rank 1 to 4, little-endian, versions 1 to 3.
 *
 *   file     dtype
 *   <f4      FV_F32
 *   <f2      FV_F16
 *   <u2 |V2  FV_BF16, its bits (NumPy has no bfloat16 of its own)
 *   <i4      FV_I32
 * Anything else is refused with a sentence that names file, offset and field.
 */
#ifndef FOVEA_APP_NPY_H
#define FOVEA_APP_NPY_H

#include <fovea/attention.h>

typedef struct npy {
    fv_dtype dtype;
    int rank;
    int64_t shape[4]; /* slowest first; a length may be 0 */
    void *data;       /* 64-byte aligned, never NULL after a read */
    size_t bytes;
} npy;

/* On false, `error` has the sentence and `out` is empty. Release with npy_free. */
bool npy_read(const char *path, npy *out, char *error, size_t error_size);
/* The same from memory; `name` is for messages. */
bool npy_parse(const void *data, size_t size, const char *name, npy *out, char *error, size_t error_size);
/* Writes version 1.0; of `array` all but bytes is read. */
bool npy_write(const char *path, const npy *array, char *error, size_t error_size);
void npy_free(npy *array);

#endif
