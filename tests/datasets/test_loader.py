import numpy as np
import pytest
import torch

from bixt3d.datasets import CloudLoader, PointClouds
from bixt3d.datasets.transforms import Compose, PointDropout, RandomScale, RandomShift, Shuffle

RECIPE = Compose([RandomScale(), RandomShift(), Shuffle()])


def clouds(count=23, stored=12, parts=True, channels=3):
    """Make clouds in which every point says who it is: x is its cloud, y its place in it."""
    points = np.zeros((count, stored, channels), dtype=np.float32)
    points[..., 0] = np.arange(count)[:, None]
    points[..., 1] = np.arange(stored)
    if channels == 6:
        points[..., 4] = 1
    return PointClouds(
        points=points,
        labels=np.arange(count, dtype=np.int64) % 3,
        classes=("a", "b", "c"),
        names=tuple(f"{i}" for i in range(count)),
        part_labels=np.tile(np.arange(stored, dtype=np.int64), (count, 1)) if parts else None,
        parts=tuple(f"all/{i}" for i in range(stored)) if parts else (),
    )


def same(a, b):
    return all(
        (x is None and y is None) or torch.equal(x, y)
        for x, y in [(getattr(a, f), getattr(b, f)) for f in ("points", "labels", "part_labels", "index")]
    )


def test_evaluation_sees_every_cloud_once_in_order():
    loader = CloudLoader(clouds(), batch_size=5, num_points=8)
    batches = list(loader.epoch(0))
    assert len(batches) == len(loader) == 5
    assert torch.cat([b.index for b in batches]).tolist() == list(range(23))
    last = batches[-1]
    assert last.points.shape == (3, 8, 3)
    assert torch.equal(last.points[..., 0], last.index[:, None].float().expand(-1, 8))
    assert torch.equal(last.points[..., 1], torch.arange(8.0).expand(3, -1))  # the first ones
    assert torch.equal(last.part_labels, torch.arange(8).expand(3, -1))
    assert torch.equal(last.labels, last.index % 3)
    assert (
        CloudLoader(clouds(parts=False), batch_size=5, num_points=8)
        ._batch(torch.tensor([1]), 0, 0)
        .part_labels
        is None
    )


def test_a_resumed_epoch_continues_exactly():
    settings = {
        "batch_size": 4, "num_points": 6, "transform": RECIPE, "shuffle": True, "drop_last": True,
        "sampling": "random", "seed": 5,
    }  # fmt: skip
    whole = [list(CloudLoader(clouds(), **settings).epoch(e)) for e in range(3)]
    fresh = CloudLoader(clouds(), **settings)  # another process, that never saw the first epochs
    resumed = list(fresh.epoch(2, start=3))
    assert len(resumed) == len(fresh) - 3
    assert all(same(a, b) for a, b in zip(resumed, whole[2][3:], strict=True))
    assert list(fresh.epoch(2, start=len(fresh))) == []


def test_epochs_batches_ranks_and_seeds_differ():
    def points(epoch=0, number=0, **changes):
        settings = {"batch_size": 4, "num_points": 6, "transform": RECIPE, "seed": 0} | changes
        loader = CloudLoader(clouds(count=1), **settings)
        return loader._batch(torch.zeros(1, dtype=torch.int64), epoch, number).points

    base = points()
    assert torch.equal(base, points())
    for other in (points(epoch=1), points(number=1), points(seed=1), points(rank=1, world_size=2)):
        assert not torch.equal(base, other)


def test_the_order_of_an_epoch_is_another_draw_than_its_first_batch():
    settings = {"batch_size": 12, "num_points": 12, "shuffle": True, "sampling": "random"}
    batch = next(CloudLoader(clouds(count=12, stored=12), **settings).epoch(0))
    assert not torch.equal(batch.index, batch.points[0, :, 1].long())


def test_global_random_state_has_no_say_and_is_left_alone():
    loader = CloudLoader(clouds(), batch_size=4, num_points=6, transform=RECIPE, shuffle=True)
    torch.manual_seed(1)
    first, state = list(loader.epoch(0)), torch.get_rng_state()
    assert torch.equal(state, torch.manual_seed(1).get_state())
    torch.manual_seed(2)
    assert all(same(a, b) for a, b in zip(first, loader.epoch(0), strict=True))


def test_shuffled_orders_change_from_epoch_to_epoch():
    loader = CloudLoader(clouds(), batch_size=23, num_points=4, shuffle=True)
    batches = [next(loader.epoch(e)) for e in range(3)]
    for batch in batches:  # points and label belong to the same cloud
        assert torch.equal(batch.points[..., 0], batch.index[:, None].float().expand(-1, 4))
        assert torch.equal(batch.labels, batch.index % 3)
    orders = [batch.index.tolist() for batch in batches]
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_training_ranks_share_the_epoch_equally(world_size):
    seen = []
    for rank in range(world_size):
        loader = CloudLoader(
            clouds(),
            batch_size=4,
            num_points=4,
            shuffle=True,
            drop_last=True,
            rank=rank,
            world_size=world_size,
        )
        batches = list(loader.epoch(1))
        assert len(batches) == len(loader) == 23 // (4 * world_size)
        assert all(len(b.index) == 4 for b in batches)
        seen += torch.cat([b.index for b in batches]).tolist()
    assert len(seen) == len(set(seen)) == 23 // (4 * world_size) * 4 * world_size


@pytest.mark.parametrize("world_size", [2, 5, 30])
def test_evaluation_ranks_cover_each_cloud_exactly_once(world_size):
    seen = []
    for rank in range(world_size):
        loader = CloudLoader(clouds(), batch_size=4, num_points=4, rank=rank, world_size=world_size)
        batches = list(loader.epoch(0))
        assert len(batches) == len(loader)
        seen += [i for b in batches for i in b.index.tolist()]
    assert sorted(seen) == list(range(23))


def test_random_sampling_draws_other_subsets_without_repetition():
    loader = CloudLoader(clouds(count=50), batch_size=50, num_points=6, sampling="random")
    first, second = next(loader.epoch(0)), next(loader.epoch(1))
    for batch in (first, second):
        drawn = batch.points[..., 1].long()
        assert torch.equal(drawn, batch.part_labels)
        assert all(len(set(row)) == 6 for row in drawn.tolist())
    assert not torch.equal(first.points, second.points)
    # each of the 12 stored points comes with probability 1/2
    share = torch.cat([first.part_labels, second.part_labels]).flatten().bincount(minlength=12) / 100
    assert (share - 0.5).abs().max() < 0.2


def test_memory_mapped_arrays_stay_mapped_and_give_the_same_batches(tmp_path):
    held = clouds()
    np.save(tmp_path / "points.npy", held.points)
    mapped = PointClouds(
        np.load(tmp_path / "points.npy", mmap_mode="r"), held.labels, held.classes, held.names,
        held.part_labels, held.parts,
    )  # fmt: skip
    settings = {"batch_size": 4, "num_points": 6, "transform": RECIPE, "shuffle": True, "sampling": "random"}
    loader = CloudLoader(mapped, **settings)
    assert isinstance(loader._points, np.memmap)
    assert all(
        same(a, b) for a, b in zip(loader.epoch(0), CloudLoader(held, **settings).epoch(0), strict=True)
    )


def test_the_data_set_is_never_written_to():
    data = clouds()
    before = data.points.copy()
    for batch in CloudLoader(data, batch_size=4, num_points=12, transform=PointDropout()).epoch(0):
        batch.points.mul_(0)
        batch.part_labels.mul_(0)
    assert np.array_equal(data.points, before)
    assert data.part_labels.max() == 11


def test_read_only_arrays_are_fine():
    data = clouds()
    data.points.setflags(write=False)
    assert next(CloudLoader(data, batch_size=2, num_points=4).epoch(0)).points.shape == (2, 4, 3)


def test_normals_pass_through():
    loader = CloudLoader(clouds(channels=6), batch_size=4, num_points=6, transform=RECIPE)
    normals = next(loader.epoch(0)).points[..., 3:]
    assert torch.equal(normals, torch.tensor([0.0, 1.0, 0.0]).expand_as(normals))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_points": 13}, "expected 1 to 12.*got 13"),
        ({"num_points": 0}, "num_points"),
        ({"batch_size": 0}, "batch_size"),
        ({"sampling": "best"}, "'best', expected one of first, random"),
        ({"rank": 2, "world_size": 2}, "rank"),
        (
            {"drop_last": True, "batch_size": 12, "world_size": 2},
            "23 clouds do not fill one batch of 12 for each of 2 processes",
        ),
    ],
)
def test_bad_settings(changes, words):
    with pytest.raises(ValueError, match=words):
        CloudLoader(clouds(), **({"batch_size": 4, "num_points": 6} | changes))


def test_bad_epochs():
    loader = CloudLoader(clouds(), batch_size=4, num_points=6)
    with pytest.raises(ValueError, match="epoch: expected 0 or more"):
        loader.epoch(-1)
    with pytest.raises(ValueError, match="start: expected 0 to 6"):
        loader.epoch(0, start=7)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_cuda_do_not_depend_on_where_the_arrays_lie():
    settings = {
        "batch_size": 4, "num_points": 6, "transform": RECIPE, "shuffle": True, "sampling": "random",
        "device": "cuda",
    }  # fmt: skip
    on_device = CloudLoader(clouds(), **settings)
    on_host = CloudLoader(clouds(), device_budget=0, **settings)
    assert on_device._points.is_cuda
    assert not on_host._points.is_cuda
    for a, b in zip(on_device.epoch(0), on_host.epoch(0), strict=True):
        assert a.points.is_cuda
        assert same(a, b)
