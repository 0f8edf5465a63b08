"""Published weights: one ``.safetensors`` file with everything needed to rebuild a model, as in a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .io.writing import atomic_file

SUFFIX = ".safetensors"
FORMAT = "bixt3d weights"
VERSION = 1
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
MAX_BYTES = 16_000_000


def save_weights(
    path: str | Path,
    content: Mapping[str, Any],
    facts: Mapping[str, Any],
    *,
    dtype: str = "bfloat16",
    max_bytes: int = MAX_BYTES,
) -> int:
    """Write the weights of a checkpoint atomically, with its config, class names and facts as metadata.

    With ``bfloat16``, floating-point tensors of two or more axes are rounded. Biases, norms and running statistics
    are small and keep their dtype.

    Args:
        path: the ``.safetensors`` file to write. Its folder is created if it does not exist.
        content: the result of :func:`bixt3d.checkpoint.load_checkpoint`.
        facts: what is known about the weights (figures, command, seed), as values that JSON can hold.
        dtype: ``"bfloat16"`` or ``"float32"``.
        max_bytes: maximum size of the file.

    Returns:
        The size of the file in bytes.

    Raises:
        ValueError: the dtype is unknown, the name does not end in ``.safetensors``, or the file would be too large.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(f"{path}: expected a name that ends in {SUFFIX}.")
    if dtype not in DTYPES:
        raise ValueError(f"dtype: unknown value {dtype!r}, expected one of {', '.join(sorted(DTYPES))}.")
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "config": content["config"],
        "classes": json.dumps(list(content["classes"])),
        "parts": json.dumps(list(content.get("parts", ()))),
        "facts": json.dumps(dict(facts)),
    }
    # copies, because modules that share a tensor list it twice, which the format does not allow
    tensors = {name: _rounded(t, DTYPES[dtype]).clone().contiguous() for name, t in content["model"].items()}
    data = save(tensors, metadata=metadata)
    if len(data) > max_bytes:
        advice = "give --dtype bfloat16 or" if dtype == "float32" else "take a smaller model or"
        raise ValueError(
            f"{path}: would have {len(data):,} bytes in {dtype}, expected at most {max_bytes:,}; {advice} raise the "
            "limit with --max-mb."
        )
    with atomic_file(path, durable=True) as temporary:
        temporary.write_bytes(data)
    return len(data)


def read_weights(path: str | Path) -> dict[str, Any]:
    """Read a file written by :func:`save_weights`, as a dict in the form of a checkpoint, with float32 weights.

    Raises:
        FileNotFoundError: there is no such file.
        RuntimeError: the file is truncated, damaged or not a safetensors file.
        ValueError: the file lacks the config of a bixt3d model, or was written by a newer version of the toolkit.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such weights; make them with 'python scripts/publish.py CHECKPOINT DIR'."
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise RuntimeError(
            f"{path}: the file is truncated, damaged or no safetensors file ({path.stat().st_size:,} bytes); copy it "
            f"again or use another one. ({str(error).splitlines()[0]})"
        ) from error
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path}: a safetensors file, but without the config of a bixt3d model; expected one written by "
            "scripts/publish.py."
        )
    if int(metadata["version"]) > VERSION:
        raise ValueError(
            f"{path}: weights version {metadata['version']}, expected at most {VERSION}; upgrade bixt3d."
        )
    return {
        "format": FORMAT,
        "version": VERSION,
        "config": metadata["config"],
        "classes": json.loads(metadata["classes"]),
        "parts": json.loads(metadata["parts"]),
        "facts": json.loads(metadata["facts"]),
        "model": {name: _rounded(t, torch.float32) for name, t in tensors.items()},
    }


def _rounded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() and tensor.ndim > 1 else tensor
