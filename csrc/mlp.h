// What mlp_api.cpp and the copies of mlp.cpp know of each other. One thread calls each function.
#pragma once

#include <cstdint>

// The residual MLP of a transformer, y + s (W2 gelu(W1 norm(y) + b1) + b2) with y = x + update, for rows that lie one
// after the other. Weights are as torch.nn.Linear holds them: (outputs, inputs).
struct MlpProblem {
    const float *x, *update;  // update: null where there is none
    int64_t num_rows, dim, hidden;
    const float *norm_weight, *norm_bias;
    float eps;
    const float *weight1, *bias1, *weight2, *bias2;
    const float* scale;   // s of every cloud; null where it is one
    int64_t cloud_rows;   // rows of a cloud
    float* out;           // may be x
};

// The gradient of a loss by the result, which is read, and by everything else but s, which is written.
struct MlpGradients {
    const float* out;
    float *x, *norm_weight, *norm_bias, *weight1, *bias1, *weight2, *bias2;
};

// Rows of a tile, a multiple of 16.
constexpr int64_t MLP_ROWS = 64;

struct MlpKernels {
    void (*forward)(const MlpProblem&, int64_t first, int64_t count);
    // Write the gradient by some rows and, to part_size() floats, what they add to those by the parameters.
    void (*backward)(const MlpProblem&, const MlpGradients&, int64_t first, int64_t count, float* part);
    // Add up parts that lie one after the other, for `height` hidden channels. The call with hidden == 0 also sums the
    // remaining parameters.
    void (*join)(const MlpProblem&, const MlpGradients&, int64_t hidden, int64_t height, const float* parts,
                 int64_t num_parts);
    int64_t (*part_size)(const MlpProblem&);
};

extern const MlpKernels mlp_portable;
#ifdef BIXT3D_X86
extern const MlpKernels mlp_avx2;
extern const MlpKernels mlp_avx512;
#endif
