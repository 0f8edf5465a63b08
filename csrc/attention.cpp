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
// of every row at a time, took 1.3 times as long for a cloud that is not in the caches.
#include "attention.h"

#include "attention_backward.h"
#include "attention_forward.h"

extern const AttentionKernels BIXT3D_ATTENTION = {forward,       forward_stream, join,      backward,
                                                  join_backward, transpose_map,  part_size, backward_part_size};
