/* half.c - conversions of f16 and bf16 by bit patterns, for compilers without the types. */
#include "base/base.h"

static float from_bits(uint32_t u) {
    union {
        uint32_t u;
        float f;
    } x = {.u = u};
    return x.f;
}

static uint32_t to_bits(float f) {
    union {
        float f;
        uint32_t u;
    } x = {.f = f};
    return x.u;
}

float fvi_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = h & 0x7fffu;
    if (magnitude >= 0x7c00u) {
        return from_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    }
    /* subnormal halves are normal floats: scale by the exponents' difference instead of shifting digits */
    return from_bits(sign | to_bits(from_bits(magnitude << 13) * 0x1p112f));
}

uint16_t fvi_f32_to_f16(float f) {
    uint32_t u = to_bits(f), sign = u >> 16 & 0x8000u;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) {
        return (uint16_t)(sign | 0x7e00u | (u >> 13 & 0x3ffu));
    }
    if (u >= 0x477ff000u) {
        return (uint16_t)(sign | 0x7c00u);
    }
    if (u < 0x38800000u) { /* below 2^-14: let the float adder round at the subnormal's last place */
        return (uint16_t)(sign | (to_bits(from_bits(u) + 0.5f) - 0x3f000000u));
    }
    u += 0xfffu + (u >> 13 & 1u);
    return (uint16_t)(sign | (u - 0x38000000u) >> 13);
}

uint16_t fvi_f32_to_bf16(float f) {
    uint32_t u = to_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(u >> 16 | 0x40u);
    }
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}
