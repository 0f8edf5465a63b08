"""Triton kernels that gather and sum rows. Only :mod:`.triton_features` imports this file.

Sums are in float32 (float64 if an input is) and in a fixed order. No kernel uses atomics.
"""

import triton
import triton.language as tl


@triton.jit
def copy_rows(
    features, index, out, num_points, num_rows, num_channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):
    """Copy ``out[b, r] = features[b, index[b, r]]``, one block of rows and channels per program.

    Reads the (B, R) indices once per block of channels, and R rows of C numbers per cloud. Writes (B, R, C).
    """
    blocks = tl.cdiv(num_rows, ROWS)
    cloud = (tl.program_id(0) // blocks).to(tl.int64)
    row = (tl.program_id(0) % blocks) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    source = cloud * num_points + tl.load(index + cloud * num_rows + row, mask=row < num_rows, other=0)
    inside = (row < num_rows)[:, None] & (channel < num_channels)[None, :]
    value = tl.load(features + source[:, None] * num_channels + channel[None, :], mask=inside)
    target = (cloud * num_rows + row)[:, None] * num_channels + channel[None, :]
    tl.store(out + target, value, mask=inside)


@triton.jit
def interpolate_rows(
    features, index, weights, out, num_points, num_rows, num_channels,
    DTYPE: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sum three weighted rows of (B, N, C) features for each of (B, R) rows, in ``DTYPE``.

    Reads three indices, weights and rows for every row, and writes the row once.
    """
    blocks = tl.cdiv(num_rows, ROWS)
    cloud = (tl.program_id(0) // blocks).to(tl.int64)
    row = (tl.program_id(0) % blocks) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (row < num_rows)[:, None] & (channel < num_channels)[None, :]
    total = tl.zeros((ROWS, CHANNELS), DTYPE)
    entry = (cloud * num_rows + row) * 3
    for j in range(3):
        source = cloud * num_points + tl.load(index + entry + j, mask=row < num_rows, other=0)
        weight = tl.load(weights + entry + j, mask=row < num_rows, other=0.0).to(DTYPE)
        value = tl.load(features + source[:, None] * num_channels + channel[None, :], mask=inside, other=0.0)
        total += weight[:, None] * value.to(DTYPE)
    target = (cloud * num_rows + row)[:, None] * num_channels + channel[None, :]
    tl.store(out + target, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def sum_uses(
    rows, weights, order, first, out, num_channels,
    NEIGHBORS: tl.constexpr, WEIGHTED: tl.constexpr, DTYPE: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sum the rows of all uses of a point, in ``DTYPE``, one program per point and block of channels.

    ``order`` holds the positions in the flattened index, sorted by the point they refer to. Those of point p are
    ``order[first[p]:first[p + 1]]``, so each program iterates over the uses of its point in a fixed order and is the
    only one to write that row. Position e belongs to row ``e // NEIGHBORS``. Reads each row of ``rows`` NEIGHBORS
    times, and writes (B, N, C) once.
    """
    point = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < num_channels
    total = tl.zeros((CHANNELS,), DTYPE)
    for use in range(tl.load(first + point), tl.load(first + point + 1)):
        place = tl.load(order + use)
        value = tl.load(rows + (place // NEIGHBORS) * num_channels + channel, mask=inside, other=0.0)
        if WEIGHTED:
            total += tl.load(weights + place).to(DTYPE) * value.to(DTYPE)
        else:
            total += value.to(DTYPE)
    tl.store(out + point * num_channels + channel, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def multiply_rows(
    rows, features, index, out, num_points, num_rows, num_channels,
    DTYPE: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Compute ``out[b, r, j] = rows[b, r] · features[b, index[b, r, j]]`` for j = 0, 1, 2, in ``DTYPE``.

    For each row, reads the row three times (two of them from the cache) and the three indexed rows, and writes three
    numbers.
    """
    blocks = tl.cdiv(num_rows, ROWS)
    cloud = (tl.program_id(0) // blocks).to(tl.int64)
    row = (tl.program_id(0) % blocks) * ROWS + tl.arange(0, ROWS)
    entry = (cloud * num_rows + row) * 3
    for j in range(3):
        source = cloud * num_points + tl.load(index + entry + j, mask=row < num_rows, other=0)
        total = tl.zeros((ROWS,), DTYPE)
        for start in range(0, num_channels, CHANNELS):
            channel = start + tl.arange(0, CHANNELS)
            inside = (row < num_rows)[:, None] & (channel < num_channels)[None, :]
            own = (cloud * num_rows + row)[:, None] * num_channels + channel[None, :]
            a = tl.load(rows + own, mask=inside, other=0.0).to(DTYPE)
            other = source[:, None] * num_channels + channel[None, :]
            b = tl.load(features + other, mask=inside, other=0.0).to(DTYPE)
            total += tl.sum(a * b, axis=1)
        tl.store(out + entry + j, total.to(out.dtype.element_ty), mask=row < num_rows)
