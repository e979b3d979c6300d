// Half types and tf32 as floats, rounded to nearest even.
#pragma once
#include <cstdint>
#include <cstring>

inline float float_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
inline uint32_t bits_of_float(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
// The float with its last `dropped` bits of mantissa rounded away; NaN and infinity stay.
inline float rounded_mantissa(float x, int dropped) {
    const uint32_t u = bits_of_float(x);
    if ((u & 0x7f800000u) == 0x7f800000u) return x;
    const uint32_t half = (1u << (dropped - 1)) - 1;
    return float_of_bits((u + half + (u >> dropped & 1)) & ~((1u << dropped) - 1));
}
inline float to_tf32(float x) { return rounded_mantissa(x, 13); }
inline float of_bf16(uint16_t bits) { return float_of_bits((uint32_t)bits << 16); }
inline uint16_t to_bf16(float x) { return x != x ? 0x7fff : (uint16_t)(bits_of_float(rounded_mantissa(x, 16)) >> 16); }
inline float of_f16(uint16_t bits) {
    _Float16 half;
    memcpy(&half, &bits, sizeof half);
    return (float)half;
}
inline uint16_t to_f16(float x) {
    const _Float16 half = (_Float16)x;
    uint16_t bits;
    memcpy(&bits, &half, sizeof bits);
    return bits;
}

enum class Number { F32, F64, BF16, F16 };
inline unsigned size_of(Number kind) { return kind == Number::F64 ? 8 : kind == Number::F32 ? 4 : 2; }
template <class T> T read_number(const void* base, Number kind, int64_t i) {
    switch (kind) {
    case Number::F32: return (T)((const float*)base)[i];
    case Number::F64: return (T)((const double*)base)[i];
    case Number::BF16: return (T)of_bf16(((const uint16_t*)base)[i]);
    default: return (T)of_f16(((const uint16_t*)base)[i]);
    }
}
template <class T> void write_number(void* base, Number kind, int64_t i, T x) {
    switch (kind) {
    case Number::F32: ((float*)base)[i] = (float)x; break;
    case Number::F64: ((double*)base)[i] = (double)x; break;
    case Number::BF16: ((uint16_t*)base)[i] = to_bf16((float)x); break;
    default: ((uint16_t*)base)[i] = to_f16((float)x); break;
    }
}
