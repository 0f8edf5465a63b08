// C interface of the ops on features. Functions return 0, 1 if they run out of memory, or 2 if an index is outside its
// cloud.
#include <algorithm>

#include "kernels.h"
#include "level.h"
#include "parallel.h"

namespace {

constexpr int OUT_OF_RANGE = 2;
constexpr int64_t BYTES_EACH = 1 << 16;  // rows per task; starting a thread costs about as much

// Distribute the rows of all clouds. work(b, r, count) processes `count` rows of cloud b, from the r-th on.
template <class Work>
int each_row(int64_t num_clouds, int64_t num_rows, int64_t row_bytes, int threads, const Work& work) {
    const int64_t step = std::max<int64_t>(1, BYTES_EACH / std::max<int64_t>(1, row_bytes));
    const int64_t chunks = (num_rows + step - 1) / step;
    std::atomic<bool> inside{true};
    const int failed = parallel(num_clouds * chunks, threads, [&](int64_t i) {
        const int64_t r = i % chunks * step;
        if (!work(i / chunks, r, std::min(step, num_rows - r))) inside = false;
    });
    return inside ? failed : OUT_OF_RANGE;
}

int64_t size_of(int type) { return type == FLOAT64 ? 8 : type == FLOAT32 ? 4 : 2; }

}  // namespace

EXPORT int bixt3d_gather(const void* features, int64_t num_clouds, int64_t n, int64_t row_bytes,
                         const int64_t* index, int64_t num_rows, void* out, int threads, int level) {
    return guarded([&] {
        const Kernels& use = AT_LEVEL(kernels, level);
        return each_row(num_clouds, num_rows, row_bytes, threads, [&](int64_t b, int64_t r, int64_t count) {
            return use.gather(static_cast<const char*>(features) + b * n * row_bytes, n, row_bytes,
                              index + b * num_rows + r, count,
                              static_cast<char*>(out) + (b * num_rows + r) * row_bytes);
        });
    });
}

EXPORT int bixt3d_interpolate(const void* features, int64_t num_clouds, int64_t n, int64_t channels,
                              const int64_t* index, const void* weights, int64_t num_rows, int type, void* out,
                              int threads, int level) {
    return guarded([&] {
        const Kernels& use = AT_LEVEL(kernels, level);
        const int64_t row_bytes = channels * size_of(type), weight_bytes = 3 * (type == FLOAT64 ? 8 : 4);
        return each_row(num_clouds, num_rows, 3 * row_bytes, threads, [&](int64_t b, int64_t r, int64_t count) {
            const int64_t row = b * num_rows + r;
            return use.interpolate(type, static_cast<const char*>(features) + b * n * row_bytes, n, channels,
                                   index + 3 * row, static_cast<const char*>(weights) + row * weight_bytes, count,
                                   static_cast<char*>(out) + row * row_bytes);
        });
    });
}

EXPORT int bixt3d_scatter(const void* rows, int64_t num_clouds, int64_t num_rows, int64_t channels,
                          const int64_t* index, const void* weights, const uint8_t* winner, int64_t uses, int type,
                          int64_t n, void* out, int threads, int level) {
    return guarded([&] {
        const Kernels& use = AT_LEVEL(kernels, level);
        const Scatter scatter = {type, rows, num_rows, channels, uses, n, index, weights, winner, out};
        // No two threads add to the same number: each has a cloud or, if clouds are few, a range of channels of one, in
        // whole cache lines.
        const int64_t wanted = num_clouds >= 2 * threads ? 1 : 2 * threads;
        const int64_t width = std::max<int64_t>(64, ((channels + wanted - 1) / wanted + 15) / 16 * 16);
        const int64_t ranges = threads == 1 ? 1 : (channels + width - 1) / width;
        std::atomic<bool> inside{true};
        const bool small = num_clouds * num_rows * uses * channels * size_of(type) < 4 * BYTES_EACH;
        const int failed = parallel(num_clouds * ranges, small ? 1 : threads, [&](int64_t i) {
            const int64_t from = i % ranges * width, to = ranges == 1 ? channels : std::min(channels, from + width);
            if (!use.scatter(scatter, i / ranges, from, to)) inside = false;
        });
        return inside ? failed : OUT_OF_RANGE;
    });
}

EXPORT int bixt3d_neighbors(const void* features, int64_t num_clouds, int64_t n, int64_t channels,
                            const int64_t* index, int64_t k, int64_t num_rows, int type, void* out, uint8_t* winner,
                            int threads, int level) {
    return guarded([&] {
        const Kernels& use = AT_LEVEL(kernels, level);
        const int64_t row_bytes = channels * size_of(type);
        return each_row(num_clouds, num_rows, k * row_bytes, threads, [&](int64_t b, int64_t r, int64_t count) {
            const int64_t row = b * num_rows + r;
            return use.neighbors(type, static_cast<const char*>(features) + b * n * row_bytes, n, channels,
                                 index + row * k, k, count, static_cast<char*>(out) + row * row_bytes,
                                 winner ? winner + row * channels : nullptr);
        });
    });
}

EXPORT int bixt3d_group_max(const void* rows, int64_t num_rows, int64_t k, int64_t channels, int type, void* out,
                            uint8_t* winner, int threads, int level) {
    return guarded([&] {
        const Kernels& use = AT_LEVEL(kernels, level);
        const int64_t row_bytes = channels * size_of(type);
        return each_row(1, num_rows, k * row_bytes, threads, [&](int64_t, int64_t r, int64_t count) {
            use.group_max(type, static_cast<const char*>(rows) + r * k * row_bytes, count, k, channels,
                          static_cast<char*>(out) + r * row_bytes, winner + r * channels);
            return true;
        });
    });
}

EXPORT int bixt3d_group_place(const void* rows, const uint8_t* winner, int64_t num_rows, int64_t k, int64_t channels,
                              int type, void* out, int threads, int level) {
    return guarded([&] {
        const Kernels& use = AT_LEVEL(kernels, level);
        const int64_t row_bytes = channels * size_of(type);
        return each_row(1, num_rows, k * row_bytes, threads, [&](int64_t, int64_t r, int64_t count) {
            use.group_place(type, static_cast<const char*>(rows) + r * row_bytes, winner + r * channels, count, k,
                            channels, static_cast<char*>(out) + r * k * row_bytes);
            return true;
        });
    });
}
