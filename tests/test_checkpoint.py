"""A checkpoint is whole or absent, safe to load, and says in one sentence what is wrong with it."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

from bixt3d.checkpoint import load_checkpoint, load_weights, save_checkpoint
from bixt3d.config import from_yaml, to_yaml
from bixt3d.evaluation.evaluate import evaluate_checkpoint
from bixt3d.training.experiment import train


def keys(node):
    """Every key of nested containers."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield str(key)
            yield from keys(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from keys(value)


def test_what_is_saved_comes_back(tmp_path):
    content = {
        "model": {"w": torch.arange(6.0).view(2, 3)},
        "classes": ["a", "b"],
        "config": "x: 1\n",
        "n": 3,
    }
    save_checkpoint(tmp_path / "last.pt", content)
    loaded = load_checkpoint(tmp_path / "last.pt")
    assert torch.equal(loaded["model"].pop("w"), content["model"].pop("w"))
    assert {k: loaded[k] for k in content} == content
    assert load_checkpoint(tmp_path)["n"] == 3, "a run folder stands for its last.pt"


def test_a_file_is_on_the_disk_before_it_takes_the_place_of_the_old_one(tmp_path, monkeypatch):
    def broken(*arguments):
        raise OSError("Input/output error")

    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})
    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path)["step"] == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_a_crash_while_writing_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, error):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})
    old = path.read_bytes()

    def write_half_and_crash(content, file):
        file.write(old[: len(old) // 2])
        raise error

    monkeypatch.setattr(torch, "save", write_half_and_crash)
    with pytest.raises(type(error)):
        save_checkpoint(path, {"step": 2})
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_writes_plain_tensors_under_the_names_of_the_model(tiny_run):
    for name in ("last.pt", "best.pt"):
        content = torch.load(tiny_run / name, weights_only=True)
        wrapped = [k for k in keys(content) if k.startswith(("module.", "_orig_mod."))]
        assert not wrapped
        assert "encoder.latents" in content["model"]


def test_others_may_read_the_file(tiny_run):
    assert (tiny_run / "last.pt").stat().st_mode & 0o444 == 0o444


@pytest.mark.slow
def test_a_compiled_run_has_the_same_names_and_weights(
    tiny, tiny_run, one_thread, same_run, tmp_path, monkeypatch
):
    """The backend "eager" traces the model and runs the trace, in which torch stands for the library's MLP: the same
    steps but for rounding, which Adam enlarges where a gradient is nearly zero."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    options = ("train.measure_test=false", "train.compile=true", "train.sampling=first")
    folder = train(tiny(f"run_dir={tmp_path / 'run'}", *options, "train.max_steps=3"))
    compiled = load_checkpoint(folder)
    assert not [k for k in keys(compiled) if "_orig_mod" in k or k.startswith("module.")]
    eager = load_checkpoint(tiny_run)
    assert compiled["model"].keys() == eager["model"].keys()
    assert compiled["resume"]["model"].keys() == eager["resume"]["model"].keys()
    plain = train(tiny(f"run_dir={tmp_path / 'plain'}", options[0], options[2], "train.max_steps=3"))
    for key, value in load_checkpoint(plain)["model"].items():
        torch.testing.assert_close(compiled["model"][key], value, rtol=1e-4, atol=1e-4)


class TestBadFiles:
    def test_missing(self, tmp_path):
        with pytest.raises(
            FileNotFoundError, match=r"nothing\.pt: no such checkpoint; train one with 'python "
        ):
            load_checkpoint(tmp_path / "nothing.pt")

    def test_folder_without_a_run(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"last\.pt: no such checkpoint"):
            load_checkpoint(tmp_path)

    def test_folder_of_runs(self, tmp_path):
        for name in ("monday", "tuesday"):
            save_checkpoint(tmp_path / name / "last.pt", {})
        with pytest.raises(FileNotFoundError, match=r"name one of the runs here, such as .*tuesday\."):
            load_checkpoint(tmp_path)
        save_checkpoint(tmp_path / "last.pt", {"name": "its own"})
        assert load_checkpoint(tmp_path)["name"] == "its own"

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
    def test_truncated(self, tiny_run, tmp_path, share):
        whole = (tiny_run / "last.pt").read_bytes()
        path = tmp_path / "half.pt"
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(
            RuntimeError, match=r"half\.pt: the file is truncated or damaged \([\d,]+ bytes\); copy"
        ):
            load_checkpoint(path)

    @pytest.mark.parametrize("content", [b"x: 1\n", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), b"\x80", b"P"])
    def test_no_torch_file(self, tmp_path, content):
        path = tmp_path / "notes.pt"
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"notes\.pt: not a bixt3d checkpoint .* or is not a torch file at all"
        ):
            load_checkpoint(path)

    def test_any_bytes(self, tmp_path):
        random = np.random.default_rng(0)
        path = tmp_path / "noise.pt"
        for start in (b"", b"PK\x03\x04"):
            for _ in range(100):
                path.write_bytes(start + random.bytes(int(random.integers(1, 60))))
                with pytest.raises((ValueError, RuntimeError), match=r"noise\.pt: "):
                    load_checkpoint(path)

    def test_a_zip_of_something_else(self, tmp_path):
        np.savez(tmp_path / "arrays.npz", x=np.zeros(3))
        with pytest.raises((ValueError, RuntimeError), match=r"arrays\.npz: "):
            load_checkpoint(tmp_path / "arrays.npz")

    @pytest.mark.parametrize("content", [{"state_dict": {"w": torch.zeros(1)}}, [torch.zeros(1)]])
    def test_torch_file_of_something_else(self, tmp_path, content):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(
            ValueError, match=r"other\.pt: a torch file, but not a bixt3d checkpoint; expected a last"
        ):
            load_checkpoint(tmp_path / "other.pt")

    def test_pickled_code_is_not_run(self, tmp_path):
        torch.save(nn.Linear(1, 1), tmp_path / "module.pt")
        with pytest.raises(
            ValueError, match=r"module\.pt: not a bixt3d checkpoint \(it holds more than tensors"
        ):
            load_checkpoint(tmp_path / "module.pt")

    def test_newer_version(self, tmp_path):
        save_checkpoint(tmp_path / "new.pt", {})
        content = torch.load(tmp_path / "new.pt", weights_only=True)
        torch.save({**content, "version": 99}, tmp_path / "new.pt")
        with pytest.raises(
            ValueError, match=r"new\.pt: checkpoint version 99, expected at most 1; upgrade bixt3d"
        ):
            load_checkpoint(tmp_path / "new.pt")

    def test_other_architecture(self):
        state = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).state_dict()
        shapes = (
            r"^a\.pt: weights of another .* 2 of another shape \(1\.weight is \(2, 4\), expected \(5, 4\)"
        )
        with pytest.raises(ValueError, match=shapes):
            load_weights(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5)), state, "a.pt")
        with pytest.raises(
            ValueError, match=r"2 keys missing, 0 unexpected, 0 of another shape \(for example 2\.w"
        ):
            load_weights(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2)), state, "a.pt")
        with pytest.raises(ValueError, match=r"0 keys missing, 2 unexpected"):
            load_weights(nn.Sequential(nn.Linear(3, 4)), state, "a.pt")

    def test_where_it_was_trained_does_not_matter(self, tiny_run, tmp_path, monkeypatch, capsys, one_thread):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        expected = evaluate_checkpoint(tiny_run / "best.pt").summary()
        content = load_checkpoint(tiny_run / "best.pt")
        config = from_yaml(content["config"])
        config["train"] |= {"accelerator": "cuda", "devices": 2, "precision": "16-mixed"}
        save_checkpoint(tmp_path / "best.pt", {**content, "config": to_yaml(config)})
        capsys.readouterr()
        assert evaluate_checkpoint(tmp_path / "best.pt").summary() == expected
        said = capsys.readouterr().out.splitlines()
        assert said[0] == "precision: 32-true, since the 16-mixed of the training run needs a CUDA device"
        assert not any("precision" in line for line in said[1:])
        for given, words in (
            ("train.accelerator=cuda", "expected a CUDA"),
            ("train.precision=16-mixed", "needs a CUDA"),
            ("+train.precision=16-mixed", "needs a CUDA"),
        ):
            with pytest.raises(ValueError, match=words):
                evaluate_checkpoint(tmp_path / "best.pt", [given])

    def test_other_architecture_by_override(self, tiny_run):
        with pytest.raises(ValueError, match=r"best\.pt: weights of another architecture"):
            evaluate_checkpoint(tiny_run / "best.pt", ["model.encoder.depth=1"])
