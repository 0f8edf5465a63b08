// Interface between mlp_api.cpp and the copies of mlp.cpp. Each function runs on a single thread.
#pragma once

#include <cstdint>

// The residual MLP of a transformer, y + s (W2 gelu(W1 norm(y) + b1) + b2) with y = x + update, for contiguous rows.
// Weights are (outputs, inputs), as in torch.nn.Linear.
struct MlpProblem {
    const float *x, *update;  // update: null for none
    int64_t num_rows, dim, hidden;
    const float *norm_weight, *norm_bias;
    float eps;
    const float *weight1, *bias1, *weight2, *bias2;
    const float* scale;   // s of every cloud; null for ones
    int64_t cloud_rows;   // rows per cloud
    float* out;           // may be x
};

// Gradients of a loss: by the result (input), and by everything else but s (output).
struct MlpGradients {
    const float* out;
    float *x, *norm_weight, *norm_bias, *weight1, *bias1, *weight2, *bias2;
};

// Rows per tile, a multiple of 16.
constexpr int64_t MLP_ROWS = 64;

struct MlpKernels {
    void (*forward)(const MlpProblem&, int64_t first, int64_t count);
    // Write the gradient by some rows and, as part_size() floats, their contribution to the gradients by the
    // parameters.
    void (*backward)(const MlpProblem&, const MlpGradients&, int64_t first, int64_t count, float* part);
    // Sum contiguous parts for `height` hidden channels from `hidden` on. The call with hidden == 0 also sums the
    // gradients by parameters without a hidden axis.
    void (*join)(const MlpProblem&, const MlpGradients&, int64_t hidden, int64_t height, const float* parts,
                 int64_t num_parts);
    int64_t (*part_size)(const MlpProblem&);
};

extern const MlpKernels mlp_portable;
#ifdef BIXT3D_X86
extern const MlpKernels mlp_avx2;
extern const MlpKernels mlp_avx512;
#endif
