"""Checkpoints: one file, written whole or not at all, that rebuilds a model by itself."""

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
_ZIP = b"PK\x03\x04"  # how a file of torch.save begins


def save_checkpoint(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: a crash leaves the old file or the new one, never a part.

    Args:
        path: the file to write; its folder is made where it does not exist.
        content: tensors, numbers, strings and containers of them (loadable with ``weights_only=True``).

    Raises:
        OSError: the file cannot be written, as on a full disk; the error names it.
    """
    # an open file, because given a path torch would write the temporary name into the archive
    with atomic_file(path, durable=True) as temporary, temporary.open("wb") as file:
        try:
            torch.save({"format": FORMAT, "version": VERSION, **content}, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch fails once more in closing its archive
                raise error.__context__ from None
            raise


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint, or weights that ``scripts/publish.py`` made of one, onto the CPU.

    Args:
        path: a ``last.pt`` or ``best.pt``, a run folder (its ``last.pt``), or a ``.safetensors`` file.

    Returns:
        ``config``, ``classes``, ``parts``, ``model`` (the weights) and more.

    Raises:
        FileNotFoundError: there is no such file.
        RuntimeError: the file is truncated or damaged.
        ValueError: the file is not a checkpoint of this toolkit, or of a newer version of it.
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
        if start != _ZIP:  # torch would try its old format, which fails in many ways
            raise pickle.UnpicklingError("no zip archive")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: not a bixt3d checkpoint (it holds other things than tensors and plain values, or is no "
            "torch file at all); expected a last.pt or best.pt written by scripts/train_cls.py."
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
    """Raise a ValueError where a data set has other ``what`` ("classes", "parts") than a checkpoint was trained on."""
    pairs = enumerate(itertools.zip_longest(trained, given), 1)
    differing = next(((number, pair) for number, pair in pairs if pair[0] != pair[1]), None)
    if differing is not None:
        number, (there, here) = differing
        raise ValueError(
            f"{origin}: was trained on other {what} ({len(trained)}, number {number} is {there!r}) than the data set "
            f"has ({len(given)}, number {number} is {here!r}); give the data it was trained on."
        )


def load_weights(model: nn.Module, state: Mapping[str, torch.Tensor], origin: str | Path) -> None:
    """Load a state dict strictly, or say in one sentence why it does not fit.

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
    """Load what a state dict has under the model's own names and in their shapes, for a start from trained weights.

    Returns:
        Names of what the model keeps as it is, in its order, such as those of a head for other classes.

    Raises:
        ValueError: nothing fits.
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
