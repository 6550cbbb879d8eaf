/* gguf_builder.h - makes small GGUF files in memory or on disk, for tests and fuzzers.
 *
 *   gguf_builder b = gb_begin();
 *   gb_string(&b, "general.architecture", "llama");
 *   gb_u32(&b, "llama.block_count", 2);
 *   gb_random(&b, "blk.0.attn_q.weight", FV_Q8_0, 2, (int64_t[]){64, 64}, 0.05, &rng);
 *   size_t size;
 *   uint8_t *image = gb_image(&b, &size);     // free() it, or gb_write(&b, "x.gguf")
 *   gb_end(&b);
 *
 * Set b.version and b.alignment before the first tensor. The image is 64-byte aligned. It is test code: no memory ends the
 * program.
 */
#ifndef FOVEA_TEST_GGUF_BUILDER_H
#define FOVEA_TEST_GGUF_BUILDER_H

#include "base/base.h"
#include "base/rng.h"
#include "model/gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct gb_bytes {
    uint8_t *data;
    size_t n, capacity;
} gb_bytes;

typedef struct gguf_builder {
    uint32_t version, alignment;
    uint64_t n_metadata, n_tensors;
    gb_bytes metadata, directory, body;
} gguf_builder;

static inline gguf_builder gb_begin(void) { return (gguf_builder){.version = 3, .alignment = 32}; }

static inline void gb_end(gguf_builder *b) {
    free(b->metadata.data);
    free(b->directory.data);
    free(b->body.data);
    *b = gb_begin();
}

/* ---- bytes ---- */

static inline uint8_t *gb_room(gb_bytes *to, size_t n) {
    if (to->n + n > to->capacity) {
        to->capacity = (to->n + n) * 2 + 256;
        to->data = realloc(to->data, to->capacity);
        if (to->data == NULL) {
            fprintf(stderr, "gguf_builder: no memory\n");
            exit(1);
        }
    }
    uint8_t *room = to->data + to->n;
    to->n += n;
    return room;
}

static inline void gb_put(gb_bytes *to, const void *data, size_t n) {
    if (n > 0) {
        memcpy(gb_room(to, n), data, n);
    }
}

static inline void gb_put_u32(gb_bytes *to, uint32_t v) { gb_put(to, &v, 4); }
static inline void gb_put_u64(gb_bytes *to, uint64_t v) { gb_put(to, &v, 8); }

static inline void gb_put_string(gb_bytes *to, const char *s, size_t n) {
    gb_put_u64(to, n);
    gb_put(to, s, n);
}

static inline void gb_pad(gb_bytes *to, size_t alignment) {
    while (to->n % alignment != 0) {
        *gb_room(to, 1) = 0;
    }
}

/* ---- metadata ---- */

static inline void gb_key(gguf_builder *b, const char *key, fvi_gguf_type type) {
    b->n_metadata++;
    gb_put_string(&b->metadata, key, strlen(key));
    gb_put_u32(&b->metadata, (uint32_t)type);
}

/* A number or bool of any type; `value` points to it. */
static inline void gb_value(gguf_builder *b, const char *key, fvi_gguf_type type, const void *value) {
    gb_key(b, key, type);
    gb_put(&b->metadata, value, fvi_gguf_value_bytes(type));
}

static inline void gb_u32(gguf_builder *b, const char *key, uint32_t v) { gb_value(b, key, FVI_GGUF_U32, &v); }
static inline void gb_i32(gguf_builder *b, const char *key, int32_t v) { gb_value(b, key, FVI_GGUF_I32, &v); }
static inline void gb_u64(gguf_builder *b, const char *key, uint64_t v) { gb_value(b, key, FVI_GGUF_U64, &v); }
static inline void gb_f32(gguf_builder *b, const char *key, float v) { gb_value(b, key, FVI_GGUF_F32, &v); }

static inline void gb_bool(gguf_builder *b, const char *key, bool v) {
    uint8_t byte = v ? 1 : 0;
    gb_value(b, key, FVI_GGUF_BOOL, &byte);
}

static inline void gb_string(gguf_builder *b, const char *key, const char *text) {
    gb_key(b, key, FVI_GGUF_STRING);
    gb_put_string(&b->metadata, text, strlen(text));
}

/* An array of numbers or bools. */
static inline void gb_array(gguf_builder *b, const char *key, fvi_gguf_type element, const void *values, uint64_t n) {
    gb_key(b, key, FVI_GGUF_ARRAY);
    gb_put_u32(&b->metadata, (uint32_t)element);
    gb_put_u64(&b->metadata, n);
    gb_put(&b->metadata, values, n * fvi_gguf_value_bytes(element));
}

/* An array of strings, given by their bytes. */
static inline void gb_string_array(gguf_builder *b, const char *key, const fvi_string *s, uint64_t n) {
    gb_key(b, key, FVI_GGUF_ARRAY);
    gb_put_u32(&b->metadata, FVI_GGUF_STRING);
    gb_put_u64(&b->metadata, n);
    for (uint64_t i = 0; i < n; i++) {
        gb_put_string(&b->metadata, s[i].data, s[i].size);
    }
}

static inline void gb_strings(gguf_builder *b, const char *key, const char *const *s, uint64_t n) {
    gb_key(b, key, FVI_GGUF_ARRAY);
    gb_put_u32(&b->metadata, FVI_GGUF_STRING);
    gb_put_u64(&b->metadata, n);
    for (uint64_t i = 0; i < n; i++) {
        gb_put_string(&b->metadata, s[i], strlen(s[i]));
    }
}

/* ---- tensors; shapes are fastest first, as in the file ---- */

/* Any file type with its bytes as they are. */
static inline void gb_raw(gguf_builder *b, const char *name, uint32_t file_type, int rank, const int64_t *shape, const void *data,
                          size_t bytes) {
    b->n_tensors++;
    gb_put_string(&b->directory, name, strlen(name));
    gb_put_u32(&b->directory, (uint32_t)rank);
    for (int i = 0; i < rank; i++) {
        gb_put_u64(&b->directory, (uint64_t)shape[i]);
    }
    gb_put_u32(&b->directory, file_type);
    gb_pad(&b->body, b->alignment);
    gb_put_u64(&b->directory, b->body.n);
    gb_put(&b->body, data, bytes);
}

static inline uint32_t gb_file_type(fv_dtype dtype) {
    static const uint32_t number[] = {[FV_F32] = 0, [FV_F16] = 1, [FV_BF16] = 30, [FV_Q8_0] = 8, [FV_Q4_0] = 2, [FV_Q4_1] = 3};
    return number[dtype];
}

static inline void gb_half(uint8_t *out, uint16_t h) { memcpy(out, &h, 2); }

/* Scale = largest magnitude / 127. */
static inline void gb_q8_0(uint8_t *out, const float *v) {
    float most = 0;
    for (int i = 0; i < 32; i++) {
        most = fmaxf(most, fabsf(v[i]));
    }
    uint16_t h = fvi_f32_to_f16(most / 127);
    float scale = fvi_f16_to_f32(h);
    gb_half(out, h);
    for (int i = 0; i < 32; i++) {
        long q = scale > 0 ? lroundf(v[i] / scale) : 0;
        out[2 + i] = (uint8_t)(int8_t)(q > 127 ? 127 : q < -127 ? -127 : q);
    }
}

/* Values least + scale * (0..15); low nibbles hold elements 0..15, high nibbles 16..31. */
static inline void gb_nibbles(uint8_t *out, const float *v, float least, float scale) {
    uint8_t q[32];
    for (int i = 0; i < 32; i++) {
        long n = scale > 0 ? lroundf((v[i] - least) / scale) : 0;
        q[i] = (uint8_t)(n < 0 ? 0 : n > 15 ? 15 : n);
    }
    for (int i = 0; i < 16; i++) {
        out[i] = (uint8_t)(q[i] | q[i + 16] << 4);
    }
}

static inline void gb_q4_0(uint8_t *out, const float *v) {
    float most = 0;
    for (int i = 0; i < 32; i++) {
        most = fmaxf(most, fabsf(v[i]));
    }
    uint16_t h = fvi_f32_to_f16(most / 7.5f);
    float scale = fvi_f16_to_f32(h);
    gb_half(out, h);
    gb_nibbles(out + 2, v, -8 * scale, scale);
}

static inline void gb_q4_1(uint8_t *out, const float *v) {
    float least = v[0], most = v[0];
    for (int i = 1; i < 32; i++) {
        least = fminf(least, v[i]);
        most = fmaxf(most, v[i]);
    }
    uint16_t h = fvi_f32_to_f16((most - least) / 15), m = fvi_f32_to_f16(least);
    gb_half(out, h);
    gb_half(out + 2, m);
    gb_nibbles(out + 4, v, fvi_f16_to_f32(m), fvi_f16_to_f32(h));
}

/* n elements of f32 into a file's type; n a multiple of 32 for the quantised ones. */
static inline void gb_quantise(fv_dtype dtype, const float *v, int64_t n, uint8_t *out) {
    for (int64_t i = 0; i < n; i++) {
        switch (dtype) {
        case FV_F32:
            memcpy(out + i * 4, v + i, 4);
            break;
        case FV_F16:
            gb_half(out + i * 2, fvi_f32_to_f16(v[i]));
            break;
        case FV_BF16:
            gb_half(out + i * 2, fvi_f32_to_bf16(v[i]));
            break;
        default:
            break;
        }
    }
    for (int64_t i = 0; i + 32 <= n; i += 32) {
        switch (dtype) {
        case FV_Q8_0:
            gb_q8_0(out + i / 32 * 34, v + i);
            break;
        case FV_Q4_0:
            gb_q4_0(out + i / 32 * 18, v + i);
            break;
        case FV_Q4_1:
            gb_q4_1(out + i / 32 * 20, v + i);
            break;
        default:
            break;
        }
    }
}

static inline int64_t gb_elements(int rank, const int64_t *shape) {
    int64_t n = 1;
    for (int i = 0; i < rank; i++) {
        n *= shape[i];
    }
    return n;
}

/* The tensor whose f32 values are given, in `dtype`. */
static inline void gb_tensor(gguf_builder *b, const char *name, fv_dtype dtype, int rank, const int64_t *shape, const float *v) {
    int64_t n = gb_elements(rank, shape);
    size_t bytes = fv_dtype_bytes(dtype, n);
    gb_raw(b, name, gb_file_type(dtype), rank, shape, NULL, 0);
    gb_quantise(dtype, v, n, gb_room(&b->body, bytes));
}

/* Standard normal, Box and Muller's way. */
static inline float gb_normal(fvi_rng *rng) {
    double u = 1 - fvi_rng_unit(rng), angle = 6.283185307179586 * fvi_rng_unit(rng);
    return (float)(sqrt(-2 * log(u)) * cos(angle));
}

/* Random values of the given deviation around `mean`. */
static inline void gb_random_mean(gguf_builder *b, const char *name, fv_dtype dtype, int rank, const int64_t *shape, double mean,
                                  double deviation, fvi_rng *rng) {
    int64_t n = gb_elements(rank, shape);
    float *v = malloc((size_t)n * sizeof *v);
    if (v == NULL) {
        fprintf(stderr, "gguf_builder: no memory\n");
        exit(1);
    }
    for (int64_t i = 0; i < n; i++) {
        v[i] = (float)(mean + deviation * (double)gb_normal(rng));
    }
    gb_tensor(b, name, dtype, rank, shape, v);
    free(v);
}

static inline void gb_random(gguf_builder *b, const char *name, fv_dtype dtype, int rank, const int64_t *shape, double deviation,
                             fvi_rng *rng) {
    gb_random_mean(b, name, dtype, rank, shape, 0, deviation, rng);
}

/* ---- the file ---- */

static inline uint8_t *gb_image(const gguf_builder *b, size_t *size) {
    gb_bytes all = {NULL, 0, 0};
    gb_put(&all, "GGUF", 4);
    gb_put_u32(&all, b->version);
    gb_put_u64(&all, b->n_tensors);
    gb_put_u64(&all, b->n_metadata);
    gb_put(&all, b->metadata.data, b->metadata.n);
    gb_put(&all, b->directory.data, b->directory.n);
    if (b->n_tensors > 0) {
        gb_pad(&all, b->alignment);
        gb_put(&all, b->body.data, b->body.n);
    }
    uint8_t *image = aligned_alloc(64, (all.n + 63) / 64 * 64);
    if (image == NULL) {
        fprintf(stderr, "gguf_builder: no memory\n");
        exit(1);
    }
    memcpy(image, all.data, all.n);
    free(all.data);
    *size = all.n;
    return image;
}

static inline bool gb_save(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    bool good = f != NULL && fwrite(data, 1, size, f) == size;
    return f != NULL && fclose(f) == 0 && good;
}

static inline bool gb_write(const gguf_builder *b, const char *path) {
    size_t size;
    uint8_t *image = gb_image(b, &size);
    bool good = gb_save(path, image, size);
    free(image);
    return good;
}

#endif
