// Layer normalisation of a row.
#pragma once

#include "multiply.h"

namespace {

struct Norm {
    i64 dim;
    const float *weight, *bias;
    float eps;
};

// Normalisation of a row: subtract the mean, then multiply by the factor (inverse standard deviation).
struct Moments {
    float mean, factor;
};

// Normalise a row. `to` has room for whole vectors, padded with zeros.
inline Moments normalize(const Norm& norm, const float* row, float* to) {
    const i64 padded = round_up(norm.dim, W);
    const float width = float(norm.dim);
    for (i64 d = 0; d < norm.dim; ++d) to[d] = row[d];
    for (i64 d = norm.dim; d < padded; ++d) to[d] = 0;
    V sum = {}, squares = {}, left = {};
    for (i64 d = 0; d < padded; d += W) sum += load(to + d);
    const float near = total(sum) / width;
    for (i64 d = 0; d < padded; d += W) store(to + d, load(to + d) - splat(near));
    for (i64 d = norm.dim; d < padded; ++d) to[d] = 0;
    for (i64 d = 0; d < padded; d += W) {
        const V centred = load(to + d);
        left += centred;
        squares += centred * centred;
    }
    // Remainder of the mean after rounding. It is small, but matters for a constant row.
    const float rest = total(left) / width, mean = near + rest, variance = total(squares) / width - rest * rest;
    const float factor = 1 / __builtin_sqrtf((variance < 0 ? 0 : variance) + norm.eps);
    for (i64 d = 0; d < norm.dim; ++d) to[d] = (row[d] - mean) * factor * norm.weight[d] + norm.bias[d];
    return {mean, factor};
}

}  // namespace
