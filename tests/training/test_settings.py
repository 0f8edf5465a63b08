"""Settings of a run check themselves."""

import math

import pytest

from bixt3d.engine import LoopSettings
from bixt3d.training.settings import TrainSettings


@pytest.mark.parametrize(
    ("settings", "key", "value"),
    [
        (LoopSettings, "epochs", 0),
        (LoopSettings, "accumulate", 0),
        (LoopSettings, "evaluate_every", -1),
        (LoopSettings, "checkpoint_every", 0),
        (LoopSettings, "log_every", 0),
        (LoopSettings, "max_steps", 0),
        (LoopSettings, "clip_norm", 0.0),
        (LoopSettings, "clip_norm", math.nan),
        (TrainSettings, "batch_size", 0),
        (TrainSettings, "eval_batch_size", 0),
        (TrainSettings, "devices", 0),
        (TrainSettings, "devices", -1),
        (TrainSettings, "seed", -1),
        (TrainSettings, "ema_decay", -0.1),
        (TrainSettings, "ema_decay", 1),
        (TrainSettings, "eval_sampling", "random"),
        (TrainSettings, "precision", "fp8"),
        (TrainSettings, "compile", "fast"),
        (TrainSettings, "accelerator", "gpu"),
        (TrainSettings, "sampling", "last"),
        (TrainSettings, "select_on", "train"),
    ],
)
def test_settings_refuse_values_out_of_range(settings, key, value):
    with pytest.raises(ValueError, match=rf"^{key}: expected .*got {value!r}"):
        settings(**{key: value})


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("ema_decay", [None, 0, 0.999]),
        ("select_on", [None, "test", "val"]),
        ("eval_sampling", ["first", "all"]),
        ("compile", [True, False, "default", "max-autotune", "reduce-overhead"]),
        ("precision", ["16-mixed", "32-true", "bf16-mixed"]),
        ("accelerator", ["auto", "cpu", "cuda", "mps"]),
        ("seed", [0]),
    ],
)
def test_settings_take_every_value_that_their_description_names(key, values):
    for value in values:
        assert getattr(TrainSettings(**{key: value}), key) == value


@pytest.mark.parametrize("targets", [["90"], [True], [90, None]])
def test_targets_are_numbers(targets):
    with pytest.raises(TypeError, match="targets: expected numbers, got"):
        TrainSettings(targets=targets)


@pytest.mark.parametrize(
    ("given", "mode"), [(False, None), (True, "default"), ("reduce-overhead", "reduce-overhead")]
)
def test_compile_is_a_switch_or_a_mode(given, mode):
    assert TrainSettings(compile=given).compile_mode == mode
