// Gradients of the residual MLP for a tile of rows.
//
// Only the inputs of the forward pass are kept, so the hidden layer is recomputed, block by block. The gradients by the
// weights accumulate in memory of the caller, as (hidden, dim) for both maps, so that no operand of a product has to be
// rearranged.
#pragma once

#include "mlp_tiles.h"

namespace {

// Contribution of the rows of one thread to the gradients by the parameters.
struct Part {
    i64 padded;
    float *weight1, *weight2, *bias1, *norm_weight, *norm_bias, *bias2;
    Part(const MlpProblem& p, float* memory)
        : padded(round_up(p.dim, W)),
          weight1(memory),
          weight2(weight1 + p.hidden * padded),
          bias1(weight2 + p.hidden * padded),
          norm_weight(bias1 + p.hidden),
          norm_bias(norm_weight + padded),
          bias2(norm_bias + padded) {}
};

i64 part_size(const MlpProblem& p) {
    const i64 padded = round_up(p.dim, W);
    return 2 * p.hidden * padded + p.hidden + 3 * padded;
}

struct BackwardTile {
    Array<float> sums, normal, across, given, given_across, active, slope, grad, update;
    Array<Moments> moments;
    explicit BackwardTile(const MlpProblem& p)
        : sums(MLP_ROWS * p.dim),
          normal(MLP_ROWS * round_up(p.dim, W)),
          across(p.dim * MLP_ROWS),
          given(MLP_ROWS * round_up(p.dim, W)),
          given_across(p.dim * MLP_ROWS),
          active(HIDDEN_EACH * MLP_ROWS),
          slope(HIDDEN_EACH * MLP_ROWS),
          grad(HIDDEN_EACH * MLP_ROWS),
          update(p.dim * MLP_ROWS),
          moments(MLP_ROWS) {}
};

// Apply GELU to hidden channels, and compute its derivative Φ(x) + x φ(x).
void activate(i64 columns, i64 height, const float* bias1, float* active, float* slope) {
    for (i64 i = 0; i < height; ++i)
        for (i64 r = i * columns; r < (i + 1) * columns; r += W) {
            const V x = load(active + r) + splat(bias1[i]);
            const V tail = normal_tail(max(x, -x));
            const V below = x < V{} ? tail : splat(1) - tail;
            const V density = splat(0.3989422804014327f) * exp2(x * x * splat(-0.7213475204444817f));
            store(active + r, x * below);
            store(slope + r, below + x * density);
        }
}

void differentiate(const MlpProblem& p, const MlpGradients& g, i64 first, i64 count, BackwardTile& tile,
                   const Part& part) {
    const i64 columns = round_up(count, W), padded = round_up(p.dim, W);
    float *normal = &tile.normal[0], *across = &tile.across[0], *given = &tile.given[0];
    float *given_across = &tile.given_across[0], *update = &tile.update[0];
    float *active = &tile.active[0], *slope = &tile.slope[0], *grad = &tile.grad[0];
    const float* rows = rows_of(p, first, count, &tile.sums[0]);
    for (i64 r = 0; r < count; ++r) {
        tile.moments[r] = normalize(norm_of(p), rows + r * p.dim, normal + r * padded);
        const float* row = g.out + (first + r) * p.dim;
        const float scale = scale_of(p, first + r);
        for (i64 d = 0; d < p.dim; ++d) given[r * padded + d] = scale * row[d];
        for (i64 d = p.dim; d < padded; ++d) given[r * padded + d] = 0;
        for (i64 d = 0; d < padded; d += W) store(part.bias2 + d, load(part.bias2 + d) + load(given + r * padded + d));
    }
    turn(p, normal, count, columns, across);
    turn(p, given, count, columns, given_across);
    for (i64 i = 0; i < p.dim * columns; i += W) store(update + i, V{});
    for (i64 j = 0; j < p.hidden; j += HIDDEN_EACH) {
        const i64 height = p.hidden - j < HIDDEN_EACH ? p.hidden - j : HIDDEN_EACH;
        const float *weight1 = p.weight1 + j * p.dim, *weight2 = p.weight2 + j;
        multiply(height, columns, p.dim, weight1, p.dim, 1, across, columns, active, columns, false);
        activate(columns, height, p.bias1 + j, active, slope);
        multiply(height, columns, p.dim, weight2, 1, p.hidden, given_across, columns, grad, columns, false);
        for (i64 i = 0; i < height; ++i) {
            V sum = {};
            for (i64 r = i * columns; r < (i + 1) * columns; r += W) {
                const V product = load(grad + r) * load(slope + r);
                store(grad + r, product);
                sum += product;
            }
            part.bias1[j + i] += total(sum);
        }
        multiply(height, padded, count, active, columns, 1, given, padded, part.weight2 + j * padded, padded, true);
        multiply(height, padded, count, grad, columns, 1, normal, padded, part.weight1 + j * padded, padded, true);
        multiply(p.dim, columns, height, weight1, 1, p.dim, grad, columns, update, columns, true);
    }
    transpose(update, p.dim, count, columns, normal, padded);
    const float width = float(p.dim);
    for (i64 r = 0; r < count; ++r) {
        const float *x = rows + r * p.dim, *row = g.out + (first + r) * p.dim;
        float *by_normal = normal + r * padded, *centred = given, *to = g.x + (first + r) * p.dim;
        const auto [mean, factor] = tile.moments[r];
        for (i64 d = 0; d < p.dim; ++d) centred[d] = (x[d] - mean) * factor;
        for (i64 d = 0; d < p.dim; ++d) {
            part.norm_weight[d] += by_normal[d] * centred[d];
            part.norm_bias[d] += by_normal[d];
            by_normal[d] *= p.norm_weight[d];
        }
        for (i64 d = p.dim; d < padded; ++d) by_normal[d] = centred[d] = 0;
        V sums = {}, products = {};
        for (i64 d = 0; d < padded; d += W) {
            sums += load(by_normal + d);
            products += load(by_normal + d) * load(centred + d);
        }
        const float sum = total(sums) / width, product = total(products) / width;
        for (i64 d = 0; d < p.dim; ++d) to[d] = row[d] + factor * (by_normal[d] - sum - centred[d] * product);
    }
}

void backward(const MlpProblem& p, const MlpGradients& g, i64 first, i64 count, float* memory) {
    const Part part(p, memory);
    std::memset(memory, 0, size_t(part_size(p)) * sizeof(float));
    BackwardTile tile(p);
    for (i64 end = first + count; first < end; first += MLP_ROWS) {
        const i64 height = end - first < MLP_ROWS ? end - first : MLP_ROWS;
        if (acts(p, first, height))
            differentiate(p, g, first, height, tile, part);
        else
            std::memcpy(g.x + first * p.dim, g.out + first * p.dim, size_t(height * p.dim) * sizeof(float));
    }
}

void join(const MlpProblem& p, const MlpGradients& g, i64 hidden, i64 height, const float* parts, i64 num_parts) {
    const i64 size = part_size(p), padded = round_up(p.dim, W);
    const Part first(p, const_cast<float*>(parts));
    const auto total_of = [&](const float* where, i64 i) {
        float sum = 0;
        for (i64 k = 0; k < num_parts; ++k) sum += where[k * size + i];
        return sum;
    };
    Array<float> sums(height * padded);
    for (i64 j = hidden; j < hidden + height; ++j) {
        g.bias1[j] = total_of(first.bias1, j);
        for (i64 d = 0; d < p.dim; ++d) g.weight1[j * p.dim + d] = total_of(first.weight1, j * padded + d);
        for (i64 d = 0; d < p.dim; ++d) sums[(j - hidden) * padded + d] = total_of(first.weight2, j * padded + d);
    }
    transpose(&sums[0], height, p.dim, padded, g.weight2 + hidden, p.hidden);
    if (hidden > 0) return;
    for (i64 d = 0; d < p.dim; ++d) {
        g.norm_weight[d] = total_of(first.norm_weight, d);
        g.norm_bias[d] = total_of(first.norm_bias, d);
        g.bias2[d] = total_of(first.bias2, d);
    }
}

}  // namespace
