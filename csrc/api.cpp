// C interface of the ops on coordinates, called from Python through ctypes. It selects the kernels and distributes the
// work over threads.
//
// Every function returns 0, or 1 if it runs out of memory. Results never depend on which thread does what.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels.h"
#include "level.h"
#include "parallel.h"

void sort_lowest(uint64_t* keys, int64_t n, int64_t k) {
    if (k < n) std::nth_element(keys, keys + k, keys + n);
    std::sort(keys, keys + k);
}
void sort_lowest(int32_t* keys, int64_t n, int64_t k) {
    if (k < n) std::nth_element(keys, keys + k, keys + n);
    std::sort(keys, keys + k);
}

namespace {

// Distribute the queries of all clouds. search(cloud, b, m, count) answers `count` queries of cloud b, from the m-th
// on.
template <class Search>
int search_clouds(const Kernels& use, const float* points, int64_t num_clouds, int64_t num_queries,
                  int64_t num_points, int64_t axes, int threads, const Search& search) {
    using Owner = std::unique_ptr<void, void (*)(void*)>;
    const auto make = [&](int64_t b) {
        return Owner(use.make_cloud(points + b * num_points * axes, num_points, axes, num_queries), use.free_cloud);
    };
    if (threads == 1 || num_clouds >= 4 * threads)
        return parallel(num_clouds, threads, [&](int64_t b) { search(make(b).get(), b, 0, num_queries); });
    std::vector<Owner> clouds;
    for (int64_t b = 0; b < num_clouds; ++b) clouds.emplace_back(nullptr, use.free_cloud);
    const int failed = parallel(num_clouds, threads, [&](int64_t b) { clouds[size_t(b)] = make(b); });
    if (failed) return failed;
    const int64_t step = std::max<int64_t>(16, num_queries * num_clouds / (8 * threads));
    const int64_t chunks = (num_queries + step - 1) / step;
    return parallel(num_clouds * chunks, threads, [&](int64_t i) {
        const int64_t b = i / chunks, m = i % chunks * step;
        search(clouds[size_t(b)].get(), b, m, std::min(step, num_queries - m));
    });
}

// Waking a sleeping thread takes up to about 20 µs, so each thread has to have at least this many distances to compute.
int useful_threads(int threads, double distances) {
    return std::max(1, int(std::min(double(threads), distances / 2e5)));
}

}  // namespace

EXPORT int bixt3d_interface() { return 7; }

EXPORT int bixt3d_level() { return best_level(); }

EXPORT int bixt3d_farthest_point_sample(const float* points, int64_t num_clouds, int64_t num_points,
                                        int64_t num_samples, const int64_t* start, int64_t* index, int threads,
                                        int level) {
    return guarded([&] {
        threads = useful_threads(threads, double(num_clouds) * double(num_points) * double(num_samples));
        const Kernels& use = AT_LEVEL(kernels, level);
        return parallel(num_clouds, threads, [&](int64_t b) {
            use.farthest(points + 3 * b * num_points, num_points, num_samples, start[b], index + b * num_samples);
        });
    });
}

EXPORT int bixt3d_knn(const float* query, const float* points, int64_t num_clouds, int64_t num_queries,
                      int64_t num_points, int64_t axes, int64_t k, float* sq_dist, int64_t* index, int threads,
                      int level) {
    return guarded([&] {
        threads = useful_threads(threads, double(num_clouds) * double(num_queries) * double(num_points));
        const Kernels& use = AT_LEVEL(kernels, level);
        return search_clouds(use, points, num_clouds, num_queries, num_points, axes, threads,
                             [&](const void* cloud, int64_t b, int64_t m, int64_t count) {
                                 const int64_t row = b * num_queries + m;
                                 use.knn(cloud, query + row * axes, count, k, sq_dist + row * k, index + row * k);
                             });
    });
}

EXPORT int bixt3d_ball_query(const float* query, const float* points, int64_t num_clouds, int64_t num_queries,
                             int64_t num_points, float sq_radius, int64_t k, int64_t* index, int threads,
                             int level) {
    return guarded([&] {
        threads = useful_threads(threads, double(num_clouds) * double(num_queries) * double(num_points));
        const Kernels& use = AT_LEVEL(kernels, level);
        return search_clouds(use, points, num_clouds, num_queries, num_points, 3, threads,
                             [&](const void* cloud, int64_t b, int64_t m, int64_t count) {
                                 const int64_t row = b * num_queries + m;
                                 use.ball(cloud, query + row * 3, count, sq_radius, k, index + row * k);
                             });
    });
}
