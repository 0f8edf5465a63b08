// bfloat16, and conversions between storage types and the types in which they are computed.
#pragma once

#include "simd.h"

namespace {

struct BFloat16 {
    uint16_t bits;  // the upper half of a float
};

inline float widen(float v) { return v; }
inline double widen(double v) { return v; }
inline float widen(BFloat16 v) {
    const u32 bits = u32(v.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, 4);
    return wide;
}
inline void narrow(float v, float& out) { out = v; }
inline void narrow(double v, double& out) { out = v; }
inline void narrow(float v, BFloat16& out) {  // to the nearest, ties to even
    u32 bits;
    std::memcpy(&bits, &v, 4);
    const u32 rounded = (bits + 0x7FFFu + (bits >> 16 & 1)) >> 16;
    out.bits = uint16_t(v == v ? rounded : 0x7FC0u);
}

}  // namespace
