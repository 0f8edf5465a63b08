"""Part labels of one's own, from files to a model, its predictions and back to files that are learnt from."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

import bixt3d
from bixt3d.datasets import Folder
from bixt3d.inference.batch_prediction import BatchPredictor
from bixt3d.inference.showing import scenes_of_files
from bixt3d.io import read_points
from bixt3d.io.writing import write_ply
from bixt3d.training.experiment import train

PARTS = ("mug/lower", "mug/upper")
SMALL = (
    *("model=bixt_seg_naive", "model.encoder.depth=1", "model.encoder.dim=32", "model.encoder.num_heads=2"),
    *("model.encoder.num_latents=4", "model.tokenizer.scale=4.0", "model.encoder.drop_path=0.0"),
    *("data=folder", "data.num_points=64", "data.stored_points=200", "data.part_names=[mug/lower,mug/upper]"),
    *("augment=none", "train.batch_size=4", "train.accelerator=cpu", "train.keep_freed_memory=false"),
    *("train.ema_decay=0", "train.log_every=50", "optim.optimizer.lr=0.01"),
)


def write(path, seed):
    """A cloud of its own size, cut in two by a plane that one learns at once; a fifth of it is not labelled."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (int(rng.integers(100, 400)), 3)) * 50 + 1000
    upper = points[:, 1] > 1000
    labels = np.where(rng.random(len(points)) < 0.2, -1, upper)
    if path.suffix == ".ply":
        write_ply(path, points, np.zeros(points.shape, np.uint8), labels)
    elif path.suffix == ".npz":
        np.savez(path, points=points, labels=labels)
    else:
        np.savetxt(path, np.column_stack([points, labels]), header="X Y Z Classification", comments="//")
    return upper


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("own") / "mugs"
    for split, count in (("train", 20), ("test", 6)):
        folder = root / split / "mug"
        folder.mkdir(parents=True)
        for i in range(count):
            write(folder / f"{i:02}{('.ply', '.npz', '.asc')[i % 3]}", 100 * (split == "test") + i)
    return root


@pytest.fixture(scope="module")
def run(compose, root):
    settings = (
        f"data.root={root}",
        f"run_dir={root.parent / 'run'}",
        "train.epochs=25",
        "data.normals=false",
    )
    return train(compose(ROOT / "cfgs" / "quickstart_partseg.yaml", *SMALL, *settings))


def test_parts_are_learnt_from_files(run):
    results = json.loads((run / "results.json").read_text())["results"]
    assert results["last"]["instance mIoU C"] > 85  # by chance: 33


def test_what_was_predicted_is_shown_beside_the_truth_and_learnt_from(run, root, tmp_path):
    files = sorted((root / "test" / "mug").iterdir())
    predictor = bixt3d.load(run / "last.pt", device="cpu")
    (scene,) = scenes_of_files(predictor, files[:1])
    assert [view.title for view in scene.views] == ["prediction", "ground truth", "errors"]
    right, wrong, unknown = (entry.share for entry in scene.views[2].legend)
    assert unknown == pytest.approx(np.mean(read_points(files[0], labels=True).labels == -1))
    assert right > 9 * wrong
    batch = BatchPredictor(predictor, tmp_path / "out")
    assert len(list(batch.run(files, [Path(file.stem) for file in files]))) == len(files)
    expected = {file.stem: predictor(read_points(file)).labels for file in files}
    for suffix in (".ply", ".npz"):
        again = tmp_path / suffix[1:] / "train" / "mug"
        again.mkdir(parents=True)
        for stem, labels in expected.items():
            path = tmp_path / "out" / f"{stem}_parts{suffix}"
            assert np.array_equal(read_points(path, labels=True).labels, labels)
            shutil.copy(path, again)
        options = {"num_points": 64, "stored_points": 200, "val_fraction": 0}
        clouds = Folder(again.parents[1], part_names=predictor.parts, **options).load("train")
        assert clouds.parts == PARTS
        for labels, row in zip(expected.values(), clouds.part_labels, strict=True):
            assert set(row.tolist()) == set(labels.tolist())
