// Interface between attention_api.cpp and the copies of attention.cpp. Each function runs on a single thread.
#pragma once

#include <cstdint>

// A tensor (B, H, rows, width) of float32 or bfloat16 with contiguous rows. Strides are in elements.
struct Rows {
    void* data;
    int64_t batch, head, row;
};

// Tokens before their norm and map to references and values, and the map of their results. All float32 and contiguous,
// with transposed maps. Channels and head widths are multiples of 16.
struct TokenStream {
    const float* x;  // (B, N, channels)
    int64_t channels;
    const float *norm_weight, *norm_bias;
    float eps;
    const float *map, *bias;          // (channels, 2 H width): references of all heads, then values
    const float *out_map, *out_bias;  // (H width, channels)
    float* update;                    // (B, N, channels)
};

struct AttentionProblem {
    int64_t num_clouds, num_heads, num_latents, num_tokens;
    int64_t ref_width, latent_width, token_width;  // of the references, latent values (0: none) and token values
    float scale;
    int bfloat16;  // else float32; of every Rows
    Rows latent_ref, latent_val, token_ref, token_val;
    Rows latents, tokens;            // results
    // (B, H, M, 2): r and the sum over tokens of 2^(S / ln 2 - r). A single log-sum would lose bits of large S.
    float* latent_sums;
    Rows latent_grad, token_grad;    // from here on only used by the backward pass
    Rows latent_ref_grad, latent_val_grad, token_ref_grad, token_val_grad;
    int64_t latent_ref_clouds, latent_val_clouds;  // 1 if all clouds share one entry, with summed gradients
    // Length of the ranges into which the tokens are split. Independent of the number of threads, so that results are
    // too.
    int64_t tokens_each = 2048;
    const TokenStream* stream = nullptr;  // if given, token_ref, token_val and tokens are not used
};

struct AttentionKernels {
    // Attend with some heads of one cloud and one range of tokens. Writes the outputs of these tokens and, as
    // part_size() floats per head, their contribution to the latents.
    void (*forward)(const AttentionProblem&, int64_t cloud, int64_t head, int64_t heads, int64_t range, float* parts);
    // The same for all heads, with the tokens as a TokenStream.
    void (*forward_stream)(const AttentionProblem&, int64_t cloud, int64_t range, float* parts);
    // Join the parts of all ranges of one head, which are `step` floats apart.
    void (*join)(const AttentionProblem&, int64_t cloud, int64_t head, const float* parts, int64_t step);
    // Write the gradients of these tokens and, as backward_part_size() floats per head, their contribution to the
    // gradients of the latents.
    void (*backward)(const AttentionProblem&, int64_t cloud, int64_t head, int64_t heads, int64_t range, float* parts);
    // Sum the parts of one head over the ranges, and over the clouds if they share one entry. Parts are (B, ranges, H).
    void (*join_backward)(const AttentionProblem&, int64_t head, const float* parts);
    void (*transpose)(const float* from, int64_t rows, int64_t columns, float* to);
    int64_t (*part_size)(const AttentionProblem&);
    int64_t (*backward_part_size)(const AttentionProblem&);
};

extern const AttentionKernels attention_portable;
#ifdef BIXT3D_X86
extern const AttentionKernels attention_avx2;
extern const AttentionKernels attention_avx512;
#endif
