// Shared by the forward and backward pass of the residual MLP: GELU, and the rows of a tile.
#pragma once

#include "mlp.h"
#include "normalize.h"

namespace {

// Channels of the hidden layer per block. Together with the tile, a block fits in the first-level cache.
constexpr i64 HIDDEN_EACH = 96;

// Φ(-u) = 2^(u P(u) - 1), the probability that a normal variable exceeds u >= 0. The coefficients of P are a
// least-squares fit for u in [0, 6.5], reweighted to minimise the largest error of u Φ(-u) (6e-10). Beyond, the highest
// power makes the exponential vanish.
inline V normal_tail(V u) {
    V p = splat(-3.5776743345650175e-08f);
    p = p * u + splat(1.0097085123561556e-06f);
    p = p * u + splat(-1.2267342754057609e-05f);
    p = p * u + splat(8.21244902908802e-05f);
    p = p * u + splat(-2.927668683696538e-04f);
    p = p * u + splat(1.4827347513346467e-05f);
    p = p * u + splat(6.942166015505791e-03f);
    p = p * u + splat(-5.244584009051323e-02f);
    p = p * u + splat(-4.592171907424927e-01f);
    p = p * u + splat(-1.1511048078536987f);
    return exp2(p * u - splat(1));
}

// x Φ(x) = max(x, 0) - |x| Φ(-|x|).
inline V gelu(V x) {
    const V u = max(x, -x);
    return max(x, V{}) - u * normal_tail(u);
}

inline Norm norm_of(const MlpProblem& p) { return {p.dim, p.norm_weight, p.norm_bias, p.eps}; }

// Return the input rows from `first` on: those of x, or their sums with the update, written to `sums`.
inline const float* rows_of(const MlpProblem& p, i64 first, i64 count, float* sums) {
    const float* x = p.x + first * p.dim;
    if (!p.update) return x;
    const float* update = p.update + first * p.dim;
    for (i64 i = 0; i < count * p.dim; ++i) sums[i] = x[i] + update[i];
    return sums;
}

inline float scale_of(const MlpProblem& p, i64 row) { return p.scale ? p.scale[row / p.cloud_rows] : 1; }

// Whether the MLP changes any row of the tile. With stochastic depth, it skips whole clouds.
inline bool acts(const MlpProblem& p, i64 first, i64 count) {
    for (i64 r = first; r < first + count; ++r)
        if (scale_of(p, r) != 0) return true;
    return false;
}

// to (dim, columns) = the transposed rows (count, padded), the further columns zero.
inline void turn(const MlpProblem& p, const float* from, i64 count, i64 columns, float* to) {
    if (count < columns)
        for (i64 d = 0; d < p.dim; ++d)
            for (i64 r = 0; r < columns; r += W) store(to + d * columns + r, V{});
    transpose(from, count, p.dim, round_up(p.dim, W), to, columns);
}

}  // namespace
