/* gguf_sample.h - one small GGUF file with everything in it that a file may have: each value type, each tensor type. */
#ifndef FOVEA_TEST_GGUF_SAMPLE_H
#define FOVEA_TEST_GGUF_SAMPLE_H

#include "gguf_builder.h"

/* Keys are named for their types; tensors "w.<type>" are 64 x 3. The last key is "last", the last tensor "w.last". */
static inline uint8_t *sample_image(uint32_t version, uint32_t alignment, size_t *size) {
    static const float f[] = {1.5f, -2.25f, 3e20f};
    static const uint8_t flags[] = {1, 0, 1};
    static const char *const words[] = {"a", "", "caf\xc3\xa9", "tab\there"};
    static const int64_t shape[] = {64, 3}, vector[] = {32};
    const int8_t i8 = -5;
    const uint8_t u8 = 200;
    const int16_t i16 = -3000;
    const uint16_t u16 = 60000;
    const int64_t i64 = -5000000000;
    const double f64 = 0.1;
    gguf_builder b = gb_begin();
    fvi_rng rng = {7};
    b.version = version;
    b.alignment = alignment;
    gb_string(&b, "general.architecture", "llama");
    gb_u32(&b, "general.alignment", alignment);
    gb_value(&b, "v.u8", FVI_GGUF_U8, &u8);
    gb_value(&b, "v.i8", FVI_GGUF_I8, &i8);
    gb_value(&b, "v.u16", FVI_GGUF_U16, &u16);
    gb_value(&b, "v.i16", FVI_GGUF_I16, &i16);
    gb_u32(&b, "v.u32", 4000000000u);
    gb_i32(&b, "v.i32", -7);
    gb_f32(&b, "v.f32", 0.5f);
    gb_bool(&b, "v.bool", true);
    gb_u64(&b, "v.u64", 10000000000000000000u);
    gb_value(&b, "v.i64", FVI_GGUF_I64, &i64);
    gb_value(&b, "v.f64", FVI_GGUF_F64, &f64);
    gb_string(&b, "v.string", "line\nnext \x1b[31m \xff end");
    gb_array(&b, "a.f32", FVI_GGUF_F32, f, 3);
    gb_array(&b, "a.bool", FVI_GGUF_BOOL, flags, 3);
    gb_array(&b, "a.none", FVI_GGUF_U64, NULL, 0);
    gb_strings(&b, "a.string", words, 4);
    gb_string(&b, "last", "end");
    for (int t = FV_F32; t <= FV_Q4_1; t++) {
        char name[16];
        snprintf(name, sizeof name, "w.%s", fv_dtype_name((fv_dtype)t));
        gb_random(&b, name, (fv_dtype)t, 2, shape, 1, &rng);
    }
    uint8_t block[22] = {0};
    gb_raw(&b, "w.q5_0", 6, 1, vector, block, sizeof block);
    gb_random(&b, "w.last", FV_F32, 1, vector, 1, &rng);
    uint8_t *image = gb_image(&b, size);
    gb_end(&b);
    return image;
}

/* Where the record of a key or tensor begins; the name must be unique in the image. */
static inline size_t sample_record(const uint8_t *image, size_t size, const char *name) {
    uint64_t length = strlen(name);
    for (size_t i = 0; i + 8 + length <= size; i++) {
        if (memcmp(image + i, &length, 8) == 0 && memcmp(image + i + 8, name, length) == 0) {
            return i;
        }
    }
    return SIZE_MAX;
}

#endif
