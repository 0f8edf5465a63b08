// Bi-directional cross-attention of one head in one pass over the tokens, forward and backward, for one instruction
// set: setup.py compiles this file once for each, with BIXT3D_ATTENTION naming the table it fills.
//
// A tile of tokens sees all latents, so its softmax over the latents is complete at once, while that over the tokens
// accumulates. One exponential serves both. With c[j] the largest similarity of token j and g the largest of all,
//
//     E[j, m] = 2^(s[j, m] - c[j])          softmax over latents:  E[j, m] / sum_m E[j, m]
//     2^(s[j, m] - g) = E[j, m] 2^(c[j] - g)    softmax over tokens:  its numerator
//
// so the token values are multiplied by 2^(c[j] - g), which is a number per token, and E does the rest. Only where
// all similarities of a latent lie far below those of others do the numbers lose bits; that is seen afterwards, and
// the range is computed again with an exponential for each direction (`APART`).
//
// Latent values of width 0 make this a cross-attention that only the latents take part in: every product with them
// then is empty.
//
// Similarities are in units of ln 2 all through this file, for powers of 2 are cheaper than those of e.
//
// A range is worked through tile by tile with several heads at once, since in memory the heads of a token usually lie
// beside each other: reading whole rows in order is what the machine foresees. One head after the other, 128 bytes
// of every row at a time, took twice as long for a cloud that is not in the caches.
#include "attention.h"

#include "multiply.h"

namespace {

constexpr i64 TILE = 64;  // tokens, a multiple of 16; a tile of 64 latents, its values and references stay in the first caches
constexpr double LOG2_E = 1.4426950408889634;

// A latent whose weights add up to less than this, relative to the largest of all, is computed apart: an exponential
// is at least 2^-126 = 1e-38 where it should be less, and 2,048 of these must not show.
constexpr float LEAST_SUM = 1e-26f;
// The backward pass multiplies E by at most 2^60, which leaves errors below 2^-60.
constexpr float WIDEST_RANGE = 60;

inline float from_bfloat16(uint16_t x) {
    const u32 bits = u32(x) << 16;
    float y;
    std::memcpy(&y, &bits, sizeof y);
    return y;
}
inline uint16_t to_bfloat16(float x) {
    u32 bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (x != x) return uint16_t(bits >> 16 | 64);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Tensors as tiles: `count` rows from `first` on, of the heads [head, head + heads) of one cloud. In a tile each head
// has TILE rows of its own, whose width is rounded up to whole vectors.
struct Tiles {
    const AttentionProblem& problem;
    i64 cloud, head, heads;
    // Whether the tokens of all clouds are more than the caches hold. What is written then goes past them, which made
    // both passes 5 % faster for 16 clouds of 1,024 tokens.
    bool large = problem.num_clouds * problem.num_heads * problem.num_tokens * problem.ref_width > 1 << 20;

    template <class T>
    static T* at(const Rows& rows, i64 cloud, i64 head, i64 row) {
        return static_cast<T*>(rows.data) + cloud * rows.batch + head * rows.head + row * rows.row;
    }

    void read(const Rows& rows, i64 first, i64 count, i64 width, float* tile, i64 tile_rows = TILE) const {
        const i64 padded = round_up(width, W);
        for (i64 i = 0; i < count; ++i)
            for (i64 h = 0; h < heads; ++h) {
                float* to = tile + (h * tile_rows + i) * padded;
                if (problem.bfloat16) {
                    const uint16_t* from = at<const uint16_t>(rows, cloud, head + h, first + i);
                    for (i64 d = 0; d < width; ++d) to[d] = from_bfloat16(from[d]);
                } else {
                    const float* from = at<const float>(rows, cloud, head + h, first + i);
                    for (i64 d = 0; d < width; ++d) to[d] = from[d];
                }
                for (i64 d = width; d < padded; ++d) to[d] = 0;
            }
    }

    void write(const Rows& rows, i64 first, i64 count, i64 width, const float* tile, i64 tile_rows = TILE) const {
        const i64 padded = round_up(width, W);
        for (i64 i = 0; i < count; ++i)
            for (i64 h = 0; h < heads; ++h) {
                const float* from = tile + (h * tile_rows + i) * padded;
                if (problem.bfloat16) {
                    uint16_t* to = at<uint16_t>(rows, cloud, head + h, first + i);
                    for (i64 d = 0; d < width; ++d) to[d] = to_bfloat16(from[d]);
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

void transpose(const float* from, i64 rows, i64 columns, i64 from_stride, float* to, i64 to_stride) {
    for (i64 c = 0; c < columns; ++c)
        for (i64 r = 0; r < rows; ++r) to[c * to_stride + r] = from[r * from_stride + c];
}

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

    // s[j, m] of `count` tokens.
    void similarities(const float* token_ref, i64 count, float* s) const {
        multiply(count, width.latents, problem.ref_width, token_ref, width.ref, 1, &across[0], width.latents, s,
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

// What a range of tokens adds to the latents of a head: for each latent the reference g of its exponentials, the sum
// of these, and their product with the token values.
struct LatentPart {
    float *reference, *sum, *value;
    LatentPart(float* part, const Widths& width)
        : reference(part), sum(part + width.latents), value(part + 2 * width.latents) {}

    void clear(const Widths& width) {
        for (i64 m = 0; m < width.latents; ++m) reference[m] = -__builtin_inff(), sum[m] = 0;
        for (i64 i = 0; i < width.latents * width.token_val; ++i) value[i] = 0;
    }

    // One reference for all latents, the largest similarity so far; `factor` is what makes token values of weights E.
    void raise(const Widths& width, const float* largest_s, i64 count, float* factor) {
        float most = reference[0];
        for (i64 j = 0; j < count; ++j) most = largest_s[j] > most ? largest_s[j] : most;
        if (most > reference[0]) {
            const float shrink = exp2(reference[0] - most);
            for (i64 m = 0; m < width.latents; ++m) reference[m] = most;
            multiply_row(sum, width.latents, shrink);
            multiply_row(value, width.latents * width.token_val, shrink);
        }
        for (i64 j = 0; j < count; j += W) store(factor + j, exp2(load(largest_s + j) - splat(most)));
    }

    // A reference for each latent, and weights of their own.
    void raise_apart(const Widths& width, const float* s, i64 count, float* weight) {
        for (i64 m = 0; m < width.latents; m += W) {
            const V before = load(reference + m);
            V most = before;
            for (i64 j = 0; j < count; ++j) most = max(load(s + j * width.latents + m), most);
            const V shrink = exp2(before - most);
            store(reference + m, most);
            store(sum + m, load(sum + m) * shrink);
            for (int lane = 0; lane < W; ++lane)
                multiply_row(value + (m + lane) * width.token_val, width.token_val, shrink[lane]);
            for (i64 j = 0; j < count; ++j)
                store(weight + j * width.latents + m, exp2(load(s + j * width.latents + m) - most));
        }
    }
};

inline i64 range_end(const AttentionProblem& p, i64 range) {
    return (range + 1) * TOKENS_EACH < p.num_tokens ? (range + 1) * TOKENS_EACH : p.num_tokens;
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

template <bool APART>
void forward_heads(const AttentionProblem& p, i64 cloud, i64 head, i64 heads, i64 range, float* parts) {
    const Widths width(p);
    const Tiles tiles{p, cloud, head, heads};
    const i64 size = width.latents * (2 + width.token_val);
    Several<Latents> latents(heads);
    for (i64 h = 0; h < heads; ++h) {
        latents.add(p, cloud, head + h);
        LatentPart(parts + h * size, width).clear(width);
    }
    Scratch scratch(width);
    Array<float> refs(heads * TILE * width.ref), vals(heads * TILE * width.token_val),
        outs(heads * TILE * width.latent_val);
    for (i64 first = range * TOKENS_EACH, end = range_end(p, range); first < end; first += TILE) {
        const i64 count = end - first < TILE ? end - first : TILE;
        for (i64 j = 0; j < count; ++j) {  // references and values of a token often lie beside each other too
            tiles.read(p.token_ref, first + j, 1, p.ref_width, &refs[j * width.ref]);
            tiles.read(p.token_val, first + j, 1, p.token_width, &vals[j * width.token_val]);
        }
        for (i64 h = 0; h < heads; ++h) {
            LatentPart part(parts + h * size, width);
            float *e = &scratch.s[0], *val = &vals[h * TILE * width.token_val], *factor = &scratch.factor[0];
            latents[h].similarities(&refs[h * TILE * width.ref], count, e);
            if (APART) {
                part.raise_apart(width, e, count, &scratch.weight[0]);
                for (i64 j = 0; j < count; ++j) factor[j] = 1;
            }
            latents[h].exponentials(count, e, &scratch.largest_s[0], &scratch.inverse_sum[0]);
            if (!APART) {
                part.raise(width, &scratch.largest_s[0], count, factor);
                for (i64 j = 0; j < count; ++j) multiply_row(val + j * width.token_val, width.token_val, factor[j]);
            }
            const float* w = APART ? &scratch.weight[0] : e;
            multiply(1, width.latents, count, factor, 0, 1, w, width.latents, part.sum, width.latents, true);
            multiply(p.num_latents, width.token_val, count, w, 1, width.latents, val, width.token_val, part.value,
                     width.token_val, true);
            float* out = &outs[h * TILE * width.latent_val];
            multiply(count, width.latent_val, p.num_latents, e, width.latents, 1, &latents[h].val[0], width.latent_val,
                     out, width.latent_val, false);
            for (i64 j = 0; j < count; ++j)
                multiply_row(out + j * width.latent_val, width.latent_val, scratch.inverse_sum[j]);
        }
        tiles.write(p.tokens, first, count, p.latent_width, &outs[0]);
    }
    finish_stores();
}

i64 part_size(const AttentionProblem& p) {
    const Widths width(p);
    return width.latents * (2 + width.token_val);
}

void forward(const AttentionProblem& p, i64 cloud, i64 head, i64 heads, i64 range, float* parts) {
    const Widths width(p);
    forward_heads<false>(p, cloud, head, heads, range, parts);
    for (i64 h = 0; h < heads; ++h) {
        float* part = parts + h * part_size(p);
        bool exact = true;
        for (i64 m = 0; m < p.num_latents; ++m) exact = exact && LatentPart(part, width).sum[m] >= LEAST_SUM;
        if (!exact) forward_heads<true>(p, cloud, head + h, 1, range, part);
    }
}

i64 num_ranges(const AttentionProblem& p) { return (p.num_tokens + TOKENS_EACH - 1) / TOKENS_EACH; }

void join(const AttentionProblem& p, i64 cloud, i64 head, const float* parts, i64 step) {
    const Widths width(p);
    Array<float> value(width.token_val);
    for (i64 m = 0; m < p.num_latents; ++m) {
        float most = -__builtin_inff(), sum = 0;
        for (i64 i = 0; i < num_ranges(p); ++i) most = parts[i * step + m] > most ? parts[i * step + m] : most;
        for (i64 d = 0; d < width.token_val; ++d) value[d] = 0;
        for (i64 i = 0; i < num_ranges(p); ++i) {
            const float* part = parts + i * step;
            const float factor = exp2(part[m] - most);
            sum += factor * part[width.latents + m];
            const float* row = part + 2 * width.latents + m * width.token_val;
            for (i64 d = 0; d < width.token_val; d += W)
                store(&value[d], load(&value[d]) + splat(factor) * load(row + d));
        }
        multiply_row(&value[0], width.token_val, 1 / sum);
        Tiles{p, cloud, head, 1}.write(p.latents, m, 1, p.token_width, &value[0]);
        float* sums = p.latent_sums + ((cloud * p.num_heads + head) * p.num_latents + m) * 2;
        sums[0] = most, sums[1] = sum;
    }
}

// What the backward pass needs of the latents of one head besides: for each r and the inverse of its sum, and
//
//     dS = P (dP - D) + Q (dQ - D')    P, Q: the two maps; dP = token_val latent_grad^T; dQ = token_grad latent_val^T
//
// with D, D' a number for each latent and each token. P[j, m] = E[j, m] 2^(c[j] - g) (2^(g - r[m]) / sum[m]); the last
// factor is multiplied into the gradients of the latents, the one before into the token values.
struct LatentGradients {
    float reference = -__builtin_inff();  // g
    bool apart = false;
    Array<float> r, inverse_sum, delta, grad, across;  // across: rows dP of token values, then dQ of token gradients

    LatentGradients(const AttentionProblem& p, const Latents& latents, i64 cloud, i64 head)
        : r(latents.width.latents),
          inverse_sum(latents.width.latents),
          delta(latents.width.latents),
          grad(p.num_latents * latents.width.token_val),
          across((latents.width.token_val + latents.width.latent_val) * latents.width.latents) {
        const Widths& width = latents.width;
        const float* given = p.latent_sums + (cloud * p.num_heads + head) * p.num_latents * 2;
        float lowest = __builtin_inff();
        for (i64 m = 0; m < width.latents; ++m) {
            r[m] = m < p.num_latents ? given[2 * m] : 0;
            inverse_sum[m] = m < p.num_latents ? 1 / given[2 * m + 1] : 0;
            if (m >= p.num_latents) continue;
            const float log_sum = r[m] - __builtin_log2f(inverse_sum[m]);
            reference = r[m] > reference ? r[m] : reference;
            lowest = log_sum < lowest ? log_sum : lowest;
        }
        apart = !(reference - lowest <= WIDEST_RANGE);
        const Tiles rows{p, cloud, head, 1};
        Array<float> out(width.token_val);
        rows.read(p.latent_grad, 0, p.num_latents, p.token_width, &grad[0]);
        for (i64 m = 0; m < width.latents; ++m) delta[m] = 0;
        for (i64 m = 0; m < p.num_latents; ++m) {
            rows.read(p.latents, m, 1, p.token_width, &out[0]);
            float* row = &grad[m * width.token_val];
            V sum = {};
            for (i64 d = 0; d < width.token_val; d += W) sum += load(row + d) * load(&out[d]);
            const float factor = apart ? 1 : __builtin_exp2f(reference - r[m]) * inverse_sum[m];
            multiply_row(row, width.token_val, factor);
            delta[m] = total(sum) * factor;
        }
        for (i64 i = 0; i < (width.token_val + width.latent_val) * width.latents; ++i) across[i] = 0;
        transpose(&grad[0], p.num_latents, p.token_width, width.token_val, &across[0], width.latents);
        transpose(&latents.val[0], p.num_latents, p.latent_width, width.latent_val,
                  &across[width.token_val * width.latents], width.latents);
    }
};

// The tile of one head: tokens in, gradients out.
struct BackwardTile {
    float *token_ref, *token_val;          // become their gradients
    float *token_grad, *token_out;         // the former comes back multiplied by the inverse sums
    float *latent_ref_grad, *latent_val_grad;  // added to
};

void backward_tile(const AttentionProblem& p, const Latents& latents, const LatentGradients& gradients, i64 count,
                   const BackwardTile& tile, Scratch& scratch, float* ds, float* dq) {
    const Widths& width = latents.width;
    const bool apart = gradients.apart;
    float *e = &scratch.s[0], *factor = &scratch.factor[0], *inverse_sum = &scratch.inverse_sum[0];
    latents.similarities(tile.token_ref, count, e);
    if (apart)  // P itself, before E takes the place of s
        for (i64 j = 0; j < count; ++j)
            for (i64 m = 0; m < width.latents; m += W)
                store(&scratch.weight[j * width.latents + m],
                      exp2(load(e + j * width.latents + m) - load(&gradients.r[m])) * load(&gradients.inverse_sum[m]));
    latents.exponentials(count, e, &scratch.largest_s[0], inverse_sum);
    const float* w = apart ? &scratch.weight[0] : e;
    for (i64 j = 0; j < count; j += W)
        store(factor + j, apart ? splat(1) : exp2(load(&scratch.largest_s[j]) - splat(gradients.reference)));
    for (i64 j = 0; j < count; ++j) {
        multiply_row(tile.token_val + j * width.token_val, width.token_val, factor[j]);
        float *grad = tile.token_grad + j * width.latent_val, *out = tile.token_out + j * width.latent_val;
        V sum = {};
        for (i64 d = 0; d < width.latent_val; d += W) {
            const V g = load(grad + d) * splat(inverse_sum[j]);
            sum += g * load(out + d);
            store(grad + d, g);
        }
        const V delta = splat(total(sum));
        for (i64 m = 0; m < width.latents; m += W) {
            const V for_latents = -load(&gradients.delta[m]) * splat(factor[j]);
            store(ds + j * width.latents + m, apart ? for_latents : for_latents - delta);
            if (apart) store(dq + j * width.latents + m, -delta);
        }
    }
    // Together dP and dQ add up in one place; apart they have different factors.
    multiply(count, width.latents, p.token_width, tile.token_val, width.token_val, 1, &gradients.across[0],
             width.latents, ds, width.latents, true);
    multiply(count, width.latents, p.latent_width, tile.token_grad, width.latent_val, 1,
             &gradients.across[width.token_val * width.latents], width.latents, apart ? dq : ds, width.latents, true);
    for (i64 i = 0; i < count * width.latents; i += W) store(ds + i, load(ds + i) * load(w + i));
    if (apart)
        for (i64 i = 0; i < count * width.latents; i += W)
            store(ds + i, load(ds + i) + load(dq + i) * load(e + i));
    multiply(p.num_latents, width.latent_val, count, e, 1, width.latents, tile.token_grad, width.latent_val,
             tile.latent_val_grad, width.latent_val, true);
    multiply(p.num_latents, width.ref, count, ds, 1, width.latents, tile.token_ref, width.ref, tile.latent_ref_grad,
             width.ref, true);
    multiply(count, width.token_val, p.num_latents, w, width.latents, 1, &gradients.grad[0], width.token_val,
             tile.token_val, width.token_val, false);
    for (i64 j = 0; j < count; ++j)
        multiply_row(tile.token_val + j * width.token_val, width.token_val, factor[j]);
    multiply(count, width.ref, p.num_latents, ds, width.latents, 1, &latents.ref[0], width.ref, tile.token_ref,
             width.ref, false);
}

i64 backward_part_size(const AttentionProblem& p) {
    const Widths width(p);
    return width.latents * (width.ref + width.latent_val);
}

void backward(const AttentionProblem& p, i64 cloud, i64 head, i64 heads, i64 range, float* parts) {
    const Widths width(p);
    const Tiles tiles{p, cloud, head, heads};
    const i64 size = backward_part_size(p);
    Several<Latents> latents(heads);
    Several<LatentGradients> gradients(heads);
    for (i64 h = 0; h < heads; ++h) {
        latents.add(p, cloud, head + h);
        gradients.add(p, latents[h], cloud, head + h);
        multiply_row(&latents[h].ref[0], p.num_latents * width.ref, p.scale);
    }
    for (i64 i = 0; i < heads * size; ++i) parts[i] = 0;
    Scratch scratch(width);
    Array<float> refs(heads * TILE * width.ref), vals(heads * TILE * width.token_val),
        grads(heads * TILE * width.latent_val), outs(heads * TILE * width.latent_val), ds(TILE * width.latents),
        dq(TILE * width.latents);
    for (i64 first = range * TOKENS_EACH, end = range_end(p, range); first < end; first += TILE) {
        const i64 count = end - first < TILE ? end - first : TILE;
        for (i64 j = 0; j < count; ++j) {  // references and values of a token often lie beside each other too
            tiles.read(p.token_ref, first + j, 1, p.ref_width, &refs[j * width.ref]);
            tiles.read(p.token_val, first + j, 1, p.token_width, &vals[j * width.token_val]);
        }
        tiles.read(p.token_grad, first, count, p.latent_width, &grads[0]);
        tiles.read(p.tokens, first, count, p.latent_width, &outs[0]);
        for (i64 h = 0; h < heads; ++h) {
            float *ref_grad = parts + h * size, *val_grad = ref_grad + width.latents * width.ref;
            backward_tile(p, latents[h], gradients[h], count,
                          {&refs[h * TILE * width.ref], &vals[h * TILE * width.token_val],
                           &grads[h * TILE * width.latent_val], &outs[h * TILE * width.latent_val], ref_grad, val_grad},
                          scratch, &ds[0], &dq[0]);
        }
        tiles.write(p.token_ref_grad, first, count, p.ref_width, &refs[0]);
        tiles.write(p.token_val_grad, first, count, p.token_width, &vals[0]);
    }
    finish_stores();
    for (i64 h = 0; h < heads; ++h) multiply_row(parts + h * size, width.latents * width.ref, p.scale);
}

// Add up the parts of a gradient of one head over the ranges, and over the clouds where they share one entry.
void join_gradient(const AttentionProblem& p, const Rows& rows, i64 clouds, i64 head, const float* parts, i64 width) {
    const i64 ranges = num_ranges(p), size = backward_part_size(p), n = p.num_latents * round_up(width, W);
    Array<float> sum(n);
    for (i64 cloud = 0; cloud < p.num_clouds; ++cloud) {
        if (cloud == 0 || clouds > 1)
            for (i64 i = 0; i < n; ++i) sum[i] = 0;
        for (i64 range = 0; range < ranges; ++range) {
            const float* part = parts + ((cloud * ranges + range) * p.num_heads + head) * size;
            for (i64 i = 0; i < n; i += W) store(&sum[i], load(&sum[i]) + load(part + i));
        }
        if (clouds > 1 || cloud + 1 == p.num_clouds)
            Tiles{p, clouds > 1 ? cloud : 0, head, 1}.write(rows, 0, p.num_latents, width, &sum[0]);
    }
}

void join_backward(const AttentionProblem& p, i64 head, const float* parts) {
    const Widths width(p);
    join_gradient(p, p.latent_ref_grad, p.latent_ref_clouds, head, parts, p.ref_width);
    join_gradient(p, p.latent_val_grad, p.latent_val_clouds, head, parts + width.latents * width.ref, p.latent_width);
}

}  // namespace

extern const AttentionKernels BIXT3D_ATTENTION = {forward,       join,      backward,
                                                  join_backward, part_size, backward_part_size};
