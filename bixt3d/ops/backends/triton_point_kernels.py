"""Triton kernels of the ops on coordinates. Only :mod:`.triton_points` imports this file.

Coordinates are stored axes first, (B, D, N), so that neighbouring threads read neighbouring numbers. All kernels are
launched without fused multiply-adds, which round differently and could change which of two equally near points counts
as the nearer. No kernel uses atomics.
"""

import triton
import triton.language as tl


@triton.jit
def _lowest_index_of_largest(value, index):
    """Return the lowest index that has the largest ``value``, whatever the order of the reduction."""
    largest = tl.max(value, axis=0)
    return tl.min(tl.where(value == largest, index, 2147483647), axis=0)


@triton.jit
def farthest_in_registers(points, start, index, num_points, num_samples, BLOCK: tl.constexpr):
    """Pick the samples of one cloud that fits in registers, one program per cloud.

    Reads (B, 3, N) points once and three numbers for every pick, and writes (B, S) int64. BLOCK covers all points, so a
    pick costs one reduction over the program's threads and no memory traffic beyond the pick itself.
    """
    cloud = tl.program_id(0).to(tl.int64)
    points += cloud * 3 * num_points
    index += cloud * num_samples
    offset = tl.arange(0, BLOCK)
    inside = offset < num_points
    x = tl.load(points + offset, mask=inside, other=0.0)
    y = tl.load(points + num_points + offset, mask=inside, other=0.0)
    z = tl.load(points + 2 * num_points + offset, mask=inside, other=0.0)
    nearest = tl.where(inside, float("inf"), -1.0).to(x.dtype)
    picked = tl.load(start + cloud).to(tl.int32)
    tl.store(index, picked.to(tl.int64))
    for s in range(1, num_samples):
        dx = tl.load(points + picked) - x
        dy = tl.load(points + num_points + picked) - y
        dz = tl.load(points + 2 * num_points + picked) - z
        nearest = tl.minimum(nearest, dx * dx + dy * dy + dz * dz)
        nearest = tl.where(inside, nearest, -1.0)
        picked = tl.max(nearest, axis=0, return_indices=True, return_indices_tie_break_left=True)[1]
        tl.store(index + s, picked.to(tl.int64))


@triton.jit
def farthest_in_memory(points, start, nearest, index, num_points, num_samples, BLOCK: tl.constexpr):
    """Pick the samples of one cloud that does not fit in registers, one program per cloud.

    For every pick, reads (B, 3, N) points and reads and writes (B, N) distances, which start at infinity, mostly in the
    cache. Writes (B, S) int64. Every thread keeps the best of its own points over all tiles, so a pick costs one
    reduction in total and not one per tile.
    """
    cloud = tl.program_id(0).to(tl.int64)
    points += cloud * 3 * num_points
    nearest += cloud * num_points
    index += cloud * num_samples
    picked = tl.load(start + cloud).to(tl.int32)
    tl.store(index, picked.to(tl.int64))
    for s in range(1, num_samples):
        px = tl.load(points + picked)
        py = tl.load(points + num_points + picked)
        pz = tl.load(points + 2 * num_points + picked)
        best = tl.full((BLOCK,), -1.0, nearest.dtype.element_ty)
        best_index = tl.zeros((BLOCK,), tl.int32)
        for first in range(0, num_points, BLOCK):
            offset = first + tl.arange(0, BLOCK)
            inside = offset < num_points
            dx = px - tl.load(points + offset, mask=inside, other=0.0)
            dy = py - tl.load(points + num_points + offset, mask=inside, other=0.0)
            dz = pz - tl.load(points + 2 * num_points + offset, mask=inside, other=0.0)
            known = tl.load(nearest + offset, mask=inside, other=-1.0)
            known = tl.minimum(known, dx * dx + dy * dy + dz * dz)
            tl.store(nearest + offset, known, mask=inside)
            better = (known > best) & inside  # a later tile has higher indices: an equal one does not count
            best_index = tl.where(better, offset, best_index)
            best = tl.where(better, known, best)
        picked = _lowest_index_of_largest(best, best_index)
        tl.store(index + s, picked.to(tl.int64))
        tl.debug_barrier()


@triton.jit
def _sq_distances(query, points, rows, columns, num_queries, num_points, num_axes):
    """Return the (rows, columns) squared distances, summed axis by axis. Values out of range are undefined."""
    row_inside, column_inside = rows < num_queries, columns < num_points
    difference = (
        tl.load(query + rows, mask=row_inside, other=0.0)[:, None]
        - tl.load(points + columns, mask=column_inside, other=0.0)[None, :]
    )
    total = difference * difference
    for axis in range(1, num_axes):
        difference = (
            tl.load(query + axis * num_queries + rows, mask=row_inside, other=0.0)[:, None]
            - tl.load(points + axis * num_points + columns, mask=column_inside, other=0.0)[None, :]
        )
        total += difference * difference
    return total


@triton.jit
def nearest_k(
    query, points, sq_dist, index, num_queries, num_points, num_axes, k,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Keep the ``k`` nearest points of ROWS queries while iterating over the points of their cloud.

    Reads (B, D, M) queries and (B, D, N) points in float32, and writes (B, M, K) distances and indices. All other
    distances stay in registers. WIDTH is a power of two, at least ``k``. Each tile of WIDTH points is sorted in
    descending order and the list of the nearest in ascending order, so that the elementwise minimum gives the nearest
    of both. A tile is skipped if none of its points is nearer than the last in the list of its query, as most are later
    on. Distance and index form one 64-bit key, so no two keys are equal and ties go to the lowest index.
    """
    blocks = tl.cdiv(num_queries, ROWS)
    cloud = (tl.program_id(0) // blocks).to(tl.int64)
    rows = (tl.program_id(0) % blocks) * ROWS + tl.arange(0, ROWS)
    query += cloud * num_axes * num_queries
    points += cloud * num_axes * num_points
    rank = tl.arange(0, WIDTH)
    none: tl.constexpr = 9223372036854775807
    best = tl.full((ROWS, WIDTH), none, tl.int64)
    last = tl.full((ROWS,), none, tl.int64)
    for first in range(0, num_points, WIDTH):
        columns = first + rank
        total = _sq_distances(query, points, rows, columns, num_queries, num_points, num_axes)
        # The bits of a non-negative float sort like an integer.
        key = (total.to(tl.int32, bitcast=True).to(tl.int64) << 32) | columns[None, :].to(tl.int64)
        key = tl.where((columns < num_points)[None, :] & (rows < num_queries)[:, None], key, none)
        if tl.max((tl.min(key, axis=1) < last).to(tl.int32), axis=0) > 0:
            key = tl.sort(key, dim=1, descending=True)
            best = tl.sort(tl.minimum(best, key), dim=1)
            last = tl.max(tl.where(rank[None, :] < k, best, -1), axis=1)
    target = (cloud * num_queries + rows[:, None]) * k + rank[None, :]
    wanted = (rows < num_queries)[:, None] & (rank < k)[None, :]
    tl.store(sq_dist + target, (best >> 32).to(tl.int32).to(tl.float32, bitcast=True), mask=wanted)
    tl.store(index + target, best & 4294967295, mask=wanted)


@triton.jit
def nearest_three(
    query, points, sq_dist, index, num_queries, num_points, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Keep the three nearest points of ROWS queries while iterating over the points of their cloud.

    Reads (B, 3, M) queries and (B, 3, N) points, and writes (B, M, 3) distances and indices. For three, it is cheap to
    extract the smallest of a tile three times and insert each by comparison, which also works in float64.
    """
    blocks = tl.cdiv(num_queries, ROWS)
    cloud = (tl.program_id(0) // blocks).to(tl.int64)
    rows = (tl.program_id(0) % blocks) * ROWS + tl.arange(0, ROWS)
    query += cloud * 3 * num_queries
    points += cloud * 3 * num_points
    d0 = tl.full((ROWS,), float("inf"), query.dtype.element_ty)
    d1 = d0
    d2 = d0
    none: tl.constexpr = 2147483647
    i0 = tl.full((ROWS,), none, tl.int32)
    i1 = i0
    i2 = i0
    for first in range(0, num_points, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        total = _sq_distances(query, points, rows, columns, num_queries, num_points, 3)
        left = tl.broadcast_to((columns < num_points)[None, :], (ROWS, COLUMNS))
        for _ in range(3):
            d = tl.min(tl.where(left, total, float("inf")), axis=1)
            i = tl.min(tl.where(left & (total == d[:, None]), columns[None, :], none), axis=1)
            left = left & (columns[None, :] != i[:, None])
            # Indices only increase, so an equal distance is inserted behind. If none is left, nothing is inserted.
            found = i != none
            b0 = found & ((d < d0) | (i0 == none))
            b1 = found & ((d < d1) | (i1 == none))
            b2 = found & ((d < d2) | (i2 == none))
            d2 = tl.where(b1, d1, tl.where(b2, d, d2))
            i2 = tl.where(b1, i1, tl.where(b2, i, i2))
            d1 = tl.where(b0, d0, tl.where(b1, d, d1))
            i1 = tl.where(b0, i0, tl.where(b1, i, i1))
            d0 = tl.where(b0, d, d0)
            i0 = tl.where(b0, i, i0)
    # In a cloud of one or two points, repeat the last one found.
    d1 = tl.where(i1 == none, d0, d1)
    i1 = tl.where(i1 == none, i0, i1)
    d2 = tl.where(i2 == none, d1, d2)
    i2 = tl.where(i2 == none, i1, i2)
    target = (cloud * num_queries + rows) * 3
    wanted = rows < num_queries
    tl.store(sq_dist + target, d0, mask=wanted)
    tl.store(sq_dist + target + 1, d1, mask=wanted)
    tl.store(sq_dist + target + 2, d2, mask=wanted)
    tl.store(index + target, i0.to(tl.int64), mask=wanted)
    tl.store(index + target + 1, i1.to(tl.int64), mask=wanted)
    tl.store(index + target + 2, i2.to(tl.int64), mask=wanted)


@triton.jit
def first_in_ball(
    query, points, limit, index, num_queries, num_points, num_neighbors,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write the first points within the radius of ROWS queries, then fill up the remaining places.

    Reads (B, 3, M) queries, (B, 3, N) points and the squared radius, which is a tensor because Triton passes numbers as
    float32. Writes (B, M, K) int64. A running count gives each hit its place, and the loop ends as soon as every query
    has ``num_neighbors`` hits.
    """
    blocks = tl.cdiv(num_queries, ROWS)
    cloud = (tl.program_id(0) // blocks).to(tl.int64)
    rows = (tl.program_id(0) % blocks) * ROWS + tl.arange(0, ROWS)
    row_inside = rows < num_queries
    query += cloud * 3 * num_queries
    points += cloud * 3 * num_points
    target = (cloud * num_queries + rows) * num_neighbors
    sq_radius = tl.load(limit)
    none: tl.constexpr = 2147483647
    # Rows out of range count as complete.
    count = tl.where(row_inside, 0, num_neighbors)
    first_hit = tl.full((ROWS,), none, tl.int32)
    nearest = tl.full((ROWS,), float("inf"), query.dtype.element_ty)
    nearest_index = tl.zeros((ROWS,), tl.int32)
    first = 0
    while (first < num_points) & (tl.min(count, axis=0) < num_neighbors):
        columns = first + tl.arange(0, COLUMNS)
        column_inside = (columns < num_points)[None, :]
        total = _sq_distances(query, points, rows, columns, num_queries, num_points, 3)
        hit = (total <= sq_radius) & column_inside & row_inside[:, None]
        place = count[:, None] + tl.cumsum(hit.to(tl.int32), axis=1) - 1
        tl.store(
            index + target[:, None] + place,
            tl.broadcast_to(columns[None, :], (ROWS, COLUMNS)).to(tl.int64),
            mask=hit & (place < num_neighbors),
        )
        count += tl.sum(hit.to(tl.int32), axis=1)
        first_hit = tl.minimum(first_hit, tl.min(tl.where(hit, columns[None, :], none), axis=1))
        d = tl.min(tl.where(column_inside, total, float("inf")), axis=1)
        i = tl.min(tl.where(column_inside & (total == d[:, None]), columns[None, :], none), axis=1)
        nearest_index = tl.where(d < nearest, i, nearest_index)
        nearest = tl.minimum(nearest, d)
        first += COLUMNS
    repeated = tl.where(first_hit == none, nearest_index, first_hit).to(tl.int64)
    place = 0
    while place < num_neighbors:
        columns = place + tl.arange(0, COLUMNS)
        tl.store(
            index + target[:, None] + columns[None, :],
            tl.broadcast_to(repeated[:, None], (ROWS, COLUMNS)),
            mask=row_inside[:, None]
            & (columns[None, :] >= count[:, None])
            & (columns[None, :] < num_neighbors),
        )
        place += COLUMNS
