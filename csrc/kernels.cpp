// Kernels of the ops on coordinates and features for one instruction set. setup.py compiles this file once per
// instruction set, with BIXT3D_KERNELS as the name of the table that it defines.
#include "kernels.h"

#include "farthest.h"
#include "rows.h"
#include "nearest.h"

namespace {

// Sizes from which buckets are faster. In farthest point sampling, sorting the points costs about 100 passes over them.
constexpr i64 FARTHEST_BUCKETED = 2048;
constexpr i64 SAMPLES_BUCKETED = 128;
constexpr i64 NEAREST_BUCKETED = 4096;
constexpr i64 QUERIES_BUCKETED = 256;

void farthest(const float* points, i64 n, i64 num_samples, i64 start, i64* out) {
    // The first picks scan every leaf, so with few samples sorting does not pay off.
    if (n >= FARTHEST_BUCKETED && num_samples >= SAMPLES_BUCKETED)
        farthest_bucketed(points, n, num_samples, start, out);
    else
        farthest_plain(points, n, num_samples, start, out);
}

void* make_cloud(const float* points, i64 n, i64 axes, i64 num_queries) {
    Cloud* cloud = new Cloud;
    try {
        cloud->n = n;
        cloud->axes = axes;
        cloud->bucketed = axes == 3 && n >= NEAREST_BUCKETED && num_queries >= QUERIES_BUCKETED;
        cloud->rows = cloud->bucketed && n > PREFIX ? PREFIX : n;
        cloud->padded = round_up(cloud->rows, GROUPS);
        cloud->axis.resize(axes * cloud->padded);
        for (i64 i = 0; i < cloud->padded; ++i)
            for (i64 a = 0; a < axes; ++a)
                cloud->axis[a * cloud->padded + i] = i < cloud->rows ? points[i * axes + a] : __builtin_nanf("");
        if (cloud->bucketed) build(cloud->buckets, points, n);
    } catch (...) {
        delete cloud;
        throw;
    }
    return cloud;
}

void free_cloud(void* cloud) { delete static_cast<Cloud*>(cloud); }

}  // namespace

extern const Kernels BIXT3D_KERNELS = {farthest, make_cloud, free_cloud, knn, ball, gather, interpolate, scatter,
                                       neighbors, group_max, group_place};
