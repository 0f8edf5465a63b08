// Interface between api.cpp, rows_api.cpp and the copies of kernels.cpp. Each function runs on a single thread.
#pragma once

#include <cstdint>

// Types of features in which the kernels compute. Other types are only copied.
enum FeatureType { FLOAT32 = 0, BFLOAT16 = 1, FLOAT64 = 2 };

// Add each of the rows (B, num_rows, channels) to `uses` points of its cloud in out (B, n, channels).
struct Scatter {
    int type;
    const void* rows;
    int64_t num_rows, channels, uses, n;
    const int64_t* index;  // (B, num_rows, uses)
    const void* weights;   // of the same shape, float64 for float64 and float32 otherwise; null for ones
    const uint8_t* winner; // (B, num_rows, channels), which of its points each number is added to; null for all
    void* out;
};

struct Kernels {
    void (*farthest)(const float* points, int64_t n, int64_t num_samples, int64_t start, int64_t* out);
    // Prepare the points of a cloud for searching with the kernels of this instruction set.
    void* (*make_cloud)(const float* points, int64_t n, int64_t axes, int64_t num_queries);
    void (*free_cloud)(void* cloud);
    void (*knn)(const void* cloud, const float* query, int64_t num_queries, int64_t k, float* sq_dist,
                int64_t* index);
    void (*ball)(const void* cloud, const float* query, int64_t num_queries, float sq_radius, int64_t k,
                 int64_t* index);
    // These process (some of) the rows of one cloud, and return false if an index is out of range. See rows.h.
    bool (*gather)(const void* features, int64_t n, int64_t row_bytes, const int64_t* index, int64_t num_rows,
                   void* out);
    bool (*interpolate)(int type, const void* features, int64_t n, int64_t channels, const int64_t* index,
                        const void* weights, int64_t num_rows, void* out);
    bool (*scatter)(const Scatter& scatter, int64_t cloud, int64_t from_channel, int64_t to_channel);
    bool (*neighbors)(int type, const void* features, int64_t n, int64_t channels, const int64_t* index, int64_t k,
                      int64_t num_rows, void* out, uint8_t* winner);
    // Max-pool (some of) the groups (num_rows, k, channels), k at most 256, and scatter back to them.
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

// These use the standard library, so they are compiled only once, for all instruction sets.
void sort_lowest(uint64_t* keys, int64_t n, int64_t k);  // move the k lowest of n to the front, in order
void sort_lowest(int32_t* keys, int64_t n, int64_t k);
