// Bi-directional cross-attention in one pass over the tokens forward and one backward, for one instruction set.
// setup.py compiles this file once per instruction set, with BIXT3D_ATTENTION as the name of the table that it defines.
//
// A tile of tokens meets all latents, so its softmax over the latents is complete at once, while the softmax over the
// tokens accumulates. One exponential serves both. With c[j] the largest similarity of token j and g the largest of
// all,
//
//     E[j, m] = 2^(s[j, m] - c[j])          softmax over latents:  E[j, m] / sum_m E[j, m]
//     2^(s[j, m] - g) = E[j, m] 2^(c[j] - g)    softmax over tokens:  its numerator
//
// so the token values are multiplied by 2^(c[j] - g), one factor per token, and E provides the rest. This loses bits
// only if all similarities of a latent are far below those of others. That is detected afterwards, and the range is
// recomputed with one exponential per direction (`APART`).
//
// With latent values of width 0, this is one-sided cross-attention of the latents: all products with them are empty.
//
// All similarities in this file are in units of ln 2, since powers of 2 are cheaper than powers of e.
//
// Each range of tokens is processed tile by tile with several heads at once. The heads of a token are usually adjacent
// in memory, and the hardware prefetches whole rows that are read in order. One head after the other, 128 bytes of
// every row at a time, took 1.3 times as long for a cloud that does not fit in the caches.
#include "attention.h"

#include "attention_backward.h"
#include "attention_forward.h"

extern const AttentionKernels BIXT3D_ATTENTION = {forward,       forward_stream, join,      backward,
                                                  join_backward, transpose_map,  part_size, backward_part_size};
