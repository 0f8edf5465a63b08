"""Checkpoints: one file, written atomically, with everything needed to rebuild a model."""

from __future__ import annotations

import itertools
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .io.writing import atomic_file
from .weights import SUFFIX, read_weights

FORMAT = "bixt3d checkpoint"
VERSION = 1
_ZIP = b"PK\x03\x04"  # first bytes of a file written by torch.save


def save_checkpoint(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: a crash leaves either the old file or the complete new one.

    Args:
        path: the file to write. Its folder is created if it does not exist.
        content: tensors, numbers, strings and containers of them (loadable with ``weights_only=True``).

    Raises:
        OSError: the file cannot be written, for example because the disk is full. The error names the file.
    """
    # pass an open file: given a path, torch would write the temporary name into the archive
    with atomic_file(path, durable=True) as temporary, temporary.open("wb") as file:
        try:
            torch.save({"format": FORMAT, "version": VERSION, **content}, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch raises again while it closes its archive
                raise error.__context__ from None
            raise


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint, or weights published with ``scripts/publish.py``, onto the CPU.

    Args:
        path: a ``last.pt`` or ``best.pt``, a run folder (its ``last.pt`` is read), or a ``.safetensors`` file.

    Returns:
        A dict with ``config``, ``classes``, ``parts``, ``model`` (the state dict) and more.

    Raises:
        FileNotFoundError: there is no such file.
        RuntimeError: the file is truncated or damaged.
        ValueError: the file is not a checkpoint of this toolkit, or was written by a newer version.
    """
    path = Path(path)
    if path.suffix == SUFFIX:
        return read_weights(path)
    if path.is_dir():
        runs = sorted(path.glob("*/last.pt"))
        path = path / "last.pt"
        if runs and not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such checkpoint; name one of the runs here, such as {runs[-1].parent}."
            )
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such checkpoint; train one with 'python scripts/train_cls.py cfgs/quickstart.yaml'."
        )
    with path.open("rb") as file:
        start = file.read(len(_ZIP))
    try:
        if not start:
            raise EOFError("the file is empty")
        if start != _ZIP:  # torch would try its legacy format, which can fail with almost any error
            raise pickle.UnpicklingError("no zip archive")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: not a bixt3d checkpoint (it holds more than tensors and plain values, or is not a torch file "
            "at all); expected a last.pt or best.pt written by scripts/train_cls.py."
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise RuntimeError(
            f"{path}: the file is truncated or damaged ({path.stat().st_size:,} bytes); copy it again or use "
            f"another checkpoint. ({str(error).splitlines()[0]})"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(
            f"{path}: a torch file, but not a bixt3d checkpoint; expected a last.pt or best.pt written by "
            "scripts/train_cls.py. Official BiXT weights are read by bixt3d.models.convert.bixt_from_official."
        )
    if content["version"] > VERSION:
        raise ValueError(
            f"{path}: checkpoint version {content['version']}, expected at most {VERSION}; upgrade bixt3d."
        )
    return content


def check_labels(
    origin: str | os.PathLike[str], what: str, trained: Sequence[str], given: Sequence[str]
) -> None:
    """Raise a ValueError if the ``what`` ("classes", "parts") of a data set differ from those of a checkpoint."""
    pairs = enumerate(itertools.zip_longest(trained, given), 1)
    differing = next(((number, pair) for number, pair in pairs if pair[0] != pair[1]), None)
    if differing is not None:
        number, (there, here) = differing
        raise ValueError(
            f"{origin}: was trained on other {what} ({len(trained)}, number {number} is {there!r}) than the data set "
            f"has ({len(given)}, number {number} is {here!r}); give the data it was trained on."
        )


def load_weights(model: nn.Module, state: Mapping[str, torch.Tensor], origin: str | Path) -> None:
    """Load a state dict strictly; if it does not fit, say why in one sentence.

    Raises:
        ValueError: the state dict belongs to another architecture.
    """
    own = model.state_dict()
    missing = [k for k in own if k not in state]
    extra = [k for k in state if k not in own]
    shapes = [k for k in own if k in state and own[k].shape != state[k].shape]
    if missing or extra or shapes:
        example = (shapes or missing or extra)[0]
        detail = (
            f"{example} is {tuple(state[example].shape)}, expected {tuple(own[example].shape)}"
            if shapes
            else f"for example {example}"
        )
        raise ValueError(
            f"{origin}: weights of another architecture: {len(missing)} keys missing, {len(extra)} unexpected, "
            f"{len(shapes)} of another shape ({detail}); build the model from the checkpoint's own config."
        )
    model.load_state_dict(state)


def load_matching_weights(
    model: nn.Module, state: Mapping[str, torch.Tensor], origin: str | Path
) -> list[str]:
    """Load the tensors of a state dict that match the model in name and shape, to start from trained weights.

    Returns:
        Names of the tensors that were not loaded, in the order of the model's state dict. An example is a head for
        other classes.

    Raises:
        ValueError: no tensor matches.
    """
    own = model.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise ValueError(
            f"{origin}: none of its {len(state)} tensors has the name and shape of one of this model's {len(own)}; "
            "start from weights of the same kind of model, of the same width."
        )
    model.load_state_dict(fitting, strict=False)
    return [k for k in own if k not in fitting]
