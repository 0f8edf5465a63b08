"""Export the model of a checkpoint to ONNX or to a ``torch.export`` program."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import __version__
from ..io.writing import check_file
from ..layers import BidirectionalCrossAttention, CrossAttention, SelfAttention
from .loading import load
from .predictor import Predictor

FORMATS = (".onnx", ".pt2")
TOLERANCE = 1e-4  # of logits; relative to the largest one if that is above 1
TRACED_BACKEND = "sdpa"  # plain tensor operations; the default may be a custom op of the toolkit
INSTALL = "pip install onnx onnxscript onnxruntime, or pip install -e '.[export]'"
NORMALISATION = (
    "xyz minus their mean, divided by the largest distance from it (unit sphere), in float64, then float32"
)
# For each up axis, the coordinates that turn it to y, as bixt3d.io.turn_to_y does.
TURNS = {"x": "-y x z", "y": "x y z", "z": "x z -y"}


class Exported(NamedTuple):
    """An exported file and the results of its check.

    Attributes:
        path: the file.
        metadata: the metadata in the file, see :func:`describe`.
        difference: largest absolute difference between its logits and the model's; None if it was not checked.
        seconds: median time of a batch with onnxruntime and with torch; None unless it is a checked ONNX file.
        batch: number of clouds and points in that batch.
    """

    path: Path
    metadata: dict[str, str]
    difference: float | None = None
    seconds: tuple[float, float] | None = None
    batch: tuple[int, int] = (0, 0)


def export_checkpoint(checkpoint: str | Path, out: str | Path, *, trust_code: bool = False) -> Exported:
    """Export the model of a checkpoint for any number of clouds and points, and check the file.

    The file maps ``points (B, N, C)`` float32, and ``category (B,)`` int64 if the model takes it, to logits. Before it
    replaces ``out``, it is loaded and compared with the model on two sizes other than the traced one.

    Args:
        checkpoint: a ``last.pt`` or ``best.pt``, or a run folder.
        trust_code: allow the checkpoint's config to name your own code, see
            :func:`bixt3d.inference.loading.read_config`.
        out: ``FILE.onnx``, for models without grouping, or ``FILE.pt2``, for all models. A ``.pt2`` file keeps the
            toolkit's ops as nodes ``bixt3d::...``, so import ``bixt3d.ops`` before ``torch.export.load``.

    Raises:
        ValueError: the format is unknown, ``out`` is not writable, or the config names untrusted code.
        NotImplementedError: the model uses ops that ONNX does not have.
        ImportError: onnx or onnxscript is not installed.
        RuntimeError: the logits of the file differ from those of the model.
    """
    out = Path(out)
    as_onnx = out.suffix == ".onnx"
    if out.suffix not in FORMATS:
        raise ValueError(f"{out}: unknown format {out.suffix!r}, expected one of {', '.join(FORMATS)}.")
    if as_onnx:
        _check_packages(out)
    check_file(out)
    predictor = load(checkpoint, device="cpu", trust_code=trust_code)
    metadata = describe(predictor, predictor.config["name"])
    program = trace(predictor)
    ops = dict.fromkeys(node.split(".")[1] for node in own_ops(program))
    if as_onnx and ops:
        raise NotImplementedError(
            f"{checkpoint}: ONNX has no {' and no '.join(ops)}, which this model is made of; only models "
            f"without grouping can be written as ONNX, write {out.with_suffix('.pt2')} instead."
        )
    write = _write_onnx if as_onnx else _write_program
    out.parent.mkdir(parents=True, exist_ok=True)
    # in a temporary folder rather than under a temporary name, since a .pt2 file contains its own name
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.stem}.") as folder:
        file = Path(folder, out.name)
        done = write(predictor, program, metadata, file)
        os.replace(file, out)
    return done._replace(path=out)


def describe(predictor: Predictor, name: str) -> dict[str, str]:
    """Return the metadata that a program needs to run the model. Lists are encoded as JSON."""
    return {
        "bixt3d": __version__,
        "name": name,
        "task": "parts" if predictor.parts else "classes",
        "classes": json.dumps(predictor.classes),
        "parts": json.dumps(predictor.parts),
        "takes_category": json.dumps(predictor.takes_category),
        "in_channels": str(predictor.model.in_channels),
        "channels": "x y z" if predictor.model.in_channels == 3 else "x y z, then the unit normal",
        "up": "y",
        "trained_up": predictor.up,
        "turn": TURNS[predictor.up],
        "normalisation": NORMALISATION,
        "num_points": str(predictor.num_points),
        "min_points": str(fewest_points(predictor)),
    }


def fewest_points(predictor: Predictor) -> int:
    """Return the smallest number of points an exported model takes. A hierarchy must keep two at its last level."""
    reduction = getattr(getattr(predictor.model, "encoder", None), "reduction", 1)
    return max(predictor.min_points, 2 * reduction) if reduction > 1 else predictor.min_points


def trace(predictor: Predictor) -> torch.export.ExportedProgram:
    """Trace a model into one graph for any number of clouds and for :func:`fewest_points` or more points."""
    # enough points that no level of a hierarchy has only one, which the tracer would take as a fixed size
    inputs = example(predictor, 2, 4 * predictor.num_points + 1)
    clouds = torch.export.Dim("clouds", min=1)
    points = torch.export.Dim("points", min=fewest_points(predictor))
    sizes: list[dict[int, Any]] = [{0: clouds, 1: points}, {0: clouds}]
    # guards on the number of points, which a hierarchy divides, are checked when the graph runs; torch 2.6 cannot do so
    deferring = "prefer_deferred_runtime_asserts_over_guards"
    known = deferring in inspect.signature(torch.export.export).parameters
    options: dict[str, Any] = {deferring: True} if known else {}
    shapes = tuple(sizes[: len(inputs)])
    with _attention_backend(predictor.model, TRACED_BACKEND), torch.no_grad():
        try:
            return torch.export.export(predictor.model, inputs, dynamic_shapes=shapes, **options)
        except torch._dynamo.exc.UserError as error:
            if known:
                raise
            raise RuntimeError(
                f"export: torch {torch.__version__} cannot defer checks of sizes to the exported graph, which this "
                "model needs; export with a newer torch, such as 2.13."
            ) from error


def own_ops(program: torch.export.ExportedProgram) -> list[str]:
    """Return the sorted names of the toolkit's custom ops in a graph."""
    return sorted({str(n.target) for n in program.graph.nodes if str(n.target).startswith("bixt3d.")})


def example(predictor: Predictor, clouds: int, points: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Draw random inputs for a model: points and normals of unit length and, if it takes them, categories in turn."""
    channels = predictor.model.in_channels
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(clouds, points, channels, generator=generator)
    unit = torch.cat([nn.functional.normalize(part, dim=-1) for part in drawn.split(3, dim=-1)], dim=-1)
    if not predictor.takes_category:
        return (unit,)
    return unit, torch.arange(clouds) % len(predictor.classes)


@contextmanager
def _attention_backend(model: nn.Module, name: str) -> Iterator[None]:
    kinds = (BidirectionalCrossAttention, CrossAttention, SelfAttention)
    layers = [m for m in model.modules() if isinstance(m, kinds)]
    before = [layer.backend for layer in layers]
    for layer in layers:
        layer.backend = name
    try:
        yield
    finally:
        for layer, backend in zip(layers, before, strict=True):
            layer.backend = backend


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings about optional packages and unchanged nodes."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _write_program(
    predictor: Predictor, program: torch.export.ExportedProgram, metadata: dict[str, str], out: Path
) -> Exported:
    torch.export.save(program, out, extra_files={"metadata.json": json.dumps(metadata)})
    return Exported(out, metadata, _compare(predictor, torch.export.load(out).module(), out))


def _write_onnx(
    predictor: Predictor, program: torch.export.ExportedProgram, metadata: dict[str, str], out: Path
) -> Exported:
    names = ["points", "category"] if predictor.takes_category else ["points"]
    with _quiet():
        written = torch.onnx.export(
            program, dynamo=True, input_names=names, output_names=["logits"], optimize=True, verbose=False
        )
    assert written is not None
    written.model.metadata_props.update(metadata)
    written.save(out, external_data=False)
    try:
        import onnxruntime
    except ImportError:
        return Exported(out, metadata)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(out), options, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> Tensor:
        given = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    difference = _compare(predictor, run, out)
    batch = (8, predictor.num_points)
    seconds = _time_in_turn((run, predictor.model), example(predictor, *batch))
    return Exported(out, metadata, difference, seconds, batch)


def _compare(predictor: Predictor, run: Any, out: Path) -> float:
    """Return the largest difference between the logits of the file and the model, on sizes that were not traced."""
    count = predictor.num_points
    worst = 0.0
    for clouds, points in ((1, count + 37), (5, max(fewest_points(predictor), count // 2 + 1))):
        inputs = example(predictor, clouds, points, seed=clouds)
        with torch.no_grad():
            expected, got = predictor.model(*inputs), run(*inputs)
        difference = (got - expected).abs().max().item()
        worst = max(worst, difference)
        if not difference <= TOLERANCE * max(1.0, expected.abs().max().item()):
            raise RuntimeError(
                f"{out.name}: its logits differ from the model's by {difference:.2g} on {clouds} clouds of {points} "
                f"points, expected at most {TOLERANCE:g}; no file was written, try another version of torch."
            )
    return worst


def _time_in_turn(runs: Sequence[Any], inputs: Sequence[Tensor], rounds: int = 5) -> tuple[float, float]:
    """Return the median time of each of two callables in seconds, measured in alternation."""
    seconds: list[list[float]] = [[] for _ in runs]
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for run, taken in zip(runs, seconds, strict=True):
                start = time.perf_counter()
                run(*inputs)
                taken.append(time.perf_counter() - start)
    first, second = (statistics.median(taken[1:]) for taken in seconds)
    return first, second


def _check_packages(out: Path) -> None:
    for package in ("onnx", "onnxscript"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ImportError(f"{out}: writing ONNX needs {package}; {INSTALL}.") from error
