// What mlp_api.cpp and the copies of mlp.cpp know of each other.
#pragma once

#include <cstdint>

// The residual MLP of a transformer, x + W2 gelu(W1 norm(x) + b1) + b2, for rows that lie one after the other. Weights
// are as torch.nn.Linear holds them: (outputs, inputs).
struct MlpProblem {
    const float* x;
    int64_t dim, hidden;
    const float *norm_weight, *norm_bias;
    float eps;
    const float *weight1, *bias1, *weight2, *bias2;
    float* out;
};

// Rows of a tile, a multiple of 16.
constexpr int64_t MLP_ROWS = 64;

struct MlpKernels {
    void (*rows)(const MlpProblem&, int64_t first, int64_t count);
};

extern const MlpKernels mlp_portable;
#ifdef BIXT3D_X86
extern const MlpKernels mlp_avx2;
extern const MlpKernels mlp_avx512;
#endif
