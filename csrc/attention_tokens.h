// Input and output of the forward pass for a tile of tokens: tensors of references and values (StoredTokens), or tokens
// that are normalised and mapped tile by tile (StreamedTokens). Both hold the heads [head, head + heads) of one cloud.
#pragma once

#include "attention_tiles.h"
#include "normalize.h"

namespace {

struct StoredTokens {
    const AttentionProblem& problem;
    Widths width;
    Tiles tiles;
    Array<float> refs, vals, outs;

    StoredTokens(const AttentionProblem& p, i64 cloud, i64 head, i64 heads)
        : problem(p),
          width(p),
          tiles{p, cloud, head, heads},
          refs(heads * TILE * width.ref),
          vals(heads * TILE * width.token_val),
          outs(heads * TILE * width.latent_val) {}

    float* ref(i64 h) { return &refs[h * TILE * width.ref]; }
    float* val(i64 h) { return &vals[h * TILE * width.token_val]; }
    float* out(i64 h) { return &outs[h * TILE * width.latent_val]; }
    i64 ref_row() const { return width.ref; }
    i64 val_row() const { return width.token_val; }
    i64 out_row() const { return width.latent_val; }

    void read(i64 first, i64 count) {
        for (i64 j = 0; j < count; ++j) {  // references and values of a token often lie beside each other
            tiles.read(problem.token_ref, first + j, 1, problem.ref_width, &refs[j * width.ref]);
            tiles.read(problem.token_val, first + j, 1, problem.token_width, &vals[j * width.token_val]);
        }
    }
    void write(i64 first, i64 count) { tiles.write(problem.tokens, first, count, problem.latent_width, &outs[0]); }
};

// Only the tokens and their update go through memory. A tile is normalised and mapped, and its results are mapped, in
// the caches.
struct StreamedTokens {
    const AttentionProblem& problem;
    const TokenStream& stream;
    i64 cloud, head, heads, wide;  // wide: of all the heads here
    Array<float> normal, sides, outs;

    StreamedTokens(const AttentionProblem& p, i64 at_cloud, i64 first_head, i64 num_heads)
        : problem(p),
          stream(*p.stream),
          cloud(at_cloud),
          head(first_head),
          heads(num_heads),
          wide(num_heads * p.ref_width),
          normal(TILE * stream.channels),
          sides(TILE * 2 * wide),
          outs(TILE * wide) {}

    float* ref(i64 h) { return &sides[h * problem.ref_width]; }
    float* val(i64 h) { return &sides[wide + h * problem.ref_width]; }
    float* out(i64 h) { return &outs[h * problem.ref_width]; }
    i64 ref_row() const { return 2 * wide; }
    i64 val_row() const { return 2 * wide; }
    i64 out_row() const { return wide; }

    // C (count, columns) = the bias + A (count, depth) B (depth, columns).
    static void map(i64 count, i64 columns, i64 depth, const float* a, i64 a_row, const float* b, i64 b_row,
                    const float* bias, float* c, i64 c_row) {
        for (i64 j = 0; j < count; ++j)
            for (i64 d = 0; d < columns; d += W) store(c + j * c_row + d, load(bias + d));
        multiply(count, columns, depth, a, a_row, 1, b, b_row, c, c_row, true);
    }

    void read(i64 first, i64 count) {
        const i64 all = problem.num_heads * problem.ref_width, channels = stream.channels;
        const Norm norm{channels, stream.norm_weight, stream.norm_bias, stream.eps};
        const float* rows = stream.x + (cloud * problem.num_tokens + first) * channels;
        for (i64 j = 0; j < count; ++j) normalize(norm, rows + j * channels, &normal[j * channels]);
        for (i64 side = 0; side < 2; ++side) {
            const i64 at = side * all + head * problem.ref_width;
            map(count, wide, channels, &normal[0], channels, stream.map + at, 2 * all, stream.bias + at,
                &sides[side * wide], 2 * wide);
        }
    }

    void write(i64 first, i64 count) {
        if (problem.latent_width == 0) return;   // the latents alone attend
        if (heads < problem.num_heads) return;  // only the latents of some heads are computed again
        const i64 channels = stream.channels;
        map(count, channels, wide, &outs[0], wide, stream.out_map, channels, stream.out_bias,
            stream.update + (cloud * problem.num_tokens + first) * channels, channels);
    }
};

}  // namespace
