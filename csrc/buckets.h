// Points sorted along a space-filling curve and split into leaves, with a bounding box for each leaf and each node.
//
// A leaf holds LEAF consecutive points, and a node FAN consecutive leaves. The lower bound of a box uses the same
// operations as sq_distance and never exceeds the computed distance of a point in the box, since rounding preserves the
// order of differences, squares and sums. Pruning by it is therefore exact in floating point, including ties.
#pragma once

#include "simd.h"

namespace {

constexpr i64 LEAF = 64;
constexpr i64 FAN = 16;

// Boxes of leaves or nodes, each face an array of its own.
struct Boxes {
    i64 count = 0;  // a multiple of FAN
    Array<float> face[6];  // x low, y low, z low, x high, y high, z high

    void resize(i64 n) {
        count = n;
        for (auto& f : face) f.resize(n);
    }
    // Lower bounds of the distances from (x, y, z) to the W boxes from i on.
    V bound(i64 i, V x, V y, V z) const {
        const V zero{};
        const V dx = max(max(load(&face[0][i]) - x, x - load(&face[3][i])), zero);
        const V dy = max(max(load(&face[1][i]) - y, y - load(&face[4][i])), zero);
        const V dz = max(max(load(&face[2][i]) - z, z - load(&face[5][i])), zero);
        return (dx * dx + dy * dy) + dz * dz;
    }
};

struct Buckets {
    i64 padded = 0, num_leaves = 0, num_nodes = 0;  // leaves and nodes in use
    Array<float> x, y, z;                           // sorted; what pads the last leaf is NaN
    Array<i32> index;                               // where a sorted point stood; INT32_MAX for padding
    Boxes leaves, nodes;
};

inline u32 spread(u32 v) {  // 10 bits, two places between each and the next
    v = (v | (v << 16)) & 0x030000FFu;
    v = (v | (v << 8)) & 0x0300F00Fu;
    v = (v | (v << 4)) & 0x030C30C3u;
    return (v | (v << 2)) & 0x09249249u;
}

// Curve position in the upper half, index in the lower, sorted by the former.
void sort_along_curve(const float* points, i64 n, u64* keys, u64* scratch) {
    float low[3], high[3], extent = 0;
    for (int a = 0; a < 3; ++a) low[a] = high[a] = points[a];
    for (i64 i = 0; i < n; ++i)
        for (int a = 0; a < 3; ++a) {
            const float v = points[3 * i + a];
            low[a] = v < low[a] ? v : low[a];
            high[a] = v > high[a] ? v : high[a];
        }
    for (int a = 0; a < 3; ++a) extent = high[a] - low[a] > extent ? high[a] - low[a] : extent;
    const float scale = extent > 0 ? 1023.0f / extent : 0.0f;
    u32 histogram[3][1024] = {};
    for (i64 i = 0; i < n; ++i) {
        u32 key = 0;
        for (int a = 0; a < 3; ++a) {
            const float cell = (points[3 * i + a] - low[a]) * scale;
            // Anything that is no number, or too large for its difference to be one, goes to cell 0.
            key |= spread(cell >= 0 && cell < 1024 ? u32(cell) : 0) << a;
        }
        keys[i] = u64(key) << 32 | u64(i);
        for (int pass = 0; pass < 3; ++pass) ++histogram[pass][key >> (10 * pass) & 1023];
    }
    for (int pass = 0; pass < 3; ++pass) {
        u32 total = 0;
        for (auto& h : histogram[pass]) {
            const u32 here = h;
            h = total;
            total += here;
        }
        for (i64 i = 0; i < n; ++i) scratch[histogram[pass][keys[i] >> (32 + 10 * pass) & 1023]++] = keys[i];
        u64* swap = keys;
        keys = scratch;
        scratch = swap;
    }  // three passes: the result is in what was given as scratch
}

void build(Buckets& b, const float* points, i64 n) {
    b.num_leaves = (n + LEAF - 1) / LEAF;
    b.num_nodes = (b.num_leaves + FAN - 1) / FAN;
    b.padded = b.num_leaves * LEAF;
    Array<u64> keys(n), sorted(n);
    sort_along_curve(points, n, keys.data, sorted.data);
    b.x.resize(b.padded);
    b.y.resize(b.padded);
    b.z.resize(b.padded);
    b.index.resize(b.padded);
    for (i64 i = 0; i < n; ++i) {
        const i64 from = i64(sorted[i] & 0xFFFFFFFFu);
        b.index[i] = i32(from);
        b.x[i] = points[3 * from];
        b.y[i] = points[3 * from + 1];
        b.z[i] = points[3 * from + 2];
    }
    for (i64 i = n; i < b.padded; ++i) {
        b.index[i] = INT32_MAX;
        b.x[i] = b.y[i] = b.z[i] = __builtin_nanf("");
    }
    // A box of nothing is inside out and infinitely far from everything.
    const float inf = __builtin_inff();
    b.leaves.resize(b.num_nodes * FAN);
    b.nodes.resize(round_up(b.num_nodes, FAN));
    const float* axis[3] = {b.x.data, b.y.data, b.z.data};
    for (i64 leaf = 0; leaf < b.leaves.count; ++leaf)
        for (int a = 0; a < 3; ++a) {
            V low = splat(inf), high = splat(-inf);
            if (leaf < b.num_leaves)
                for (i64 i = leaf * LEAF; i < (leaf + 1) * LEAF; i += W) {
                    low = min(load(axis[a] + i), low);
                    high = max(load(axis[a] + i), high);
                }
            b.leaves.face[a][leaf] = smallest(low);
            b.leaves.face[a + 3][leaf] = largest(high);
        }
    for (i64 node = 0; node < b.nodes.count; ++node)
        for (int a = 0; a < 3; ++a) {
            V low = splat(inf), high = splat(-inf);
            if (node < b.num_nodes)
                for (i64 i = node * FAN; i < (node + 1) * FAN; i += W) {
                    low = min(load(&b.leaves.face[a][i]), low);
                    high = max(load(&b.leaves.face[a + 3][i]), high);
                }
            b.nodes.face[a][node] = smallest(low);
            b.nodes.face[a + 3][node] = largest(high);
        }
}

}  // namespace
