// Exact farthest point sampling of one cloud. Ties go to the lowest index.
#pragma once

#include "buckets.h"

namespace {

// Scan all points for every pick.
void farthest_plain(const float* points, i64 n, i64 num_samples, i64 start, i64* out) {
    const i64 padded = round_up(n, 2 * W);
    Array<float> x(padded), y(padded), z(padded), nearest(padded);
    for (i64 i = 0; i < padded; ++i) {
        x[i] = i < n ? points[3 * i] : 0;
        y[i] = i < n ? points[3 * i + 1] : 0;
        z[i] = i < n ? points[3 * i + 2] : 0;
        nearest[i] = i < n ? __builtin_inff() : -1;  // padding is never the farthest
    }
    i64 picked = start;
    for (i64 s = 0; s < num_samples; ++s) {
        out[s] = picked;
        if (s + 1 == num_samples) break;
        const V a = splat(x[picked]), b = splat(y[picked]), c = splat(z[picked]);
        V most0 = splat(-1), most1 = splat(-1);
        for (i64 i = 0; i < padded; i += 2 * W) {
            const V d0 = min(sq_distance(load(&x[i]), load(&y[i]), load(&z[i]), a, b, c), load(&nearest[i]));
            const V d1 = min(
                sq_distance(load(&x[i + W]), load(&y[i + W]), load(&z[i + W]), a, b, c), load(&nearest[i + W]));
            store(&nearest[i], d0);
            store(&nearest[i + W], d1);
            most0 = max(d0, most0);
            most1 = max(d1, most1);
        }
        // Searching for the largest value afterwards costs half a pass over one array on average, less than tracking
        // indices.
        const V most = splat(largest(max(most0, most1)));
        picked = 0;
        for (i64 i = 0; i < padded; i += 2 * W) {
            const u32 hits = equal(load(&nearest[i]), most) | equal(load(&nearest[i + W]), most) << W;
            if (hits) {
                picked = i + lowest_bit(hits);
                break;
            }
        }
    }
}

// For every pick, scan only the leaves that are near enough for it to change.
//
// `most` of a leaf or node is the largest distance of its points to their nearest picks. If its box is at least that
// far from a pick, the pick changes none of its distances.
struct Farthest {
    const Buckets& b;
    Array<float> nearest, leaf_most, node_most;

    explicit Farthest(const Buckets& buckets)
        : b(buckets), nearest(b.padded), leaf_most(b.leaves.count), node_most(b.nodes.count) {
        for (i64 i = 0; i < b.padded; ++i) nearest[i] = b.index[i] == INT32_MAX ? -1 : __builtin_inff();
        for (i64 i = 0; i < b.leaves.count; ++i) leaf_most[i] = i < b.num_leaves ? __builtin_inff() : -1;
        for (i64 i = 0; i < b.nodes.count; ++i) node_most[i] = i < b.num_nodes ? __builtin_inff() : -1;
    }

    void update_leaf(i64 leaf, V x, V y, V z) {
        V most = splat(-1);
        for (i64 i = leaf * LEAF; i < (leaf + 1) * LEAF; i += W) {
            const V d = min(
                sq_distance(load(&b.x[i]), load(&b.y[i]), load(&b.z[i]), x, y, z), load(&nearest[i]));
            store(&nearest[i], d);
            most = max(d, most);
        }
        leaf_most[leaf] = largest(most);
    }

    void update(float px, float py, float pz) {
        const V x = splat(px), y = splat(py), z = splat(pz);
        for (i64 i = 0; i < b.nodes.count; i += W)
            for (u32 near = less(b.nodes.bound(i, x, y, z), load(&node_most[i])); near; near &= near - 1) {
                const i64 node = i + lowest_bit(near);
                V most = splat(-1);
                for (i64 j = node * FAN; j < (node + 1) * FAN; j += W) {
                    u32 close = less(b.leaves.bound(j, x, y, z), load(&leaf_most[j]));
                    for (; close; close &= close - 1) update_leaf(j + lowest_bit(close), x, y, z);
                    most = max(load(&leaf_most[j]), most);
                }
                node_most[node] = largest(most);
            }
    }

    // Place, among the sorted points, of the farthest one of lowest original index.
    i64 farthest() const {
        V most = splat(-1);
        for (i64 i = 0; i < b.nodes.count; i += W) most = max(load(&node_most[i]), most);
        most = splat(largest(most));
        i64 place = 0;
        i32 lowest = INT32_MAX;
        for (i64 i = 0; i < b.nodes.count; i += W)
            for (u32 node = equal(load(&node_most[i]), most); node; node &= node - 1)
                for (i64 j = (i + lowest_bit(node)) * FAN, end = j + FAN; j < end; j += W)
                    for (u32 leaf = equal(load(&leaf_most[j]), most); leaf; leaf &= leaf - 1)
                        for (i64 p = (j + lowest_bit(leaf)) * LEAF, last = p + LEAF; p < last; p += W)
                            for (u32 hit = equal(load(&nearest[p]), most); hit; hit &= hit - 1) {
                                const i64 at = p + lowest_bit(hit);
                                if (b.index[at] < lowest) lowest = b.index[at], place = at;
                            }
        return place;
    }
};

void farthest_bucketed(const float* points, i64 n, i64 num_samples, i64 start, i64* out) {
    Buckets buckets;
    build(buckets, points, n);
    Farthest state(buckets);
    const float* first = points + 3 * start;
    out[0] = start;
    if (num_samples > 1) state.update(first[0], first[1], first[2]);
    for (i64 s = 1; s < num_samples; ++s) {
        const i64 at = state.farthest();
        out[s] = buckets.index[at];
        if (s + 1 < num_samples) state.update(buckets.x[at], buckets.y[at], buckets.z[at]);
    }
}

}  // namespace
