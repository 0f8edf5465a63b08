// Select the k nearest of many distances: find a bound that excludes most of them, then sort the remaining candidates.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace {

constexpr i64 RANKED = 128;  // at most so many candidates are sorted by counting
constexpr float INF = __builtin_inff();

i64 count_within(const float* values, i64 padded, float limit) {
    const V t = splat(limit);
    i64 count = 0;
    for (i64 i = 0; i < padded; i += W) count += count_bits(less_equal(load(values + i), t));
    return count;
}

// A value that at least k of the values do not exceed, and few more than k if that takes few steps.
//
// Counting is so cheap that guessing the value beats any selection. `padded` is a multiple of W; NaN is ignored.
float bound_of_kth(const float* values, i64 padded, i64 k) {
    V least = splat(INF), most = splat(-INF);
    for (i64 i = 0; i < padded; i += W) {
        const V v = load(values + i);
        least = min(v, least);
        most = max(v, most);
    }
    float low = smallest(least), high = largest(most);
    i64 below = 0, within = padded;
    const i64 enough = k + k / 8 + 2;
    for (int step = 0; step < 12; ++step) {
        // Interpolate at first, then halve, lest one end never move.
        const float part = step < 5 ? float(k + k / 16 + 1 - below) / float(within - below + 1) : 0.5f;
        const float middle = low + (high - low) * part;
        if (!(middle >= low && middle < high)) break;
        const i64 count = count_within(values, padded, middle);
        if (count >= k) {
            high = middle;
            within = count;
            if (count <= enough) break;
        } else {
            low = middle;
            below = count;
        }
    }
    return high;
}

// Points that may be among the k nearest: all that were offered at a distance up to `limit`.
struct Candidates {
    i64 k, capacity, count = 0;
    float limit = INF;
    Array<float> d;
    Array<i32> index;
    Array<u64> keys;

    Candidates(i64 k_, i64 capacity_)
        : k(k_), capacity(capacity_), d(capacity + W), index(capacity + W), keys(capacity) {}

    void clear() {
        count = 0;
        limit = INF;
    }
    void add(V dist, VI at, u32 bits) {
        compress(&d[count], dist, bits);
        compress(&index[count], at, bits);
        count += count_bits(bits);
    }
    i64 pad() {
        const i64 padded = round_up(count, W);
        for (i64 i = count; i < padded; ++i) d[i] = __builtin_nanf("");
        return padded;
    }
    void make_keys() {
        for (i64 i = 0; i < count; ++i) {
            u32 bits;
            std::memcpy(&bits, &d[i], 4);  // those of numbers that are not negative sort like the numbers
            keys[i] = u64(bits) << 32 | u32(index[i]);
        }
    }
    void take_keys() {
        for (i64 i = 0; i < count; ++i) {
            const u32 bits = u32(keys[i] >> 32);
            std::memcpy(&d[i], &bits, 4);
            index[i] = i32(keys[i]);
        }
    }
    // Lower the limit and drop what exceeds it; at most half the capacity stays.
    void shrink() {
        const i64 padded = pad();
        limit = bound_of_kth(d.data, padded, k);
        const V t = splat(limit);
        i64 kept = 0;
        for (i64 i = 0; i < padded; i += W) {
            const V v = load(&d[i]);
            const VI at = load(&index[i]);
            const u32 bits = less_equal(v, t);
            compress(&d[kept], v, bits);
            compress(&index[kept], at, bits);
            kept += count_bits(bits);
        }
        count = kept;
        if (count > capacity / 2) {  // many equal distances
            make_keys();
            sort_lowest(keys.data, count, k);
            count = k;
            take_keys();
            limit = d[k - 1];
        }
    }
    // Write the k nearest in order.
    void finish(float* sq_dist, i64* out) {
        if (count > k + k / 4 + 16) shrink();
        if (count <= RANKED) {
            rank();
        } else {
            make_keys();
            sort_lowest(keys.data, count, count < k ? count : k);
            take_keys();
        }
        const i64 found = count < k ? count : k;  // fewer only where coordinates are not finite
        for (i64 j = 0; j < found; ++j) {
            sq_dist[j] = d[j];
            out[j] = index[j];
        }
        for (i64 j = found; j < k; ++j) {
            sq_dist[j] = __builtin_nanf("");
            out[j] = 0;
        }
    }
    // Sort by counting, for each, how many come before it: no branch depends on the data.
    void rank() {
        const i64 padded = pad();
        float in_order[RANKED];
        i32 index_in_order[RANKED];
        alignas(64) i32 place[RANKED + W];
        i64 sum = 0;
        for (i64 i = 0; i < padded; i += W) {
            const V v = load(&d[i]);
            VI before{};
            for (i64 j = 0; j < count; ++j) before = count_less(before, splat(d[j]), v);
            std::memcpy(place + i, &before, sizeof before);
        }
        for (i64 i = 0; i < count; ++i) sum += place[i];
        if (sum != count * (count - 1) / 2)  // equal distances share a place
            for (i64 i = 0; i < count; ++i)
                for (i64 j = 0; j < count; ++j) place[i] += d[j] == d[i] && index[j] < index[i];
        for (i64 i = 0; i < count; ++i) {
            in_order[place[i]] = d[i];
            index_in_order[place[i]] = index[i];
        }
        std::memcpy(d.data, in_order, size_t(count) * 4);
        std::memcpy(index.data, index_in_order, size_t(count) * 4);
    }
};

}  // namespace
