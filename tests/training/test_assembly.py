"""What a run is put together from: loaders as the settings say, read by one process first."""

import threading
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from places import ROOT

from bixt3d.datasets import PointClouds
from bixt3d.layers import PointTokenizer
from bixt3d.models import (
    BiXTClassifier,
    BiXTEncoder,
    BiXTSegmenter,
    PointMLPClassifier,
    PointMLPDecoder,
    PointMLPEncoder,
    PointMLPSegmenter,
)
from bixt3d.tasks import Classification, PartSegmentation
from bixt3d.training.assembly import (
    check_batch_size,
    load_split,
    make_eval_loader,
    make_loader,
    points_measured,
)
from bixt3d.training.settings import TrainSettings

FABRIC = SimpleNamespace(device=torch.device("cpu"), global_rank=0, world_size=1)
COUNTS = {"train": 10, "val": 5, "test": 7}
PARTS = ("a/x", "b/x")


class Numbered:
    """Clouds of 12 points: the first coordinate is the number of the cloud, the second that of the point."""

    classes, parts, num_points = ("a", "b"), PARTS, 4

    def load(self, split):
        n = COUNTS[split]
        points = np.zeros((n, 12, 3), dtype=np.float32)
        points[..., 0], points[..., 1] = np.arange(n)[:, None], np.arange(12)
        labels = np.arange(n) % 2
        names = tuple(f"{split}{i}" for i in range(n))
        pid = np.repeat(labels[:, None], 12, axis=1)
        return PointClouds(points, labels, self.classes, names, part_labels=pid, parts=self.parts)


def keep(points, part_labels=None, *, generator=None):
    return points if part_labels is None else (points, part_labels)


def numbers(loader, epoch=0):
    """Return the numbers of the clouds in each batch, and those of all points that were taken."""
    batches = list(loader.epoch(epoch))
    clouds = [batch.points[:, 0, 0].int().tolist() for batch in batches]
    return clouds, [row for batch in batches for row in batch.points[..., 1].int().tolist()]


def settings(**options):
    return TrainSettings(batch_size=4, eval_batch_size=3, **options)


def test_training_is_shuffled_by_the_seed_and_cut_into_full_batches():
    def drawn(epoch=0, **options):
        return numbers(make_loader(Numbered(), "train", settings(**options), FABRIC, transform=keep), epoch)[
            0
        ]

    first = drawn()
    assert [len(batch) for batch in first] == [4, 4]
    assert len({n for batch in first for n in batch}) == 8
    assert drawn() == first
    assert drawn(seed=1) != first
    assert drawn(epoch=1) != first


def test_a_training_cloud_keeps_the_first_points_or_random_ones():
    for sampling, fixed in (("first", True), ("random", False)):
        loader = make_loader(Numbered(), "train", settings(sampling=sampling), FABRIC, transform=keep)
        points = numbers(loader)[1]
        assert all(len(set(row)) == 4 for row in points)
        assert all(row == [0, 1, 2, 3] for row in points) == fixed


@pytest.mark.parametrize("split", COUNTS)
def test_what_is_measured_is_all_of_the_split_in_order_and_its_first_points(split):
    loader = make_eval_loader(
        Numbered(), split, Classification(("a", "b")), settings(sampling="random", seed=5), FABRIC
    )
    clouds, points = numbers(loader)
    assert [len(batch) for batch in clouds[:-1]] == [3] * (len(clouds) - 1)
    assert [n for batch in clouds for n in batch] == list(range(COUNTS[split]))
    assert points == [[0, 1, 2, 3]] * COUNTS[split]
    assert loader.clouds.names[0] == f"{split}0"
    assert points_measured(loader, settings()) == "the first 4 points"


def test_another_number_of_points_stands_in_for_that_of_the_data():
    assert numbers(make_loader(Numbered(), "val", settings(), FABRIC, num_points=2))[1] == [[0, 1]] * 5


def test_parts_are_measured_on_every_point_where_it_is_asked_for():
    given = settings(eval_sampling="all")
    loader = make_eval_loader(Numbered(), "val", PartSegmentation(("a", "b"), PARTS), given, FABRIC)
    seen = np.zeros((5, 12), dtype=int)
    for batch in loader.epoch(0):
        for cloud, point, part in zip(
            batch.points[..., 0].int().flatten(),
            batch.points[..., 1].int().flatten(),
            batch.part_labels.flatten(),
            strict=True,
        ):
            seen[cloud, point] += int(part >= 0)  # what only fills up a piece has no label
    assert (seen == 1).all()
    assert points_measured(loader, given) == "all points"
    with pytest.raises(
        ValueError, match=r"train\.eval_sampling: expected first for Classification, got 'all'"
    ):
        make_eval_loader(Numbered(), "val", Classification(("a", "b")), given, FABRIC)


def stages():
    lists = {"num_neighbors": (4, 4), "reductions": (2, 2), "blocks_before": (1, 1), "blocks_after": (1, 1)}
    return PointMLPEncoder(embedding_dim=8, width_factors=(2, 2), **lists)


def tokens(dense):
    encoder = BiXTEncoder(depth=2, dim=24, num_latents=5, num_heads=3, dense=dense)
    return {"tokenizer": PointTokenizer(24), "encoder": encoder}


DECODER = partial(PointMLPDecoder, widths=(16, 16), num_blocks=1)
MODELS = {
    "BiXT": (lambda: BiXTClassifier(4, **tokens(dense=False)), 1),
    "BiXT parts": (lambda: BiXTSegmenter(4, 1, **tokens(dense=True)), 1),
    "BiXT parts, decoder": (lambda: BiXTSegmenter(4, 1, **tokens(dense=True), decoder=DECODER), 2),
    "PointMLP": (lambda: PointMLPClassifier(4, encoder=stages(), head_dims=(8,)), 2),
    "PointMLP, bare head": (lambda: PointMLPClassifier(4, encoder=stages(), head_dims=()), 1),
    "PointMLP parts": (lambda: PointMLPSegmenter(4, 1, encoder=stages(), decoder=DECODER), 2),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_trains_on_the_fewest_clouds_it_says_and_on_no_fewer(name):
    build, fewest = MODELS[name]
    model, points = build().train(), torch.rand(fewest, 16, 3)
    assert getattr(model, "min_batch_size", 1) == fewest
    inputs = (points, torch.zeros(fewest, dtype=torch.long)) if "parts" in name else (points,)
    assert model(*inputs).isfinite().all()
    if fewest > 1:
        check_batch_size(model, TrainSettings(batch_size=fewest))
        with pytest.raises(ValueError, match="batch norm: expected at least 2 values"):
            model(*(x[:1] for x in inputs))
        with pytest.raises(ValueError, match=r"^train\.batch_size: .* at least 2 clouds .*, got 1;"):
            check_batch_size(model, TrainSettings(batch_size=1))


def test_a_batch_too_small_for_the_model_leaves_no_folder(compose, tmp_path):
    from bixt3d.training.experiment import train

    folder = tmp_path / "run"
    config = compose(
        ROOT / "cfgs" / "quickstart_partseg.yaml",
        f"run_dir={folder}",
        "train.batch_size=1",
        "train.accelerator=cpu",
    )
    with pytest.raises(ValueError, match=r"^train\.batch_size"):
        train(config)
    assert not folder.exists()


@pytest.mark.parametrize("fails", [False, True])
def test_one_process_reads_first_then_one_of_each_node_then_the_rest(fails):
    """Two nodes of three processes, which are threads here."""
    barrier, order, raised = threading.Barrier(6), [], []

    class Slow:
        def load(self, split):
            order.append(threading.current_thread().name)
            if fails:
                raise ValueError("damaged")
            return split

    def run(rank):
        fabric = SimpleNamespace(
            world_size=6, global_rank=rank, local_rank=rank % 3, barrier=lambda: barrier.wait(10)
        )
        try:
            assert load_split(Slow(), "val", fabric) == "val"
        except ValueError as error:
            raised.append(str(error))

    threads = [threading.Thread(target=run, args=(rank,), name=str(rank)) for rank in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [order[0], order[1], sorted(order[2:])] == ["0", "3", ["1", "2", "4", "5"]]
    assert raised == (["damaged"] * 6 if fails else []), "nobody is left waiting"
