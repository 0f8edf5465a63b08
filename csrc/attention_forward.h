// The forward pass: see attention.cpp.
#pragma once

#include "attention_tokens.h"

namespace {

// A latent whose weights sum to less than this, relative to the largest of all, is computed apart: exponentials are
// clamped to at least 2^-126 = 1e-38, and 2,048 of these must not affect the sum.
constexpr float LEAST_SUM = 1e-26f;
// Contribution of a range of tokens to the latents of a head: for each latent, the reference g of its exponentials,
// their sum, and their product with the token values.
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

template <bool APART, class Tokens>
void forward_heads(const AttentionProblem& p, i64 cloud, i64 head, i64 heads, i64 range, float* parts) {
    const Widths width(p);
    const i64 size = width.latents * (2 + width.token_val);
    Several<Latents> latents(heads);
    for (i64 h = 0; h < heads; ++h) {
        latents.add(p, cloud, head + h);
        LatentPart(parts + h * size, width).clear(width);
    }
    Scratch scratch(width);
    Tokens tokens(p, cloud, head, heads);
    for (i64 first = range * p.tokens_each, end = range_end(p, range); first < end; first += TILE) {
        const i64 count = end - first < TILE ? end - first : TILE;
        tokens.read(first, count);
        for (i64 h = 0; h < heads; ++h) {
            LatentPart part(parts + h * size, width);
            float *e = &scratch.s[0], *val = tokens.val(h), *factor = &scratch.factor[0];
            const i64 val_row = tokens.val_row(), out_row = tokens.out_row();
            latents[h].similarities(tokens.ref(h), tokens.ref_row(), count, e);
            if (APART) {
                part.raise_apart(width, e, count, &scratch.weight[0]);
                for (i64 j = 0; j < count; ++j) factor[j] = 1;
            }
            latents[h].exponentials(count, e, &scratch.largest_s[0], &scratch.inverse_sum[0]);
            if (!APART) {
                part.raise(width, &scratch.largest_s[0], count, factor);
                for (i64 j = 0; j < count; ++j) multiply_row(val + j * val_row, width.token_val, factor[j]);
            }
            const float* w = APART ? &scratch.weight[0] : e;
            multiply(1, width.latents, count, factor, 0, 1, w, width.latents, part.sum, width.latents, true);
            multiply(p.num_latents, width.token_val, count, w, 1, width.latents, val, val_row, part.value,
                     width.token_val, true);
            float* out = tokens.out(h);
            multiply(count, width.latent_val, p.num_latents, e, width.latents, 1, &latents[h].val[0], width.latent_val,
                     out, out_row, false);
            for (i64 j = 0; j < count; ++j)
                multiply_row(out + j * out_row, width.latent_val, scratch.inverse_sum[j]);
        }
        tokens.write(first, count);
    }
    finish_stores();
}

i64 part_size(const AttentionProblem& p) {
    const Widths width(p);
    return width.latents * (2 + width.token_val);
}

template <class Tokens>
void forward_range(const AttentionProblem& p, i64 cloud, i64 head, i64 heads, i64 range, float* parts) {
    const Widths width(p);
    forward_heads<false, Tokens>(p, cloud, head, heads, range, parts);
    for (i64 h = 0; h < heads; ++h) {
        float* part = parts + h * part_size(p);
        bool exact = true;
        for (i64 m = 0; m < p.num_latents; ++m) exact = exact && LatentPart(part, width).sum[m] >= LEAST_SUM;
        if (!exact) forward_heads<true, Tokens>(p, cloud, head + h, 1, range, part);
    }
}

void forward(const AttentionProblem& p, i64 cloud, i64 head, i64 heads, i64 range, float* parts) {
    forward_range<StoredTokens>(p, cloud, head, heads, range, parts);
}

void forward_stream(const AttentionProblem& p, i64 cloud, i64 range, float* parts) {
    forward_range<StreamedTokens>(p, cloud, 0, p.num_heads, range, parts);
}

void transpose_map(const float* from, i64 rows, i64 columns, float* to) {
    transpose(from, rows, columns, columns, to, rows);
}

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
    finish_stores();
}

}  // namespace
