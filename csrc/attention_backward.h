// The backward pass: see attention.cpp.
#pragma once

#include "attention_tiles.h"

namespace {

// The backward pass multiplies E by at most 2^60, which leaves errors below 2^-60.
constexpr float WIDEST_RANGE = 60;

// Further values for the backward pass of the latents of one head: r and the inverse sum of each latent, and terms of
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
    float* token_ref;  // becomes its gradient
    // Rows of token values, then of gradients of the tokens. The values become their gradient, the gradients come back
    // multiplied by the inverse sums.
    float* right;
    const float* token_out;
    float *latent_ref_grad, *latent_val_grad;  // added to
};

void backward_tile(const AttentionProblem& p, const Latents& latents, const LatentGradients& gradients, i64 count,
                   const BackwardTile& tile, Scratch& scratch, float* ds, float* dq) {
    const Widths& width = latents.width;
    const bool apart = gradients.apart;
    const i64 right_row = width.token_val + width.latent_val;
    float *e = &scratch.s[0], *factor = &scratch.factor[0], *inverse_sum = &scratch.inverse_sum[0];
    float* const grads = tile.right + width.token_val;
    const float* const across_grads = &gradients.across[width.token_val * width.latents];
    latents.similarities(tile.token_ref, width.ref, count, e);
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
        multiply_row(tile.right + j * right_row, width.token_val, factor[j]);
        multiply_row(grads + j * right_row, width.latent_val, inverse_sum[j]);
    }
    if (apart) {  // dP and dQ have different factors
        multiply(count, width.latents, width.token_val, tile.right, right_row, 1, &gradients.across[0], width.latents,
                 ds, width.latents, false);
        multiply(count, width.latents, width.latent_val, grads, right_row, 1, across_grads, width.latents, dq,
                 width.latents, false);
    } else {
        multiply(count, width.latents, right_row, tile.right, right_row, 1, &gradients.across[0], width.latents, ds,
                 width.latents, false);
    }
    for (i64 j = 0; j < count; ++j) {
        V sum = {};
        for (i64 d = 0; d < width.latent_val; d += W)
            sum += load(grads + j * right_row + d) * load(tile.token_out + j * width.latent_val + d);
        const V delta = splat(total(sum)), by = splat(factor[j]);
        for (i64 i = j * width.latents, m = 0; m < width.latents; i += W, m += W) {
            const V for_latents = load(&gradients.delta[m]) * by;
            if (apart)
                store(ds + i, load(w + i) * (load(ds + i) - for_latents) + load(e + i) * (load(dq + i) - delta));
            else
                store(ds + i, load(e + i) * (load(ds + i) - for_latents - delta));
        }
    }
    multiply(p.num_latents, width.latent_val, count, e, 1, width.latents, grads, right_row, tile.latent_val_grad,
             width.latent_val, true);
    multiply(p.num_latents, width.ref, count, ds, 1, width.latents, tile.token_ref, width.ref, tile.latent_ref_grad,
             width.ref, true);
    multiply(count, width.token_val, p.num_latents, w, width.latents, 1, &gradients.grad[0], width.token_val,
             tile.right, right_row, false);
    for (i64 j = 0; j < count; ++j) multiply_row(tile.right + j * right_row, width.token_val, factor[j]);
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
    const i64 right_row = width.token_val + width.latent_val;
    Array<float> refs(heads * TILE * width.ref), right(heads * TILE * right_row),
        outs(heads * TILE * width.latent_val), ds(TILE * width.latents), dq(TILE * width.latents);
    for (i64 first = range * p.tokens_each, end = range_end(p, range); first < end; first += TILE) {
        const i64 count = end - first < TILE ? end - first : TILE;
        for (i64 j = 0; j < count; ++j) {  // as in the forward pass
            tiles.read(p.token_ref, first + j, 1, p.ref_width, &refs[j * width.ref]);
            tiles.read(p.token_val, first + j, 1, p.token_width, &right[j * right_row], right_row);
        }
        tiles.read(p.token_grad, first, count, p.latent_width, &right[width.token_val], right_row);
        tiles.read(p.tokens, first, count, p.latent_width, &outs[0]);
        for (i64 h = 0; h < heads; ++h) {
            float *ref_grad = parts + h * size, *val_grad = ref_grad + width.latents * width.ref;
            const BackwardTile tile{&refs[h * TILE * width.ref], &right[h * TILE * right_row],
                                    &outs[h * TILE * width.latent_val], ref_grad, val_grad};
            backward_tile(p, latents[h], gradients[h], count, tile, scratch, &ds[0], &dq[0]);
        }
        for (i64 j = 0; j < count; ++j) {
            tiles.write(p.token_ref_grad, first + j, 1, p.ref_width, &refs[j * width.ref]);
            tiles.write(p.token_val_grad, first + j, 1, p.token_width, &right[j * right_row], right_row);
        }
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
    finish_stores();
}

}  // namespace
