"""Training that starts from weights: as many as fit are taken, and what is not is said."""

from types import SimpleNamespace

import pytest
import torch
from places import ROOT

from bixt3d.checkpoint import load_checkpoint, load_matching_weights
from bixt3d.config import to_yaml
from bixt3d.model_card import public_command, public_config, write_card
from bixt3d.tasks import Classification
from bixt3d.training.assembly import build_model
from bixt3d.training.experiment import train
from bixt3d.training.transfer import changed_settings

# Steps that change no weight, so that a run ends with what it started from.
STILL = (
    "optim.optimizer.lr=0",
    "optim.optimizer.weight_decay=0",
    "optim.schedule.min_lr=0",
    "train.ema_decay=null",
    "train.max_steps=2",
    "train.measure_test=false",
    "train.select_on=null",
)


def test_a_run_starts_from_the_weights_of_another(tiny, tiny_run, one_thread, tmp_path, capsys):
    origin = tiny_run / "best.pt"
    folder = train(tiny(f"run_dir={tmp_path / 'run'}", f"train.start_from={origin}", *STILL))
    out = capsys.readouterr().out
    tensors = len(load_checkpoint(origin)["model"])
    assert f"starts from {origin}: {tensors} of {tensors} tensors, 100% of the numbers\n" in out
    assert "WARNING" not in out
    given, got = (load_checkpoint(path)["model"] for path in (origin, folder / "last.pt"))
    assert given.keys() == got.keys()
    assert all(torch.equal(given[key], got[key]) for key in given)


def test_a_head_for_as_many_other_classes_starts_anew(tiny, tiny_run, one_thread, tmp_path, capsys):
    content = torch.load(tiny_run / "best.pt", weights_only=True)
    origin = tmp_path / "other.pt"
    torch.save({**content, "classes": [f"other {name}" for name in content["classes"]]}, origin)
    folder = train(tiny(f"run_dir={tmp_path / 'run'}", f"train.start_from={origin}", *STILL))
    assert "; anew: head.weight, head.bias\n" in capsys.readouterr().out
    got = load_checkpoint(folder / "last.pt")["model"]
    assert not torch.equal(got["head.weight"], content["model"]["head.weight"])
    assert torch.equal(got["encoder.latents"], content["model"]["encoder.latents"])


def test_the_head_and_the_category_of_a_decoder_start_anew_for_other_categories(
    tiny, one_thread, tmp_path, capsys
):
    options = (
        *("model=bixt_seg_encdec", "task=part_segmentation", "model.encoder.token_dims=[32,32]", *STILL),
        *("model.encoder.refinement.num_neighbors=4", "model.encoder.refinement.reduction=2"),
        *("model.decoder.widths=[16,16]", "model.decoder.num_blocks=1", "model.category_at=tokens"),
    )
    first = train(tiny(*options, f"run_dir={tmp_path / 'first'}"))
    content = torch.load(first / "last.pt", weights_only=True)
    content["classes"] = [f"other {name}" for name in content["classes"]]
    content["parts"] = [f"other {name}" for name in content["parts"]]
    torch.save(content, tmp_path / "other.pt")
    capsys.readouterr()
    train(tiny(*options, f"run_dir={tmp_path / 'run'}", f"train.start_from={tmp_path / 'other.pt'}"))
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("starts from"))
    head = sum(name.startswith("decoder.head") for name in content["model"])
    parts = line.rpartition(": ")[2].split(", ")
    assert parts == ["category.weight", f"decoder.head ({head} of {head} tensors)"]


def test_the_running_average_starts_there_too(tiny, tiny_run, one_thread, tmp_path):
    options = [o for o in STILL if "ema" not in o]
    folder = train(tiny(f"run_dir={tmp_path / 'run'}", f"train.start_from={tiny_run}", *options))
    given, got = (load_checkpoint(path)["model"] for path in (tiny_run, folder))
    assert all(torch.allclose(given[key], got[key], rtol=1e-6) for key in given)


def noted(text):
    """Return the keys that the note names, each with both values."""
    lines = [line for line in text.splitlines() if line.startswith("note: ")]
    return lines[0].partition("here: ")[2].split("; ") if lines else []


def test_settings_that_change_what_the_weights_compute_are_said(tiny, tiny_run, one_thread, tmp_path, capsys):
    changes = (
        *("model.tokenizer.scale=3", "model.encoder.num_heads=4"),
        # of these, training alone knows, or the same numbers come out of other steps
        *(
            "model.encoder.drop_path=0",
            "model.encoder.dropout=0",
            "model.encoder.chunk=7",
            "+model.dropout=0.5",
        ),
        *("model.encoder.checkpoint_activations=true", "~model.encoder.share_cross"),
    )
    train(tiny(f"run_dir={tmp_path / 'run'}", f"train.start_from={tiny_run}", *changes, *STILL))
    assert noted(capsys.readouterr().out) == [
        "model.encoder.num_heads was 2, is 4",
        "model.tokenizer.scale was 8.0, is 3",
    ]


def test_they_are_said_with_a_new_head_too_and_new_tensors_are_not_said_twice(
    tiny, tiny_run, one_thread, tmp_path, capsys
):
    """A head starts from zeros, so that the model puts out the same whatever comes before it."""
    content = torch.load(tiny_run / "best.pt", weights_only=True)
    torch.save(
        {**content, "classes": [f"other {name}" for name in content["classes"]]}, tmp_path / "other.pt"
    )
    changes = ("model.tokenizer.temperature=10", "model.encoder.num_latents=5")
    train(tiny(f"run_dir={tmp_path / 'run'}", f"train.start_from={tmp_path / 'other.pt'}", *changes, *STILL))
    out = capsys.readouterr().out
    assert "; anew: encoder.latents, head.weight, head.bias\n" in out
    assert noted(out) == ["model.tokenizer.temperature was 100.0, is 10"]


def test_a_start_that_takes_little_says_how_much(tiny, tiny_run, one_thread, tmp_path, capsys):
    """Of a wider model nothing fits but what has no width, or has the width of the data."""
    given = load_checkpoint(tiny_run)["model"]
    train(tiny(f"run_dir={tmp_path / 'run'}", f"train.start_from={tiny_run}", "model.encoder.dim=48", *STILL))
    out = capsys.readouterr().out
    own = load_checkpoint(tmp_path / "run")["model"]
    fits = [name for name, value in own.items() if value.shape == given[name].shape]
    share = sum(own[name].numel() for name in fits) / sum(value.numel() for value in own.values())
    blocks = sum(name.startswith("encoder.blocks") for name in own)
    assert f": {len(fits)} of {len(own)} tensors, {100 * share:.0f}% of the numbers; anew: " in out
    assert f"encoder.blocks ({blocks} of {blocks} tensors), " in out
    warning = next(line for line in out.splitlines() if line.startswith("WARNING"))
    assert "most of the model is not in" in warning


def test_layers_that_are_left_out_are_said(tiny, tiny_run, one_thread, tmp_path, capsys):
    options = ("model.encoder.self_attention_per_layer=0", *STILL)
    train(tiny(f"run_dir={tmp_path / 'run'}", f"train.start_from={tiny_run}", *options))
    assert noted(capsys.readouterr().out) == ["model.encoder.self_attention_per_layer was 1, is 0"]


def test_weights_whose_config_names_code_of_others_run_none_of_it(tiny, tiny_run, tmp_path, capsys):
    content = torch.load(tiny_run / "best.pt", weights_only=True)
    marker = tmp_path / "called"
    config = tiny()
    config["model"]["tokenizer"]["scale"] = {"_target_": "os.mkdir", "path": str(marker)}
    config["model"]["encoder"]["cross"]["_target_"] = "os.getcwd"
    origin = tmp_path / "theirs.pt"
    torch.save({**content, "config": to_yaml(config)}, origin)
    train(tiny(f"run_dir={tmp_path / 'run'}", f"train.start_from={origin}", *STILL))
    assert noted(capsys.readouterr().out) == [
        "model.encoder.cross._target_ was os.getcwd, is bixt3d.layers.bidirectional_cross",
        "model.tokenizer.scale was mkdir, is 8.0",
    ]
    assert not marker.exists()


def test_weights_without_a_config_say_nothing_of_it(tiny, tiny_run, one_thread, tmp_path, capsys):
    content = torch.load(tiny_run / "best.pt", weights_only=True)
    del content["config"]
    torch.save(content, tmp_path / "bare.pt")
    options = (f"train.start_from={tmp_path / 'bare.pt'}", "model.tokenizer.scale=3", *STILL)
    train(tiny(f"run_dir={tmp_path / 'run'}", *options))
    assert noted(capsys.readouterr().out) == []


def test_what_is_tried_moves_no_random_number_and_no_weight(tiny, tiny_run):
    config = tiny("model.tokenizer.scale=3")
    content = load_checkpoint(tiny_run)
    dataset = SimpleNamespace(classes=content["classes"], parts=(), num_points=32)
    model = build_model(config, Classification(content["classes"]))
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    assert changed_settings(model, config, tiny()["model"], dataset) == [
        "model.tokenizer.scale was 8.0, is 3"
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training


def test_a_continued_run_does_not_start_again(tiny, tiny_run, one_thread, tmp_path, capsys):
    origin = tmp_path / "origin.pt"
    origin.write_bytes((tiny_run / "last.pt").read_bytes())
    same = (f"run_dir={tmp_path / 'run'}", f"train.start_from={origin}", "train.measure_test=false")
    folder = train(tiny(*same, "train.max_steps=2"))
    origin.unlink()
    capsys.readouterr()
    train(tiny(*same, "train.max_steps=4", f"train.resume={folder}"))
    assert "starts from" not in capsys.readouterr().out
    assert load_checkpoint(folder)["progress"]["step"] == 4


def test_a_head_for_other_classes_starts_anew(tiny, tiny_run):
    state = load_checkpoint(tiny_run)["model"]
    model = build_model(tiny(), Classification(["one", "two", "three"]))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    anew = load_matching_weights(model, state, tiny_run)
    assert anew == ["head.weight", "head.bias"]
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key] if key in anew else state[key]), key


def test_what_a_model_has_besides_is_named_and_what_it_lacks_is_not():
    given = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 5), torch.nn.Linear(5, 5))
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    model.add_module("norm", torch.nn.LayerNorm(2))
    anew = load_matching_weights(model, given.state_dict(), "a.pt")
    assert anew == ["1.weight", "1.bias", "norm.weight", "norm.bias"]
    assert torch.equal(model[0].weight, given[0].weight)


def test_weights_of_another_width_are_refused(tiny, tiny_run):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4))
    with pytest.raises(
        ValueError, match=r"none of its .* tensors has the name and shape of one of this model's 2"
    ):
        load_matching_weights(model, load_checkpoint(tiny_run)["model"], tiny_run)


def test_no_such_weights(call, tmp_path):
    status, _, err = call(
        "train_cls.py",
        ROOT / "tests/tiny.yaml",
        f"run_dir={tmp_path / 'run'}",
        "train.start_from=no.safetensors",
    )
    assert status != 0
    assert err.startswith("error: no.safetensors: ")
    assert "Traceback" not in err


def test_what_is_published_names_the_weights_but_not_the_place(tiny, tiny_run):
    config = tiny("train.start_from=/home/x/runs/best.pt")
    assert public_config(config)["train"]["start_from"] == "best.pt"
    assert public_command("scripts/train_cls.py train.start_from=/home/x/runs/best.pt") == (
        "scripts/train_cls.py train.start_from=best.pt"
    )
    facts = {"weights": "last", "epoch": 1, "steps": 2, "selection": {}}
    card = write_card("a", config, ["one"], [], facts, dtype="float32", size=1)
    assert "Started from the weights `best.pt`, so" in card
