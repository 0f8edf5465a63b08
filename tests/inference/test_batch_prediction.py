import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from toys import PARTS, Classifier, Segmenter, segmenter

from bixt3d.inference.batch_prediction import BatchPredictor, output_stems
from bixt3d.inference.predictor import Predictor
from bixt3d.io import read_points, unit_sphere
from bixt3d.io.finding import find_files
from bixt3d.viewer.palette import PALETTE


def save_every_format(folder, points):
    """The same points in every format of points, written by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(" ".join(repr(float(v)) for v in row) + "\n" for row in points)
    n = len(points)
    np.save(folder / "npy.npy", points)
    np.savez(folder / "npz.npz", points=points)
    (folder / "txt.txt").write_text(rows)
    (folder / "csv.csv").write_text("x,y,z\n" + rows.replace(" ", ","))
    (folder / "off.off").write_text(f"OFF\n{n} 0 0\n{rows}")
    (folder / "obj.obj").write_text("".join(f"v {row}\n" for row in rows.splitlines()))
    (folder / "pcd.pcd").write_text(
        "VERSION 0.7\nFIELDS x y z\nSIZE 8 8 8\nTYPE F F F\nCOUNT 1 1 1\n"
        f"WIDTH {n}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {n}\nDATA ascii\n{rows}"
    )
    (folder / "ply.ply").write_text(
        f"ply\nformat ascii 1.0\nelement vertex {n}\nproperty double x\nproperty double y\nproperty double z\n"
        f"end_header\n{rows}"
    )
    return ["csv", "npy", "npz", "obj", "off", "pcd", "ply", "txt"]


def predict(batch, files):
    done = list(batch.run(files, output_stems(files)))
    assert sorted(done) == sorted(files)


def test_every_format_gives_the_same_labels_and_keeps_the_coordinates(tmp_path):
    points = np.random.default_rng(0).normal(size=(150, 3)) * 30 + [500_000.0, 4_000_000.0, 12.0]
    kinds = save_every_format(tmp_path / "in", points)
    files = find_files([tmp_path / "in"])
    assert [file.stem for file in files] == kinds
    batch = BatchPredictor(segmenter(), tmp_path / "out")
    predict(batch, files)
    assert batch.failed == 0
    expected = segmenter()(points).labels
    assert len(set(expected)) == 3
    for kind in kinds:
        saved = np.load(tmp_path / "out" / f"{kind}_parts.npz")
        assert np.array_equal(saved["labels"], expected), kind
        assert np.array_equal(saved["points"], points), kind
        assert tuple(saved["names"]) == PARTS
        assert np.array_equal(read_points(tmp_path / "out" / f"{kind}_parts.ply").points, points), kind


def test_files_that_lie_or_have_strays_are_labelled_as_those_that_do_not(tmp_path):
    upright = np.random.default_rng(0).normal(size=(150, 3))
    upright /= np.linalg.norm(upright, axis=1, keepdims=True)
    lying = np.concatenate([upright[:, [0, 2, 1]] * [1, -1, 1], [[0, 0, 70.0], [0, 90.0, 0]]])
    np.save(tmp_path / "a.npy", lying)
    batch = BatchPredictor(segmenter(drop_strays=True), tmp_path / "out", up="z")
    predict(batch, [tmp_path / "a.npy"])
    saved = np.load(tmp_path / "out" / "a_parts.npz")
    assert np.array_equal(saved["points"], lying)
    assert np.array_equal(saved["labels"][:150], segmenter()(upright).labels)
    assert saved["labels"].shape == (152,)
    (table,) = batch.write_summary([tmp_path / "a.npy"])
    (row,) = csv.DictReader(table.open(encoding="utf-8"))
    assert (row["points"], row["strays"]) == ("152", "2")


@pytest.mark.parametrize(
    ("trained", "said", "note"),
    [("z", None, ""), ("z", "y", "with y up, but .* files with z up"), ("z", "z", ""), (None, "z", "")],
)
def test_without_a_word_files_lie_as_those_of_training(tmp_path, caplog, trained, said, note):
    """A note where the user says otherwise; none where training did not say, as with ModelNet."""
    upright = np.random.default_rng(0).normal(size=(150, 3))
    lying = upright[:, [0, 2, 1]] * [1, -1, 1]
    np.save(tmp_path / "a.npy", upright if said == "y" else lying)
    config = {"data": {} if trained is None else {"up": trained}}
    batch = BatchPredictor(segmenter(up=trained or "y", config=config), tmp_path / "out", up=said)
    predict(batch, [tmp_path / "a.npy"])
    saved = np.load(tmp_path / "out" / "a_parts.npz")
    assert np.array_equal(saved["labels"], segmenter()(upright).labels)
    assert re.search(note, caplog.text) if note else "up:" not in caplog.text


def test_results_lie_as_the_file_does_and_pictures_stand(tmp_path, monkeypatch):
    lying = np.random.default_rng(0).normal(size=(90, 3)).astype(np.float32).astype(np.float64)
    normals = lying / np.linalg.norm(lying, axis=1, keepdims=True)
    np.save(tmp_path / "a.npy", np.hstack([lying, normals]))
    drawn = {}
    monkeypatch.setattr("bixt3d.viewer.pictures.import_open3d", lambda: None)
    monkeypatch.setattr(
        "bixt3d.viewer.pictures.save_png", lambda path, scenes: drawn.update({path.name: scenes})
    )
    batch = BatchPredictor(segmenter(), tmp_path / "out", png=True, up="z")
    predict(batch, [tmp_path / "a.npy"])
    saved = np.load(tmp_path / "out" / "a_parts.npz")
    assert np.allclose(saved["normals"], normals)
    (scene,) = drawn["a_parts.png"]
    assert np.allclose(scene.points, unit_sphere(lying[:, [0, 2, 1]] * [1, 1, -1]), atol=1e-6)
    # in file and picture a part has the colour of its place within its class
    colors = PALETTE[np.array([0, 1, 0])[saved["labels"]]]
    assert np.array_equal(scene.views[0].colors, colors)
    assert np.array_equal(trimesh.load(tmp_path / "out" / "a_parts.ply").colors[:, :3], colors)


def test_files_of_the_same_name_do_not_share_a_result(tmp_path):
    files = [tmp_path / folder / "x.npy" for folder in "ab"]
    for count, file in enumerate(files, start=20):
        file.parent.mkdir()
        np.save(file, np.random.default_rng(count).normal(size=(count, 3)))
    predict(BatchPredictor(segmenter(), tmp_path / "out"), files)
    for count, folder in ((20, "a"), (21, "b")):
        assert np.load(tmp_path / "out" / folder / "x_parts.npz")["labels"].shape == (count,)


def test_files_that_were_read_before_a_stop_are_predicted(tmp_path):
    for i in range(5):
        np.save(tmp_path / f"{i}.npy", np.random.default_rng(i).normal(size=(20, 3)))
    answers = iter([False, False, True])
    batch = BatchPredictor(segmenter(), tmp_path / "out", stop=lambda: next(answers))
    files = find_files([tmp_path])
    assert list(batch.run(files, output_stems(files))) == files[:2]
    assert batch.failed == 0


def test_a_bad_file_does_not_stop_the_others(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(5):
        np.save(tmp_path / f"{i}.npy", rng.normal(size=(20 + i, 3)))
    (tmp_path / "2.npy").write_bytes(b"no")
    np.save(tmp_path / "3.npy", np.ones((7, 3)))
    files = [*find_files([tmp_path]), tmp_path / "absent.ply"]
    said = []
    batch = BatchPredictor(segmenter(), tmp_path / "out", report=said.append)
    predict(batch, files)
    assert batch.failed == 3
    assert ["2.npy" in said[0], "3.npy" in said[1], "absent.ply" in said[2]] == [True] * 3
    assert not any("\n" in sentence for sentence in said)
    (table,) = batch.write_summary(files)
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert [Path(row["file"]).name for row in rows] == [
        "0.npy",
        "1.npy",
        "2.npy",
        "3.npy",
        "4.npy",
        "absent.ply",
    ]
    assert [bool(row["error"]) for row in rows] == [False, False, True, True, False, True]
    assert rows[4]["points"] == "24"
    share = [float(part.split()[1]) for part in rows[4]["parts"].split("; ")]
    assert sum(share) == pytest.approx(100, abs=0.05)
    assert share == sorted(share, reverse=True)


def test_meshes_are_sampled_and_the_category_is_kept(tmp_path):
    (tmp_path / "m.off").write_text("OFF\n3 1 0\n0 0 0\n900 0 0\n0 900 0\n3 0 1 2\n")
    batch = BatchPredictor(segmenter(seed=5), tmp_path / "out", category="cup", samples=77)
    predict(batch, [tmp_path / "m.off"])
    saved = np.load(tmp_path / "out" / "m_parts.npz")
    assert saved["labels"].shape == (77,)
    assert np.array_equal(saved["points"], read_points(tmp_path / "m.off", num_samples=77, seed=5).points)
    assert set(saved["labels"]) <= {0, 1}
    assert np.allclose(np.abs(saved["normals"]), [0, 0, 1])
    assert batch.rows[tmp_path / "m.off"]["category"] == "cup"


@pytest.mark.parametrize(("category", "own"), [("cup", [0, 1]), ("hat", [2]), (None, [0, 1, 2])])
def test_probabilities_are_those_of_the_parts_that_the_cloud_can_have(tmp_path, category, own):
    points = np.random.default_rng(0).normal(size=(90, 3))
    np.save(tmp_path / "a.npy", points)
    predict(BatchPredictor(segmenter(), tmp_path, category=category), [tmp_path / "a.npy"])
    saved = np.load(tmp_path / "a_parts.npz", allow_pickle=False)
    wanted = segmenter()(points, category=category)
    assert tuple(saved["probability_names"]) == tuple(PARTS[i] for i in own)
    assert saved["probabilities"].dtype == np.float16
    np.testing.assert_allclose(saved["probabilities"], wanted.probabilities[:, own], atol=1e-3)
    assert tuple(saved["names"]) == PARTS
    assert np.array_equal(saved["labels"], wanted.labels), "indices into all names"


def test_a_result_takes_few_bytes(tmp_path):
    """A float32 for each of 40 parts of a point would be 160 bytes."""
    count = 20_000
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32))

    class Many(Segmenter):
        def forward(self, points, category=None):
            return torch.cat([super().forward(points), points[..., :1].expand(-1, -1, 37)], dim=-1)

    parts = (*PARTS, *(f"cat/{i}" for i in range(37)))
    predictor = Predictor(Many(), classes=("cup", "hat", "cat"), parts=parts, num_points=1024)
    predict(BatchPredictor(predictor, tmp_path, category="cup"), [tmp_path / "a.npy"])
    assert (tmp_path / "a_parts.npz").stat().st_size < 30 * count


def test_classes_go_to_tables(tmp_path):
    points = np.random.default_rng(0).normal(size=(60, 3)) * [5, 1, 1]
    np.save(tmp_path / "a.npy", points)
    names = tuple("abcdefghi")
    predictor = Predictor(Classifier(), classes=names, num_points=100)
    batch = BatchPredictor(predictor, tmp_path / "out")
    predict(batch, [tmp_path / "a.npy"])
    table, listed = batch.write_summary([tmp_path / "a.npy"])
    (row,) = csv.DictReader(table.open(encoding="utf-8"))
    (entry,) = json.loads(listed.read_text())
    centred = points - points.mean(axis=0)
    spread = (centred / np.linalg.norm(centred, axis=1).max()).std(axis=0, ddof=1)
    logits = 5 * np.concatenate([spread, -spread, 0 * spread])
    probability = np.exp(logits) / np.exp(logits).sum()
    best = np.argsort(-probability, kind="stable")[:5]
    assert [one["class"] for one in entry["top"]][:3] == [names[i] for i in best[:3]]
    assert [one["probability"] for one in entry["top"]] == pytest.approx(probability[best], abs=1e-5)
    assert row["class_1"] == names[best[0]]
    assert float(row["probability_5"]) == pytest.approx(probability[best[4]], abs=1e-5)
    assert "class_6" not in row


def test_output_names_never_meet():
    files = [Path(p) for p in ("in/a/x.ply", "in/b/x.ply", "in/b/y.off", "in/b/y.txt", "in/z.v2.npy")]
    stems = [stem.as_posix() for stem in output_stems(files)]
    assert stems == ["a/x", "b/x", "b/y_off", "b/y_txt", "z.v2"]
    files = [
        Path("in", name) for name in ("x.xyz", "x.csv", "x_csv.xyz", "x_csv_2.xyz", "x_xyz.a.b", "x.a.b")
    ]
    for order in (files, files[::-1]):
        stems = [stem.as_posix() for stem in output_stems(order)]
        assert len(set(stems)) == len(files), stems
        assert {"x_csv", "x_csv_2", "x_xyz.a", "x.a"} <= set(stems), "a name that only one has is kept"


def test_results_are_no_inputs_unless_they_are_named(tmp_path, caplog):
    points = np.random.default_rng(0).normal(size=(30, 3))
    np.save(tmp_path / "a.npy", points)
    batch = BatchPredictor(segmenter(), tmp_path)  # beside the input
    predict(batch, [tmp_path / "a.npy"])
    batch.write_summary([tmp_path / "a.npy"])
    classifier = BatchPredictor(Predictor(Classifier(), classes=tuple("abcdefghi")), tmp_path / "more")
    predict(classifier, [tmp_path / "a.npy"])
    classifier.write_summary([tmp_path / "a.npy"], "_rank1")
    assert len(list(tmp_path.rglob("*.*"))) == 6
    for argument in (tmp_path, f"{tmp_path}/*.*", f"{tmp_path}/**/*.*"):
        caplog.clear()
        assert find_files([argument]) == [tmp_path / "a.npy"]
        assert "skipped results of earlier predictions" in caplog.text
    with pytest.raises(ValueError, match="nothing to read here but results of earlier predictions"):
        find_files([tmp_path / "more"])
    (file,) = find_files([tmp_path / "a_parts.npz"])
    assert np.array_equal(read_points(file).points, points)


def test_a_cloud_of_few_points_is_noted_and_predicted(tmp_path, caplog):
    for count in (1, 7, 8):  # of 32
        np.save(tmp_path / f"{count}.npy", np.random.default_rng(0).normal(size=(count, 3)))
    batch = BatchPredictor(segmenter(), tmp_path / "out")
    predict(batch, find_files([tmp_path]))
    assert batch.failed == 0
    few = "and the model was trained on 32; a prediction from so few may mean little"
    assert caplog.messages == [
        f"{tmp_path / '1.npy'}: has 1 point, {few}",
        f"{tmp_path / '7.npy'}: has 7 points, {few}",
    ]


def test_points_that_coincide_or_lost_their_digits_are_noted(tmp_path, caplog):
    chair, offset = np.random.default_rng(0).uniform(size=(2000, 3)), np.array([500_000, 4_000_000, 100])
    coarse = (chair + 4_000_000).astype(np.float32)  # in steps of a quarter
    count = len(np.unique(coarse, axis=0))
    assert 50 < count < 200
    clouds = {
        "a_large": coarse,
        "b_map": (chair + offset).astype(np.float32),  # the height keeps its digits
        "c_precise": chair + offset,
        "d_wide": (1000 * chair + offset).astype(np.float32),
        "e_grid": np.argwhere(np.ones((9, 9, 9))).astype(float),
        "f_twice": np.repeat(chair[:900], 2, axis=0),
        "g_thrice": np.repeat(chair[:900], 3, axis=0),
        "h_beyond_float32": 1e300 * chair,
    }
    for name, points in clouds.items():
        np.save(tmp_path / f"{name}.npy", points)
    predict(BatchPredictor(segmenter(), tmp_path / "out"), find_files([tmp_path]))
    digits = "coordinates this large lose their digits in float32; subtract an offset before saving"
    assert caplog.messages == [
        f"{tmp_path / 'a_large.npy'}: only {count} of 2,000 points are distinct: {digits}",
        f"{tmp_path / 'b_map.npy'}: {digits}",
        f"{tmp_path / 'g_thrice.npy'}: only 900 of 2,700 points are distinct",
    ]


def test_a_file_of_another_format_says_how_to_convert_it(tmp_path):
    said = []
    batch = BatchPredictor(segmenter(), tmp_path, report=said.append)
    for name in ("a.E57", "b.fbx", "c.md"):
        (tmp_path / name).write_text("no")
    files = [tmp_path / name for name in ("a.E57", "b.fbx", "c.md", "absent.e57")]
    predict(batch, find_files(files))
    assert "unknown format '.E57'" in said[0]
    assert said[0].endswith("; convert it to .ply, with CloudCompare.")
    assert said[1].endswith("; convert it to .ply, with open3d, MeshLab or Blender.")
    assert not any("convert" in sentence for sentence in said[2:])


def test_a_file_name_that_is_no_text_costs_no_table(tmp_path):
    name = os.fsdecode(b"caf\xe9.npy")
    try:
        np.save(tmp_path / name, np.random.default_rng(0).normal(size=(30, 3)))
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such name")
    files = find_files([tmp_path])
    batch = BatchPredictor(Predictor(Classifier(), classes=tuple("abcdefghi")), tmp_path / "out")
    predict(batch, files)
    table, listed = batch.write_summary(files)
    (row,) = csv.DictReader(table.open(encoding="utf-8"))
    assert row["file"].endswith(r"caf\udce9.npy")
    (entry,) = json.loads(listed.read_text(encoding="utf-8"))
    assert os.fsencode(entry["file"]) == os.fsencode(files[0])


def test_the_summary_can_be_written_again(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(30, 3)))
    batch = BatchPredictor(Predictor(Classifier(), classes=tuple("abcdefghi")), tmp_path / "out")
    predict(batch, [tmp_path / "a.npy"])
    first = [path.read_text() for path in batch.write_summary([tmp_path / "a.npy"])]
    assert [path.read_text() for path in batch.write_summary([tmp_path / "a.npy"])] == first


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "b.npy"), MemoryError()])
def test_no_error_of_a_file_ends_the_run(tmp_path, monkeypatch, error):
    import bixt3d.inference.batch_prediction as module

    files = [tmp_path / name for name in ("a.npy", "b.npy", "c.npy")]
    for file in files:
        np.save(file, np.random.default_rng(0).normal(size=(30, 3)))

    def read(file, **options):
        if file == files[1]:
            raise error
        return read_points(file, **options)

    monkeypatch.setattr(module, "read_points", read)
    said = []
    batch = BatchPredictor(segmenter(), tmp_path / "out", report=said.append)
    predict(batch, files)
    assert batch.failed == 1
    assert len(said) == 1
    assert "b.npy" in said[0]
    assert "Errno" not in said[0]


def test_where_nothing_was_predicted_the_tables_of_the_run_before_stay(tmp_path):
    (tmp_path / "predictions.csv").write_text("kept\n")
    said = []
    batch = BatchPredictor(segmenter(), tmp_path, report=said.append)
    predict(batch, find_files([tmp_path / "scanz"]))
    assert said == [f"{tmp_path / 'scanz'}: there is no such file or folder; check the path."]
    assert batch.write_summary([tmp_path / "scanz"]) == []
    assert (tmp_path / "predictions.csv").read_text() == "kept\n"


def test_what_cannot_work_is_said_before_anything_is_read(tmp_path):
    (tmp_path / "afile").write_text("")
    classifier = Predictor(Classifier(), classes=tuple("abcdefghi"))
    for out in (tmp_path / "afile", tmp_path / "afile" / "deep" / "er"):
        with pytest.raises(ValueError, match=r"afile is not a folder; expected one to write into"):
            BatchPredictor(classifier, out)
    with pytest.raises(ValueError, match=r"samples: expected at least 1, got 0"):
        BatchPredictor(classifier, tmp_path, samples=0)
    with pytest.raises(ValueError, match=r"png: this model is a classifier"):
        BatchPredictor(classifier, tmp_path, png=True)
    with pytest.raises(ValueError, match=r"category: this model is a classifier"):
        BatchPredictor(classifier, tmp_path, category="a")


def test_a_full_batch_is_written_before_more_is_read_and_each_file_once(tmp_path):
    files = [tmp_path / f"{i}.npy" for i in range(6)]
    for file in files:
        np.save(file, np.random.default_rng(0).normal(size=(30, 3)))
    batch = BatchPredictor(segmenter(), tmp_path / "out", category="hat")  # of four pieces
    running = batch.run(files, output_stems(files))
    done = [next(running) for _ in range(4)]
    files[4].write_bytes(b"changed meanwhile")
    assert [*done, *running] == files
    assert [file for file in files if "error" in batch.rows[file]] == [files[4]]
    assert batch.rows[files[0]]["parts"] == [("hat/brim", 1.0)], "parts that do not occur are left out"
