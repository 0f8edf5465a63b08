// What api.cpp and the copies of kernels.cpp know of each other. One thread calls each of these functions.
#pragma once

#include <cstdint>

// Types of features; numbers of another type are copied only.
enum FeatureType { FLOAT32 = 0, BFLOAT16 = 1, FLOAT64 = 2 };

// (B, num_rows, channels) rows, each added to `uses` points of its cloud: (B, n, channels).
struct Scatter {
    int type;
    const void* rows;
    int64_t num_rows, channels, uses, n;
    const int64_t* index;  // (B, num_rows, uses)
    const void* weights;   // the same, float64 for float64 and float32 otherwise; null for ones
    const uint8_t* winner; // (B, num_rows, channels), to which of its points each number goes; null for all
    void* out;
};

struct Kernels {
    void (*farthest)(const float* points, int64_t n, int64_t num_samples, int64_t start, int64_t* out);
    // A cloud is points in the form in which the kernels of this instruction set search them.
    void* (*make_cloud)(const float* points, int64_t n, int64_t axes, int64_t num_queries);
    void (*free_cloud)(void* cloud);
    void (*knn)(const void* cloud, const float* query, int64_t num_queries, int64_t k, float* sq_dist,
                int64_t* index);
    void (*ball)(const void* cloud, const float* query, int64_t num_queries, float sq_radius, int64_t k,
                 int64_t* index);
    // For (some of) the rows of one cloud; false where an index is out of range. See rows.h.
    bool (*gather)(const void* features, int64_t n, int64_t row_bytes, const int64_t* index, int64_t num_rows,
                   void* out);
    bool (*interpolate)(int type, const void* features, int64_t n, int64_t channels, const int64_t* index,
                        const void* weights, int64_t num_rows, void* out);
    bool (*scatter)(const Scatter& scatter, int64_t cloud, int64_t from_channel, int64_t to_channel);
    bool (*neighbors)(int type, const void* features, int64_t n, int64_t channels, const int64_t* index, int64_t k,
                      int64_t num_rows, void* out, uint8_t* winner);
    // For (some of) the groups, (num_rows, k, channels) with k at most 256, and back again.
    void (*group_max)(int type, const void* rows, int64_t num_rows, int64_t k, int64_t channels, void* out,
                      uint8_t* winner);
    void (*group_place)(int type, const void* rows, const uint8_t* winner, int64_t num_rows, int64_t k,
                        int64_t channels, void* out);
};

extern const Kernels kernels_portable;
#ifdef BIXT3D_X86
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

// From the standard library, compiled once for every machine.
void sort_lowest(uint64_t* keys, int64_t n, int64_t k);  // the k lowest of n come first, in order
void sort_lowest(int32_t* keys, int64_t n, int64_t k);
