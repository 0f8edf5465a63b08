// C interface of the residual MLP. A task is a few tiles of rows.
#include "mlp.h"

#include <memory>

#include "level.h"
#include "parallel.h"

namespace {

constexpr double USEFUL_PRODUCTS = 2e5;  // per thread, for it to be worth starting
constexpr int64_t LANES = 16;
constexpr int64_t JOINED_EACH = 64;  // hidden channels per task that sums gradients

// The order is that of bixt3d/ops/backends/mlp.py.
MlpProblem problem(const void* const* tensors, const int64_t* sizes, float eps) {
    const auto at = [&](int i) { return static_cast<const float*>(tensors[i]); };
    MlpProblem p{};
    p.x = at(0), p.norm_weight = at(1), p.norm_bias = at(2), p.weight1 = at(3), p.bias1 = at(4);
    p.weight2 = at(5), p.bias2 = at(6), p.update = at(7), p.scale = at(8);
    p.num_rows = sizes[0], p.cloud_rows = sizes[1], p.dim = sizes[2], p.hidden = sizes[3], p.eps = eps;
    return p;
}

int useful_threads(const MlpProblem& p, int threads) {
    const double products = double(p.num_rows) * double(p.dim) * double(p.hidden);
    return std::max(1, int(std::min(double(threads), products / USEFUL_PRODUCTS)));
}

int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

}  // namespace

// Both functions return 0, or 1 if they run out of memory.

// The result does not depend on how the rows are split.
EXPORT int bixt3d_residual_mlp(const void* const* tensors, const int64_t* sizes, float eps, float* out, int threads,
                               int level) {
    MlpProblem p = problem(tensors, sizes, eps);
    p.out = out;
    threads = useful_threads(p, threads);
    // Whole tiles, a few tasks per thread. With less to do, parts of a tile.
    const int64_t share = (p.num_rows + threads - 1) / threads;
    const int64_t unit = share < MLP_ROWS ? LANES : MLP_ROWS;
    const int64_t part = share < 4 * MLP_ROWS ? share : (share + 3) / 4;
    const int64_t each = std::max(unit, round_up(part, unit));
    const MlpKernels& use = AT_LEVEL(mlp, level);
    return guarded([&] {
        return parallel((p.num_rows + each - 1) / each, threads,
                        [&](int64_t i) { use.forward(p, i * each, std::min(each, p.num_rows - i * each)); });
    });
}

// The gradients by the parameters are sums over the rows of each thread, so their rounding depends on the number of
// threads.
EXPORT int bixt3d_residual_mlp_backward(const void* const* tensors, const int64_t* sizes, float eps,
                                        const float* out_grad, void* const* grads, int threads, int level) {
    const MlpProblem p = problem(tensors, sizes, eps);
    const auto at = [&](int i) { return static_cast<float*>(grads[i]); };
    const MlpGradients g{out_grad, at(0), at(1), at(2), at(3), at(4), at(5), at(6)};
    threads = useful_threads(p, threads);
    const int64_t each = round_up((p.num_rows + threads - 1) / threads, MLP_ROWS);
    const int64_t num_parts = std::max<int64_t>(1, (p.num_rows + each - 1) / std::max<int64_t>(1, each));
    const MlpKernels& use = AT_LEVEL(mlp, level);
    return guarded([&] {
        const int64_t size = use.part_size(p);
        const std::unique_ptr<float[]> parts(new float[size_t(num_parts * size)]);
        const int failed = parallel(num_parts, threads, [&](int64_t i) {
            const int64_t first = i * each, count = std::max<int64_t>(0, std::min(each, p.num_rows - first));
            use.backward(p, g, first, count, &parts[size_t(i * size)]);
        });
        if (failed) return failed;
        const int64_t joins = std::max<int64_t>(1, (p.hidden + JOINED_EACH - 1) / JOINED_EACH);
        return parallel(joins, threads, [&](int64_t i) {
            const int64_t first = i * JOINED_EACH;
            use.join(p, g, first, std::min(JOINED_EACH, p.hidden - first), parts.get(), num_parts);
        });
    });
}
