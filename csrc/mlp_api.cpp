// The C function of the residual MLP: one task for every tile of rows.
#include "mlp.h"

#include "level.h"
#include "parallel.h"

namespace {

constexpr double USEFUL_PRODUCTS = 2e5;  // a thread is worth its start from so many on
constexpr int64_t LANES = 16;

}  // namespace

// Returns 0, or 1 when memory ran out. How the rows are cut changes no result.
EXPORT int bixt3d_residual_mlp(const float* x, int64_t num_rows, int64_t dim, int64_t hidden, const float* norm_weight,
                               const float* norm_bias, float eps, const float* weight1, const float* bias1,
                               const float* weight2, const float* bias2, float* out, int threads, int level) {
    const MlpProblem p{x, dim, hidden, norm_weight, norm_bias, eps, weight1, bias1, weight2, bias2, out};
    const double products = double(num_rows) * double(dim) * double(hidden);
    threads = std::max(1, int(std::min(double(threads), products / USEFUL_PRODUCTS)));
    // Whole tiles, a few tasks for each thread; with less to do, parts of a tile.
    const int64_t share = (num_rows + threads - 1) / threads;
    const int64_t unit = share < MLP_ROWS ? LANES : MLP_ROWS;
    const int64_t part = share < 4 * MLP_ROWS ? share : (share + 3) / 4;
    const int64_t each = std::max(unit, (part + unit - 1) / unit * unit);
    const MlpKernels& use = AT_LEVEL(mlp, level);
    return guarded([&] {
        return parallel((num_rows + each - 1) / each, threads,
                        [&](int64_t i) { use.rows(p, i * each, std::min(each, num_rows - i * each)); });
    });
}
