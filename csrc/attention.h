// What attention_api.cpp and the copies of attention.cpp know of each other. One thread calls each function.
#pragma once

#include <cstdint>

// A tensor (B, H, rows, width) of float32 or bfloat16 with rows in one piece; strides count elements.
struct Rows {
    void* data;
    int64_t batch, head, row;
};

// Tokens that are yet to be normalised and mapped to references and values, and whose results are mapped on: all of
// float32, in one piece, with maps transposed. Channels and the widths of heads are multiples of 16.
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
    // (B, H, M, 2): r and the sum over tokens of 2^(S / ln 2 - r). Their logarithmic sum would lose bits of large S.
    float* latent_sums;
    Rows latent_grad, token_grad;    // from here on read by the backward pass alone
    Rows latent_ref_grad, latent_val_grad, token_ref_grad, token_val_grad;
    int64_t latent_ref_clouds, latent_val_clouds;  // 1 where all clouds share one entry, whose gradient is their sum
    // The tokens are cut into ranges of this length, whatever the number of threads, so that this changes no result.
    int64_t tokens_each = 2048;
    const TokenStream* stream = nullptr;  // where it is given there are no token_ref, token_val and tokens
};

struct AttentionKernels {
    // Attend with some heads of one cloud and one range of tokens. Writes the outputs of these tokens and, for each
    // head to part_size() floats, what they add to the latents.
    void (*forward)(const AttentionProblem&, int64_t cloud, int64_t head, int64_t heads, int64_t range, float* parts);
    // The same for all heads where the tokens come as a stream.
    void (*forward_stream)(const AttentionProblem&, int64_t cloud, int64_t range, float* parts);
    // Join the parts of all ranges of one head, which lie `step` floats apart.
    void (*join)(const AttentionProblem&, int64_t cloud, int64_t head, const float* parts, int64_t step);
    // Write the gradients of these tokens and, for each head to backward_part_size() floats, what they add to those
    // of the latents.
    void (*backward)(const AttentionProblem&, int64_t cloud, int64_t head, int64_t heads, int64_t range, float* parts);
    // Add up the parts of one head, all of them being (B, ranges, H), for each cloud or over all.
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
