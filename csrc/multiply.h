// Small matrix products on tiles, and 2^x, for attention and the MLP.
#pragma once

#include "simd.h"

namespace {

// Columns in vectors and rows that one block of the result spans. Its accumulators leave a few registers free: 32
// of 16 lanes with AVX-512, else 16.
constexpr int BLOCK_VECTORS = W == 16 ? 4 : 2;
constexpr int BLOCK_REGISTERS = W == 16 ? 24 : 12;
constexpr int MOST_ROWS = 12;
// Products that are added up one after the other, before the sum is added to others: long sums lose bits.
constexpr i64 MOST_DEPTH = 96;

// C (R, C W) = [C +] A (R, depth) B (depth, C W); A's entry (i, k) is a[i * row + k * step].
template <int R, int C>
inline void multiply_block(i64 depth, const float* a, i64 row, i64 step, const float* b, i64 b_row, float* c,
                           i64 c_row, bool add) {
    V sum[R][C];
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < C; ++j) sum[i][j] = V{};
    for (i64 k = 0; k < depth; ++k, a += step, b += b_row) {
        V right[C];
#pragma GCC unroll 4
        for (int j = 0; j < C; ++j) right[j] = load(b + j * W);
#pragma GCC unroll 16
        for (int i = 0; i < R; ++i) {
            const V left = splat(a[i * row]);
#pragma GCC unroll 4
            for (int j = 0; j < C; ++j) sum[i][j] += left * right[j];
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < C; ++j) {
            float* to = c + i * c_row + j * W;
            store(to, add ? load(to) + sum[i][j] : sum[i][j]);
        }
}

// Choose the block of `rows` rows among those compiled.
template <int R, int C, class... Args>
inline void multiply_rows(int rows, const Args&... args) {
    if (rows == R)
        multiply_block<R, C>(args...);
    else if constexpr (R > 1)
        multiply_rows<R - 1, C>(rows, args...);
}

template <int C>
inline void multiply_columns(i64 rows, i64 depth, const float* a, i64 row, i64 step, const float* b, i64 b_row,
                             float* c, i64 c_row, bool add) {
    constexpr int MOST = BLOCK_REGISTERS / C < MOST_ROWS ? BLOCK_REGISTERS / C : MOST_ROWS;
    // Blocks of nearly the same height: a thin last one would not hide the latency of its additions.
    for (i64 i = 0, blocks = (rows + MOST - 1) / MOST; blocks > 0; --blocks) {
        const i64 height = (rows - i + blocks - 1) / blocks;
        multiply_rows<MOST, C>(int(height), depth, a + i * row, row, step, b, b_row, c + i * c_row, c_row, add);
        i += height;
    }
}

// C (rows, columns) = [C +] A (rows, depth) B (depth, columns), with columns a multiple of W and B and C in rows.
inline void multiply(i64 rows, i64 columns, i64 depth, const float* a, i64 row, i64 step, const float* b, i64 b_row,
                     float* c, i64 c_row, bool add) {
    if (depth > MOST_DEPTH) {
        const i64 rest = depth - MOST_DEPTH;
        multiply(rows, columns, MOST_DEPTH, a, row, step, b, b_row, c, c_row, add);
        return multiply(rows, columns, rest, a + MOST_DEPTH * step, row, step, b + MOST_DEPTH * b_row, b_row, c, c_row,
                        true);
    }
    for (i64 j = 0; j < columns;) {
        const i64 left = (columns - j) / W;
        if (left >= BLOCK_VECTORS)
            multiply_columns<BLOCK_VECTORS>(rows, depth, a, row, step, b + j, b_row, c + j, c_row, add),
                j += BLOCK_VECTORS * W;
        else if (left >= 2)
            multiply_columns<2>(rows, depth, a, row, step, b + j, b_row, c + j, c_row, add), j += 2 * W;
        else
            multiply_columns<1>(rows, depth, a, row, step, b + j, b_row, c + j, c_row, add), j += W;
    }
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define BIXT3D_SHUFFLES
#endif
#endif

#ifdef BIXT3D_SHUFFLES
template <int... I>
struct LaneList {};
template <int N, int... I>
struct Lanes : Lanes<N - 1, N - 1, I...> {};
template <int... I>
struct Lanes<0, I...> {
    using type = LaneList<I...>;
};

// Swap the upper right and lower left S x S blocks of every 2S x 2S block that rows a and b, S apart, go through.
template <int S, int... I>
inline void swap_blocks(V& a, V& b, LaneList<I...>) {
    const V upper = __builtin_shufflevector(a, b, (I & S ? W + I - S : I)...);
    b = __builtin_shufflevector(a, b, (I & S ? W + I : I + S)...);
    a = upper;
}
template <int S>
inline void swap_all_blocks(V (&rows)[W]) {
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i)
        if (!(i & S)) swap_blocks<S>(rows[i], rows[i + S], typename Lanes<W>::type{});
    if constexpr (2 * S < W) swap_all_blocks<2 * S>(rows);
}
#endif

// to[c, r] = from[r, c].
inline void transpose(const float* from, i64 rows, i64 columns, i64 from_stride, float* to, i64 to_stride) {
    i64 whole_rows = 0, whole_columns = 0;
#ifdef BIXT3D_SHUFFLES
    whole_rows = rows / W * W, whole_columns = columns / W * W;
    for (i64 c = 0; c < whole_columns; c += W)
        for (i64 r = 0; r < whole_rows; r += W) {
            V block[W];
#pragma GCC unroll 16
            for (int i = 0; i < W; ++i) block[i] = load(from + (r + i) * from_stride + c);
            swap_all_blocks<1>(block);
#pragma GCC unroll 16
            for (int i = 0; i < W; ++i) store(to + (c + i) * to_stride + r, block[i]);
        }
#endif
    for (i64 c = 0; c < columns; ++c)
        for (i64 r = c < whole_columns ? whole_rows : 0; r < rows; ++r)
            to[c * to_stride + r] = from[r * from_stride + c];
}

// 2^x for x <= 0 (and a little above), to rounding; 2^-126 where it would be less. NaN stays NaN.
//
// 2^x = 2^k 2^r with k = round(x). Adding 1.5 * 2^23 + 127 rounds and leaves k + 127, the exponent of 2^k, in the
// lowest bits of the sum. The coefficients are the minimax fit of degree 6 to 2^r on [-1/2, 1/2], 2e-9 off at most.
// The product is one of floats, since added to the bits of a NaN the exponent could make a number of it.
inline V exp2(V x) {
    const V shift = splat(12583039.0f);
    x = max(splat(-126.0f), x);
    const V sum = x + shift;
    const V r = x - (sum - shift);
    V y = splat(1.53458118e-4f);
    y = y * r + splat(1.33999312e-3f);
    y = y * r + splat(9.61848896e-3f);
    y = y * r + splat(5.55032878e-2f);
    y = y * r + splat(2.40226469e-1f);
    y = y * r + splat(6.93147206e-1f);
    y = y * r + splat(1.0f);
    return y * (V)((VI)sum << 23);
}
inline float exp2(float x) { return exp2(splat(x))[0]; }

// Store at an address on a vector's boundary without bringing what was there into the caches.
inline void store_past_caches(float* p, V v) {
#if defined(__AVX512F__)
    _mm512_stream_ps(p, (__m512)v);
#elif defined(__AVX2__)
    _mm256_stream_ps(p, (__m256)v);
#else
    store(p, v);
#endif
}
// Other threads see such stores in order only after this.
inline void finish_stores() {
#if defined(__AVX2__)
    _mm_sfence();
#endif
}

inline float total(V v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#else
    for (int half = W / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) v[i] += v[i + half];
    return v[0];
#endif
}

}  // namespace
