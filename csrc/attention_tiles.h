// Shared by the forward and backward pass of attention: tiles of tensors, the latents of a head, similarities and
// exponentials.
#pragma once

#include "attention.h"
#include "bfloat16.h"
#include "multiply.h"

namespace {

// Tokens per tile, a multiple of 16. With 64 latents, a tile, its references and values fit in the first two caches.
constexpr i64 TILE = 64;
constexpr double LOG2_E = 1.4426950408889634;

// Tensors as tiles: `count` rows from `first` on, of the heads [head, head + heads) of one cloud. In a tile each head
// has TILE rows of its own, as long as `tile_row` says or else rounded up to whole vectors.
struct Tiles {
    const AttentionProblem& problem;
    i64 cloud, head, heads;
    // Whether the tokens of all clouds exceed the caches. Stores then bypass the caches, which made both passes 5 %
    // faster for 16 clouds of 1,024 tokens.
    bool large = problem.num_clouds * problem.num_heads * problem.num_tokens * problem.ref_width > 1 << 20;

    template <class T>
    static T* at(const Rows& rows, i64 cloud, i64 head, i64 row) {
        return static_cast<T*>(rows.data) + cloud * rows.batch + head * rows.head + row * rows.row;
    }

    void read(const Rows& rows, i64 first, i64 count, i64 width, float* tile, i64 tile_row = 0) const {
        const i64 padded = round_up(width, W), step = tile_row ? tile_row : padded;
        for (i64 i = 0; i < count; ++i)
            for (i64 h = 0; h < heads; ++h) {
                float* to = tile + (h * TILE + i) * step;
                if (problem.bfloat16) {
                    const BFloat16* from = at<const BFloat16>(rows, cloud, head + h, first + i);
                    for (i64 d = 0; d < width; ++d) to[d] = widen(from[d]);
                } else {
                    const float* from = at<const float>(rows, cloud, head + h, first + i);
                    for (i64 d = 0; d < width; ++d) to[d] = from[d];
                }
                for (i64 d = width; d < padded; ++d) to[d] = 0;
            }
    }

    void write(const Rows& rows, i64 first, i64 count, i64 width, const float* tile, i64 tile_row = 0) const {
        const i64 padded = round_up(width, W), step = tile_row ? tile_row : padded;
        for (i64 i = 0; i < count; ++i)
            for (i64 h = 0; h < heads; ++h) {
                const float* from = tile + (h * TILE + i) * step;
                if (problem.bfloat16) {
                    BFloat16* to = at<BFloat16>(rows, cloud, head + h, first + i);
                    for (i64 d = 0; d < width; ++d) narrow(from[d], to[d]);
                } else {
                    float* to = at<float>(rows, cloud, head + h, first + i);
                    if (large && width == padded && u64(to) % sizeof(V) == 0)
                        for (i64 d = 0; d < width; d += W) store_past_caches(to + d, load(from + d));
                    else
                        for (i64 d = 0; d < width; ++d) to[d] = from[d];
                }
            }
    }
};

void multiply_row(float* row, i64 width, float factor) {
    for (i64 d = 0; d < width; d += W) store(row + d, load(row + d) * splat(factor));
}

// Widths of the rows of packed matrices, in floats.
struct Widths {
    i64 latents, ref, latent_val, token_val;
    explicit Widths(const AttentionProblem& p)
        : latents(round_up(p.num_latents, W)),
          ref(round_up(p.ref_width, W)),
          latent_val(round_up(p.latent_width, W)),
          token_val(round_up(p.token_width, W)) {}
};

// The side of the latents of one head: its references, also transposed and scaled so that a product with those of
// tokens is s.
struct Latents {
    const AttentionProblem& problem;
    Widths width;
    Array<float> ref, across, val;
    V beyond;  // added to the last latents: lanes past their end must not be the largest

    Latents(const AttentionProblem& p, i64 cloud, i64 head)
        : problem(p),
          width(p),
          ref(p.num_latents * width.ref),
          across(width.ref * width.latents),
          val(p.num_latents * width.latent_val) {
        const Tiles rows{p, cloud, head, 1};
        rows.read(p.latent_ref, 0, p.num_latents, p.ref_width, &ref[0]);
        rows.read(p.latent_val, 0, p.num_latents, p.latent_width, &val[0]);
        for (i64 i = 0; i < width.ref * width.latents; ++i) across[i] = 0;
        transpose(&ref[0], p.num_latents, p.ref_width, width.ref, &across[0], width.latents);
        // The factor of all similarities is applied in double: its own rounding would shift them all one way.
        const double factor = double(p.scale) * LOG2_E;
        for (i64 i = 0; i < width.ref * width.latents; ++i) across[i] = float(across[i] * factor);
        for (int lane = 0; lane < W; ++lane)
            beyond[lane] = width.latents - W + lane < p.num_latents ? 0 : -__builtin_inff();
    }

    // s[j, m] of `count` tokens, whose references lie `row` floats apart.
    void similarities(const float* token_ref, i64 row, i64 count, float* s) const {
        multiply(count, width.latents, problem.ref_width, token_ref, row, 1, &across[0], width.latents, s,
                 width.latents, false);
        if (width.latents != problem.num_latents)
            for (i64 j = 1; j <= count; ++j) {
                float* last = s + j * width.latents - W;
                store(last, load(last) + beyond);
            }
    }

    // s becomes E; its largest before and the inverse of its sum go with it.
    void exponentials(i64 count, float* s, float* largest_s, float* inverse_sum) const {
        for (i64 j = 0; j < count; ++j) {
            float* row = s + j * width.latents;
            V most = load(row);
            for (i64 m = W; m < width.latents; m += W) most = max(load(row + m), most);
            const float c = largest(most);
            V sum = {};
            for (i64 m = 0; m < width.latents; m += W) {
                const V e = exp2(load(row + m) - splat(c));
                store(row + m, e);
                sum += e;
            }
            largest_s[j] = c;
            inverse_sum[j] = total(sum);
        }
        for (i64 j = 0; j < count; j += W) store(inverse_sum + j, splat(1) / load(inverse_sum + j));
    }
};

// Memory for the tokens of one tile and one head.
struct Scratch {
    Array<float> s, weight, largest_s, inverse_sum, factor;
    explicit Scratch(const Widths& width)
        : s(TILE * width.latents), weight(TILE * width.latents), largest_s(TILE), inverse_sum(TILE), factor(TILE) {}
};

inline i64 num_ranges(const AttentionProblem& p) { return (p.num_tokens + p.tokens_each - 1) / p.tokens_each; }
inline i64 range_end(const AttentionProblem& p, i64 range) {
    return (range + 1) * p.tokens_each < p.num_tokens ? (range + 1) * p.tokens_each : p.num_tokens;
}

// The latents of several heads, built in place: Array does not move.
template <class T>
struct Several {
    T** items;
    i64 count = 0;
    explicit Several(i64 most) : items(static_cast<T**>(std::calloc(size_t(most), sizeof(T*)))) {
        if (!items) throw std::bad_alloc();
    }
    ~Several() {
        for (i64 i = 0; i < count; ++i) delete items[i];
        std::free(items);
    }
    template <class... Args>
    void add(const Args&... args) {
        items[count] = new T(args...);
        ++count;
    }
    T& operator[](i64 i) { return *items[i]; }
};

}  // namespace
