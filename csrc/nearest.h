// Exact nearest neighbours and ball queries. Neighbours are ordered by distance, then by index.
#pragma once

#include "buckets.h"
#include "candidates.h"

namespace {

struct Cloud {
    i64 n = 0, axes = 0;
    i64 rows = 0, padded = 0;  // points in `axis`, in their original order, padded with NaN
    Array<float> axis;             // axes × padded
    bool bucketed = false;         // if so, `axis` holds only the first points, and `buckets` all of them
    Buckets buckets;
};

constexpr i64 GROUPS = 64;    // see knn_row
constexpr i64 PREFIX = 2048;  // see ball_rows

// Distances of one query to the W points from i on: for three axes, or any number, summed axis by axis.
inline V space_distance(const Cloud& cloud, V x, V y, V z, i64 i) {
    const float* axis = &cloud.axis[i];
    return sq_distance(load(axis), load(axis + cloud.padded), load(axis + 2 * cloud.padded), x, y, z);
}
inline V row_distance(const Cloud& cloud, const float* query, i64 i) {
    V total{};
    for (i64 a = 0; a < cloud.axes; ++a) {
        const V difference = load(&cloud.axis[a * cloud.padded + i]) - query[a];
        total = total + difference * difference;
    }
    return total;
}

// Compute all distances of a query, then keep those up to a limit.
//
// The limit is the k-th smallest among the minima of GROUPS disjoint groups of points. At least k points are within it,
// one in each of k groups, and about k + k²/(2 GROUPS) on average.
template <class Distance>
void knn_row(const Cloud& cloud, const Distance& distance, float* row, Candidates& found) {
    alignas(64) float least[GROUPS];
    V group[GROUPS / W];
    for (auto& g : group) g = splat(INF);
    for (i64 i = 0; i < cloud.padded; i += GROUPS)
#pragma GCC unroll 16
        for (int j = 0; j < GROUPS / W; ++j) {
            const V d = distance(i + j * W);
            store(row + i + j * W, d);
            group[j] = min(d, group[j]);
        }
    float limit = INF;
    if (found.k <= GROUPS * 3 / 4 && cloud.n > GROUPS) {
        for (i64 j = 0; j < GROUPS / W; ++j) store(least + j * W, group[j]);
        limit = bound_of_kth(least, GROUPS, found.k);
    }
    found.clear();
    const V t = splat(limit);
    i64 count = 0;
    i32* index = found.index.data;
    for (i64 i = 0; i < cloud.padded; i += W) {
        const u32 bits = less_equal(load(row + i), t);
        if (COMPRESSES || bits) compress(index + count, count_up(i32(i)), bits);
        count += count_bits(bits);
    }
    found.count = count;
    for (i64 j = 0; j < count; ++j) found.d[j] = row[index[j]];
}

void knn_leaf(const Buckets& b, i64 leaf, V x, V y, V z, Candidates& found) {
    if (found.count > found.capacity - LEAF) found.shrink();
    const V t = splat(found.limit);
    for (i64 i = leaf * LEAF; i < (leaf + 1) * LEAF; i += W) {
        const V d = sq_distance(load(&b.x[i]), load(&b.y[i]), load(&b.z[i]), x, y, z);
        const u32 bits = less_equal(d, t);
        if (bits) found.add(d, load(&b.index[i]), bits);
    }
}

// Index of the smallest of n values, 0 if all are NaN. Reads whole vectors, and returns n - 1 if a value past n is
// smaller.
i64 place_of_least(const float* values, i64 n) {
    V least = splat(INF);
    for (i64 i = 0; i < n; i += W) least = min(load(values + i), least);
    const V t = splat(smallest(least));
    for (i64 i = 0; i < n; i += W)
        if (const u32 bits = equal(load(values + i), t)) {
            const i64 place = i + lowest_bit(bits);
            return place < n ? place : n - 1;
        }
    return 0;
}

// Search the nearest leaf of the nearest node for a first limit, then all boxes within the limit. For a query at -inf,
// the boxes that are padding are the nearest, so that real ones have to be chosen instead.
void knn_buckets(const Buckets& b, const float* query, float* bounds, Candidates& found) {
    const V x = splat(query[0]), y = splat(query[1]), z = splat(query[2]);
    alignas(64) float leaf_bounds[FAN];
    found.clear();
    for (i64 i = 0; i < b.nodes.count; i += W) store(bounds + i, b.nodes.bound(i, x, y, z));
    const i64 home = place_of_least(bounds, b.num_nodes);
    for (i64 i = 0; i < FAN; i += W) store(leaf_bounds + i, b.leaves.bound(home * FAN + i, x, y, z));
    const i64 left = b.num_leaves - home * FAN;
    const i64 first = home * FAN + place_of_least(leaf_bounds, left < FAN ? left : FAN);
    knn_leaf(b, first, x, y, z, found);
    const auto visit = [&](i64 node) {
        if (found.count > found.k + found.k / 4 + 16) found.shrink();
        for (i64 i = node * FAN; i < (node + 1) * FAN && i < b.num_leaves; i += W) {
            u32 near = less_equal(b.leaves.bound(i, x, y, z), splat(found.limit));
            for (; near; near &= near - 1) {
                const i64 leaf = i + lowest_bit(near);
                if (leaf != first && leaf < b.num_leaves) knn_leaf(b, leaf, x, y, z, found);
            }
        }
    };
    visit(home);
    for (i64 i = 0; i < b.num_nodes; i += W)
        for (u32 near = less_equal(load(bounds + i), splat(found.limit)); near; near &= near - 1) {
            const i64 node = i + lowest_bit(near);
            if (node != home && node < b.num_nodes && bounds[node] <= found.limit) visit(node);
        }
}

void knn_one(const Cloud& cloud, const float* query, float* scratch, Candidates& found, float* sq_dist, i64* out) {
    if (cloud.bucketed) {
        knn_buckets(cloud.buckets, query, scratch, found);
    } else if (cloud.axes == 3) {
        const V x = splat(query[0]), y = splat(query[1]), z = splat(query[2]);
        knn_row(cloud, [&](i64 i) { return space_distance(cloud, x, y, z, i); }, scratch, found);
    } else {
        knn_row(cloud, [&](i64 i) { return row_distance(cloud, query, i); }, scratch, found);
    }
    found.finish(sq_dist, out);
}

i64 candidate_capacity(const Cloud& cloud, i64 k) {
    return cloud.bucketed ? (4 * k > 256 ? 4 * k : 256) + 2 * LEAF : 2 * cloud.padded;
}

void knn(const void* handle, const float* query, i64 num_queries, i64 k, float* sq_dist, i64* index) {
    const Cloud& cloud = *static_cast<const Cloud*>(handle);
    Array<float> scratch(cloud.bucketed ? cloud.buckets.nodes.count : cloud.padded);
    Candidates found(k, candidate_capacity(cloud, k));
    for (i64 m = 0; m < num_queries; ++m)
        knn_one(cloud, query + m * cloud.axes, scratch.data, found, sq_dist + m * k, index + m * k);
}

// Scan the first points in their original order, until there are k hits. In a bucketed cloud this comes first, because
// a ball with many hits is full after a few of these points, and one with few hits has few in total.
i64 ball_rows(const Cloud& cloud, const float* query, V sq_radius, i64 k, i64* out) {
    const V x = splat(query[0]), y = splat(query[1]), z = splat(query[2]);
    i64 hits = 0;
    for (i64 i = 0; i < cloud.padded; i += W)
        for (u32 bits = less_equal(space_distance(cloud, x, y, z, i), sq_radius); bits; bits &= bits - 1) {
            out[hits++] = i + lowest_bit(bits);
            if (hits == k) return k;
        }
    return hits;
}

i64 ball_buckets(const Buckets& b, const float* query, V sq_radius, i64 k, i64* out, i32* all) {
    const V x = splat(query[0]), y = splat(query[1]), z = splat(query[2]);
    i64 count = 0;
    const auto visit = [&](i64 leaf) {
        for (i64 p = leaf * LEAF, last = p + LEAF; p < last; p += W) {
            const V d = sq_distance(load(&b.x[p]), load(&b.y[p]), load(&b.z[p]), x, y, z);
            if (const u32 bits = less_equal(d, sq_radius)) {
                compress(all + count, load(&b.index[p]), bits);
                count += count_bits(bits);
            }
        }
    };
    // A NaN query is at distance 0 from every box, including those that are padding.
    for (i64 i = 0; i < b.num_nodes; i += W)
        for (u32 nodes = less_equal(b.nodes.bound(i, x, y, z), sq_radius); nodes; nodes &= nodes - 1) {
            const i64 first = (i + lowest_bit(nodes)) * FAN, end = first + FAN;
            for (i64 j = first; j < end && j < b.num_leaves; j += W)
                for (u32 leaves = less_equal(b.leaves.bound(j, x, y, z), sq_radius); leaves; leaves &= leaves - 1)
                    if (const i64 leaf = j + lowest_bit(leaves); leaf < b.num_leaves) visit(leaf);
        }
    const i64 hits = count < k ? count : k;
    sort_lowest(all, count, hits);
    for (i64 j = 0; j < hits; ++j) out[j] = all[j];
    return hits;
}

void ball(const void* handle, const float* query, i64 num_queries, float sq_radius, i64 k, i64* index) {
    const Cloud& cloud = *static_cast<const Cloud*>(handle);
    Array<float> scratch(cloud.bucketed ? cloud.buckets.nodes.count : cloud.padded);
    Array<i32> all(cloud.bucketed ? cloud.n + W : 0);
    Candidates nearest(1, candidate_capacity(cloud, 1));
    const V limit = splat(sq_radius);
    for (i64 m = 0; m < num_queries; ++m, query += cloud.axes, index += k) {
        i64 hits = ball_rows(cloud, query, limit, k, index);
        if (hits < k && cloud.bucketed) hits = ball_buckets(cloud.buckets, query, limit, k, index, all.data);
        if (hits == 0) {
            float sq_dist;
            knn_one(cloud, query, scratch.data, nearest, &sq_dist, index);
            hits = 1;
        }
        for (i64 j = hits; j < k; ++j) index[j] = index[0];
    }
}

}  // namespace
