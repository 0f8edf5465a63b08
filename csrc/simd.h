// A vector of floats, as wide as the instruction set for which this file is compiled, and its operations.
//
// The kernels are compiled several times, with different compiler flags. Everything in this header, and in all headers
// that only kernels include, has internal linkage: the linker would merge inline functions with external linkage into
// one copy, which might use instructions that the machine lacks. For the same reason, these headers use no templates of
// the standard library.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__AVX512F__) || defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

using i64 = int64_t;
using i32 = int32_t;
using u32 = uint32_t;
using u64 = uint64_t;

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float V __attribute__((vector_size(4 * W)));
typedef i32 VI __attribute__((vector_size(4 * W)));

inline V load(const float* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }
inline V splat(float x) { return x - V{}; }  // unlike x + 0, x - 0 is x for every x, and costs nothing

// a < b ? a : b, so that a NaN in a is left out.
inline V min(V a, V b) {
#if defined(__AVX512F__)
    return (V)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (V)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (V)_mm_min_ps((__m128)a, (__m128)b);
#else
    return a < b ? a : b;
#endif
}
inline V max(V a, V b) {
#if defined(__AVX512F__)
    return (V)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (V)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (V)_mm_max_ps((__m128)a, (__m128)b);
#else
    return a > b ? a : b;
#endif
}

#if !defined(__AVX512F__) && !defined(__AVX2__) && !defined(__SSE2__)
inline u32 bits_of(VI lanes) {
#if defined(__aarch64__)
    const uint32x4_t weight = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32((uint32x4_t)lanes, weight));
#else
    return u32(lanes[0] & 1) | u32(lanes[1] & 2) | u32(lanes[2] & 4) | u32(lanes[3] & 8);
#endif
}
#endif

// Comparisons return one bit a lane; any comparison with NaN is false.
inline u32 less(V a, V b) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ);
#elif defined(__AVX2__)
    return u32(_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LT_OQ)));
#elif defined(__SSE2__)
    return u32(_mm_movemask_ps(_mm_cmplt_ps((__m128)a, (__m128)b)));
#else
    return bits_of(a < b);
#endif
}
inline u32 less_equal(V a, V b) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LE_OQ);
#elif defined(__AVX2__)
    return u32(_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LE_OQ)));
#elif defined(__SSE2__)
    return u32(_mm_movemask_ps(_mm_cmple_ps((__m128)a, (__m128)b)));
#else
    return bits_of(a <= b);
#endif
}
inline u32 equal(V a, V b) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ);
#elif defined(__AVX2__)
    return u32(_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_EQ_OQ)));
#elif defined(__SSE2__)
    return u32(_mm_movemask_ps(_mm_cmpeq_ps((__m128)a, (__m128)b)));
#else
    return bits_of(a == b);
#endif
}

// count + (a < b), lane by lane.
inline VI count_less(VI count, V a, V b) {
#if defined(__AVX512F__)
    const __mmask16 m = _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ);
    return (VI)_mm512_mask_add_epi32((__m512i)count, m, (__m512i)count, _mm512_set1_epi32(1));
#else
    return count - (VI)(a < b);  // true is -1
#endif
}

inline float largest(V v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)v);
#else
    for (int half = W / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) v[i] = v[i] > v[i + half] ? v[i] : v[i + half];
    return v[0];
#endif
}
inline float smallest(V v) { return -largest(-v); }

inline int lowest_bit(u32 bits) { return __builtin_ctz(bits); }
inline int count_bits(u32 bits) { return __builtin_popcount(bits); }

// Whether compress is so cheap that a test for hits beforehand costs more than it saves.
#if defined(__AVX512F__)
constexpr bool COMPRESSES = true;
#else
constexpr bool COMPRESSES = false;
#endif

// Write the lanes whose bit is set one after the other; may write W lanes whatever their number.
inline void compress(float* p, V v, u32 bits) {
#if defined(__AVX512F__)
    _mm512_storeu_ps(p, _mm512_maskz_compress_ps(__mmask16(bits), (__m512)v));
#else
    for (; bits; bits &= bits - 1) *p++ = v[lowest_bit(bits)];
#endif
}
inline void compress(i32* p, VI v, u32 bits) {
#if defined(__AVX512F__)
    _mm512_storeu_si512(p, _mm512_maskz_compress_epi32(__mmask16(bits), (__m512i)v));
#else
    for (; bits; bits &= bits - 1) *p++ = v[lowest_bit(bits)];
#endif
}
inline VI load(const i32* p) {
    VI v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
alignas(64) constexpr i32 LANES[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
inline VI count_up(i32 from) { return load(LANES) + from; }

// ((x - a)² + (y - b)²) + (z - c)². The compiler must not fuse the products into the sums (-ffp-contract=off):
// a fused multiply-add rounds differently, and with it which of two equally near points counts as the nearer.
inline V sq_distance(V x, V y, V z, V a, V b, V c) {
    x = x - a;
    y = y - b;
    z = z - c;
    return (x * x + y * y) + z * z;
}

inline i64 round_up(i64 n, i64 step) { return (n + step - 1) / step * step; }

// Memory on a cache line, released at the end of its scope.
template <class T>
struct Array {
    T* data = nullptr;
    Array() = default;
    explicit Array(i64 n) { resize(n); }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    ~Array() { std::free(data); }
    void resize(i64 n) {
        std::free(data);
        data = nullptr;
        void* p = nullptr;
        if (posix_memalign(&p, 64, size_t(n > 0 ? n : 1) * sizeof(T)) != 0) throw std::bad_alloc();
        data = static_cast<T*>(p);
    }
    T& operator[](i64 i) { return data[i]; }
    const T& operator[](i64 i) const { return data[i]; }
};

}  // namespace
