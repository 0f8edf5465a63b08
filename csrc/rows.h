// Ops on rows of features: gather, scatter-add, interpolation between three, and sum or maximum over a group. If an
// index is outside its cloud, a function stops and returns false.
#pragma once

#include "bfloat16.h"
#include "kernels.h"

namespace {

template <class T>
struct Wide {
    using Type = T;
};
template <>
struct Wide<BFloat16> {
    using Type = float;
};

inline bool inside(i64 index, i64 n) { return u64(index) < u64(n); }

bool gather(const void* features, i64 n, i64 row_bytes, const i64* index, i64 num_rows, void* out) {
    const char* from = static_cast<const char*>(features);
    char* to = static_cast<char*>(out);
    for (i64 r = 0; r < num_rows; ++r, to += row_bytes) {
        if (!inside(index[r], n)) return false;
        if (row_bytes) std::memcpy(to, from + index[r] * row_bytes, size_t(row_bytes));  // no channels, no memory
    }
    return true;
}

template <class T>
bool interpolate(const T* features, i64 n, i64 channels, const i64* index, const typename Wide<T>::Type* weights,
                 i64 num_rows, T* __restrict out) {
    for (i64 r = 0; r < num_rows; ++r, index += 3, weights += 3, out += channels) {
        if (!inside(index[0], n) || !inside(index[1], n) || !inside(index[2], n)) return false;
        const T *a = features + index[0] * channels, *b = features + index[1] * channels,
                *c = features + index[2] * channels;
        const auto u = weights[0], v = weights[1], w = weights[2];
        for (i64 i = 0; i < channels; ++i) narrow((u * widen(a[i]) + v * widen(b[i])) + w * widen(c[i]), out[i]);
    }
    return true;
}

// out[index[r, j]] += weights[r, j] * rows[r] for channels [from, to), row after row, so that the order of the sums of
// a point depends only on the index. Half precision is summed in float, in separate memory. With a winner, each channel
// of a row is added only to that one of its points.
template <class T>
bool scatter(const Scatter& s, i64 cloud, i64 from, i64 to) {
    using Sum = typename Wide<T>::Type;
    constexpr bool IN_PLACE = sizeof(T) == sizeof(Sum);
    const T* row = static_cast<const T*>(s.rows) + cloud * s.num_rows * s.channels + from;
    const i64* index = s.index + cloud * s.num_rows * s.uses;
    const Sum* weight = s.weights ? static_cast<const Sum*>(s.weights) + cloud * s.num_rows * s.uses : nullptr;
    const uint8_t* winner = s.winner ? s.winner + cloud * s.num_rows * s.channels + from : nullptr;
    T* out = static_cast<T*>(s.out) + cloud * s.n * s.channels + from;
    const i64 width = to - from, stride = IN_PLACE ? s.channels : width;
    Array<Sum> beside(IN_PLACE ? 0 : s.n * width);
    Sum* sums = IN_PLACE ? static_cast<Sum*>(static_cast<void*>(out)) : beside.data;
    for (i64 p = 0; p < s.n; ++p)
        for (i64 i = 0; i < width; ++i) sums[p * stride + i] = 0;
    for (i64 r = 0; winner && r < s.num_rows; ++r, row += s.channels, winner += s.channels, index += s.uses)
        for (i64 i = 0; i < width; ++i) {
            const i64 at = index[winner[i]];
            if (!inside(at, s.n)) return false;
            sums[at * stride + i] += widen(row[i]);
        }
    for (i64 r = 0; !winner && r < s.num_rows; ++r, row += s.channels)
        for (i64 j = 0; j < s.uses; ++j) {
            const i64 at = *index++;
            if (!inside(at, s.n)) return false;
            Sum* __restrict sum = sums + at * stride;
            if (weight) {
                const Sum w = *weight++;
                for (i64 i = 0; i < width; ++i) sum[i] += w * widen(row[i]);
            } else {
                for (i64 i = 0; i < width; ++i) sum[i] += widen(row[i]);
            }
        }
    if (IN_PLACE) return true;
    for (i64 p = 0; p < s.n; ++p, out += s.channels)
        for (i64 i = 0; i < width; ++i) narrow(sums[p * width + i], out[i]);
    return true;
}

constexpr i64 BLOCK = 64;  // channels of a group whose results are kept in registers or nearby

// out = max over j < k of the rows row_of(j), channel by channel, and winner = the first j that holds it. NaN counts as
// the largest.
template <class T, class RowOf>
void largest_row(const RowOf& row_of, i64 k, i64 channels, T* __restrict out, uint8_t* __restrict winner) {
    using Number = typename Wide<T>::Type;
    for (i64 from = 0; from < channels; from += BLOCK) {
        const i64 width = channels - from < BLOCK ? channels - from : BLOCK;
        Number best[BLOCK];
        i32 at[BLOCK] = {};
        const T* first = row_of(0) + from;
        for (i64 i = 0; i < width; ++i) best[i] = widen(first[i]);
        for (i64 j = 1; j < k; ++j) {
            const T* row = row_of(j) + from;
            for (i64 i = 0; i < width; ++i) {
                const Number v = widen(row[i]);
                const bool larger = !(v <= best[i]) & (best[i] == best[i]);
                best[i] = larger ? v : best[i];
                at[i] = larger ? i32(j) : at[i];
            }
        }
        for (i64 i = 0; i < width; ++i) narrow(best[i], out[from + i]);
        for (i64 i = 0; i < width; ++i) winner[from + i] = uint8_t(at[i]);
    }
}

template <class T>
void group_max(const T* rows, i64 num_rows, i64 k, i64 channels, T* out, uint8_t* winner) {
    for (i64 r = 0; r < num_rows; ++r, rows += k * channels, out += channels, winner += channels)
        largest_row([&](i64 j) { return rows + j * channels; }, k, channels, out, winner);
}

inline bool all_inside(const i64* index, i64 k, i64 n) {
    bool all = true;
    for (i64 j = 0; j < k; ++j) all &= inside(index[j], n);
    return all;
}

// out[r] = the maximum of the features at index[r, :], or their sum if winner is null.
template <class T>
bool neighbors(const T* features, i64 n, i64 channels, const i64* index, i64 k, i64 num_rows, T* out,
               uint8_t* winner) {
    using Number = typename Wide<T>::Type;
    for (i64 r = 0; r < num_rows; ++r, index += k, out += channels) {
        if (!all_inside(index, k, n)) return false;
        if (winner) {
            largest_row([&](i64 j) { return features + index[j] * channels; }, k, channels, out, winner);
            winner += channels;
            continue;
        }
        for (i64 from = 0; from < channels; from += BLOCK) {
            const i64 width = channels - from < BLOCK ? channels - from : BLOCK;
            Number sum[BLOCK] = {};
            for (i64 j = 0; j < k; ++j) {
                const T* row = features + index[j] * channels + from;
                for (i64 i = 0; i < width; ++i) sum[i] += widen(row[i]);
            }
            for (i64 i = 0; i < width; ++i) narrow(sum[i], out[from + i]);
        }
    }
    return true;
}

// The transpose of group_max: out[r, j] = rows[r] where j is the winner, else 0. Numbers are copied as `Bits` of the
// same size.
template <class Bits>
void group_place(const Bits* rows, const uint8_t* winner, i64 num_rows, i64 k, i64 channels, Bits* __restrict out) {
    for (i64 r = 0; r < num_rows; ++r, rows += channels, winner += channels)
        for (i64 j = 0; j < k; ++j, out += channels)
            for (i64 i = 0; i < channels; ++i) out[i] = winner[i] == j ? rows[i] : Bits(0);
}

void group_max(int type, const void* rows, i64 num_rows, i64 k, i64 channels, void* out, uint8_t* winner) {
    const auto as = [&](auto example) {
        using T = decltype(example);
        group_max(static_cast<const T*>(rows), num_rows, k, channels, static_cast<T*>(out), winner);
    };
    type == FLOAT32 ? as(float{}) : type == FLOAT64 ? as(double{}) : as(BFloat16{});
}

void group_place(int type, const void* rows, const uint8_t* winner, i64 num_rows, i64 k, i64 channels, void* out) {
    const auto as = [&](auto example) {
        using Bits = decltype(example);
        group_place(static_cast<const Bits*>(rows), winner, num_rows, k, channels, static_cast<Bits*>(out));
    };
    type == FLOAT32 ? as(u32{}) : type == FLOAT64 ? as(u64{}) : as(uint16_t{});
}

bool neighbors(int type, const void* features, i64 n, i64 channels, const i64* index, i64 k, i64 num_rows, void* out,
               uint8_t* winner) {
    const auto as = [&](auto example) {
        using T = decltype(example);
        return neighbors(static_cast<const T*>(features), n, channels, index, k, num_rows, static_cast<T*>(out),
                         winner);
    };
    return type == FLOAT32 ? as(float{}) : type == FLOAT64 ? as(double{}) : as(BFloat16{});
}

bool interpolate(int type, const void* features, i64 n, i64 channels, const i64* index, const void* weights,
                 i64 num_rows, void* out) {
    const auto as = [&](auto example) {
        using T = decltype(example);
        using Weight = const typename Wide<T>::Type*;
        return interpolate(static_cast<const T*>(features), n, channels, index, static_cast<Weight>(weights),
                           num_rows, static_cast<T*>(out));
    };
    return type == FLOAT32 ? as(float{}) : type == FLOAT64 ? as(double{}) : as(BFloat16{});
}

bool scatter(const Scatter& s, i64 cloud, i64 from, i64 to) {
    return s.type == FLOAT32   ? scatter<float>(s, cloud, from, to)
           : s.type == FLOAT64 ? scatter<double>(s, cloud, from, to)
                               : scatter<BFloat16>(s, cloud, from, to);
}

}  // namespace
