"""Every point of every cloud is seen once, whatever the sizes."""

import numpy as np
import pytest
import torch

from bixt3d.datasets import PointClouds, WholeCloudLoader


def clouds(counts=(5, 2, 9)) -> PointClouds:
    n, stored = len(counts), max(counts)
    points = np.empty((n, stored, 3), dtype=np.float32)
    part_labels = np.empty((n, stored), dtype=np.int64)
    for i, count in enumerate(counts):
        own = np.arange(stored) % count
        points[i] = (100 * i + own)[:, None]
        part_labels[i] = own % 2
    return PointClouds(
        points=points,
        labels=np.arange(n, dtype=np.int64) % 2,
        classes=("cow", "calf"),
        names=tuple(f"cloud {i}" for i in range(n)),
        part_labels=part_labels,
        parts=("leg", "head"),
        counts=np.array(counts, dtype=np.int64),
    )


@pytest.mark.parametrize("world_size", [1, 2])
def test_each_point_counts_once(world_size):
    seen = []
    for rank in range(world_size):
        loader = WholeCloudLoader(clouds(), batch_size=2, num_points=4, rank=rank, world_size=world_size)
        batches = list(loader.epoch(0))
        assert len(batches) == len(loader)
        for batch in batches:
            assert batch.points.shape[1:] == (4, 3)
            own = batch.part_labels >= 0
            number = batch.points[..., 0].long()
            assert torch.equal(number // 100, batch.index[:, None].expand_as(number))  # fillers are its own
            assert torch.equal(batch.labels, batch.index % 2)
            assert torch.equal(batch.part_labels[own], (number[own] % 100) % 2)
            seen += number[own].tolist()
    assert sorted(seen) == [*range(5), 100, 101, *range(200, 209)]


def test_the_last_piece_is_filled_up_with_the_first_points():
    batches = list(WholeCloudLoader(clouds(), batch_size=2, num_points=4).epoch(0))
    pieces = [row for batch in batches for row in batch.points[..., 0].tolist()]
    assert pieces[:3] == [[0, 1, 2, 3], [4, 0, 1, 2], [100, 101, 100, 101]]
    assert pieces[3:] == [[200, 201, 202, 203], [204, 205, 206, 207], [208, 200, 201, 202]]


def test_the_same_every_time():
    loader = WholeCloudLoader(clouds(), batch_size=2, num_points=4)
    for a, b in zip(loader.epoch(0), loader.epoch(3), strict=True):
        assert torch.equal(a.points, b.points)
        assert torch.equal(a.part_labels, b.part_labels)
    assert len(list(loader.epoch(0, start=1))) == len(loader) - 1


def test_bad_input():
    whole = clouds()
    bare = PointClouds(whole.points, whole.labels, whole.classes, whole.names)
    with pytest.raises(ValueError, match="expected part labels"):
        WholeCloudLoader(bare, batch_size=2, num_points=4)
    with pytest.raises(ValueError, match="batch_size and num_points: expected at least 1, got 0 and 4"):
        WholeCloudLoader(whole, batch_size=0, num_points=4)
    with pytest.raises(ValueError, match="rank: expected 0 to"):
        WholeCloudLoader(whole, batch_size=1, num_points=4, rank=1)


def test_counts_are_checked_and_selected():
    whole = clouds()
    assert whole.select(np.array([2, 0])).sizes.tolist() == [9, 5]
    with pytest.raises(ValueError, match="counts: expected shape"):
        PointClouds(whole.points, whole.labels, whole.classes, whole.names, counts=np.array([1, 2, 10]))


def test_parts_of_another_class_are_refused():
    with pytest.raises(ValueError, match=r"cloud 1 \(second\) of class 'mug' has part label 0 \(lamp/foot\)"):
        PointClouds(
            points=np.zeros((2, 1, 3), dtype=np.float32),
            labels=np.array([0, 1]),
            classes=("lamp", "mug"),
            names=("first", "second"),
            part_labels=np.zeros((2, 1), dtype=np.int64),
            parts=("lamp/foot", "mug/body"),
        )
