// What api.cpp and the copies of kernels.cpp know of each other. One thread calls each of these functions.
#pragma once

#include <cstdint>

struct Kernels {
    void (*farthest)(const float* points, int64_t n, int64_t num_samples, int64_t start, int64_t* out);
    // A cloud is points in the form in which the kernels of this instruction set search them.
    void* (*make_cloud)(const float* points, int64_t n, int64_t axes, int64_t num_queries);
    void (*free_cloud)(void* cloud);
    void (*knn)(const void* cloud, const float* query, int64_t num_queries, int64_t k, float* sq_dist,
                int64_t* index);
    void (*ball)(const void* cloud, const float* query, int64_t num_queries, float sq_radius, int64_t k,
                 int64_t* index);
};

extern const Kernels kernels_portable;
#ifdef BIXT3D_X86
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

// From the standard library, compiled once for every machine.
void sort_lowest(uint64_t* keys, int64_t n, int64_t k);  // the k lowest of n come first, in order
void sort_lowest(int32_t* keys, int64_t n, int64_t k);
