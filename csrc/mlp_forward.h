// The residual MLP for a tile of rows.
//
// Only the tile leaves the second-level cache: each block of the hidden layer is computed, passed through GELU and
// multiplied with the second map before the next one. The tile is stored transposed, one column per row, so that
// weights are read one number at a time in their own order and need no packing. Compared with the same MLP in torch
// (2,048 rows at a time with warm memory, 192 channels), it is 1.2 times as fast with two threads and AVX-512, and
// reaches nine tenths of the rate of torch's own matrix product on one thread.
#pragma once

#include "mlp_tiles.h"

namespace {

// Memory for one tile, reused for all tiles of a thread. Allocated per tile, it would come from the operating system
// every time.
struct Tile {
    Array<float> sums, normal, across, hidden, update;
    explicit Tile(const MlpProblem& p)
        : sums(MLP_ROWS * p.dim),
          normal(MLP_ROWS * round_up(p.dim, W)),
          across(p.dim * MLP_ROWS),
          hidden(HIDDEN_EACH * MLP_ROWS),
          update(p.dim * MLP_ROWS) {}
};

void work_on(const MlpProblem& p, i64 first, i64 count, const float* rows, Tile& tile) {
    const i64 columns = round_up(count, W), padded = round_up(p.dim, W);
    float *normal = &tile.normal[0], *across = &tile.across[0], *hidden = &tile.hidden[0], *update = &tile.update[0];
    for (i64 r = 0; r < count; ++r) normalize(norm_of(p), rows + r * p.dim, normal + r * padded);
    turn(p, normal, count, columns, across);
    for (i64 d = 0; d < p.dim; ++d)
        for (i64 r = 0; r < columns; r += W) store(update + d * columns + r, splat(p.bias2[d]));
    for (i64 j = 0; j < p.hidden; j += HIDDEN_EACH) {
        const i64 height = p.hidden - j < HIDDEN_EACH ? p.hidden - j : HIDDEN_EACH;
        multiply(height, columns, p.dim, p.weight1 + j * p.dim, p.dim, 1, across, columns, hidden, columns,
                 false);
        for (i64 i = 0; i < height; ++i) {
            const V bias = splat(p.bias1[j + i]);
            for (i64 r = i * columns; r < (i + 1) * columns; r += W) store(hidden + r, gelu(load(hidden + r) + bias));
        }
        multiply(p.dim, columns, height, p.weight2 + j, p.hidden, 1, hidden, columns, update, columns, true);
    }
    transpose(update, p.dim, count, columns, normal, padded);
    for (i64 r = 0; r < count; ++r) {
        float* to = p.out + (first + r) * p.dim;
        const float scale = scale_of(p, first + r);
        for (i64 d = 0; d < p.dim; ++d) to[d] = rows[r * p.dim + d] + scale * normal[r * padded + d];
    }
}

void forward(const MlpProblem& p, i64 first, i64 count) {
    Tile tile(p);
    for (i64 end = first + count; first < end; first += MLP_ROWS) {
        const i64 height = end - first < MLP_ROWS ? end - first : MLP_ROWS;
        const float* rows = rows_of(p, first, height, &tile.sums[0]);
        if (acts(p, first, height))
            work_on(p, first, height, rows, tile);
        else
            std::memmove(p.out + first * p.dim, rows, size_t(height * p.dim) * sizeof(float));
    }
}

}  // namespace
