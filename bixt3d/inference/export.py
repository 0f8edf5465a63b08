"""Write the model of a checkpoint for programs without this toolkit: as ONNX, or as a ``torch.export`` program."""

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
TOLERANCE = 1e-4  # of logits, as a share of the largest where that is above 1
TRACED_BACKEND = "sdpa"  # plain tensor operations, where the default may be one of the toolkit's own
INSTALL = "pip install onnx onnxscript onnxruntime, or pip install -e '.[export]'"
NORMALISATION = (
    "xyz minus their mean, divided by the largest distance from it (unit sphere), in float64, then float32"
)
# The coordinates of a cloud whose x, y or z is up, in the order that makes y up: those of bixt3d.io.turn_to_y.
TURNS = {"x": "-y x z", "y": "x y z", "z": "x z -y"}


class Exported(NamedTuple):
    """What was written, and what its check found.

    Attributes:
        path: the file.
        metadata: what the file says about itself.
        difference: largest difference of its logits from the model's; None where it was not checked.
        seconds: time of a batch with onnxruntime and with torch, medians; None but for a checked ONNX file.
        batch: clouds and points of that batch.
    """

    path: Path
    metadata: dict[str, str]
    difference: float | None = None
    seconds: tuple[float, float] | None = None
    batch: tuple[int, int] = (0, 0)


def export_checkpoint(checkpoint: str | Path, out: str | Path, *, trust_code: bool = False) -> Exported:
    """Write the model that a checkpoint serves, with any number of clouds and points, and check the file.

    The file maps ``points (B, N, C)`` float32, and ``category (B,)`` int64 where the model takes it, to
    logits. It is read back and compared with the model on two other sizes than it was traced with, and only
    then takes the place of ``out``.

    Args:
        checkpoint: a ``last.pt`` or ``best.pt``, or a run folder.
        trust_code: let the checkpoint's config name code of your own, see :func:`bixt3d.inference.loading.read_config`.
        out: ``FILE.onnx``, for models on single points; or ``FILE.pt2``, for all. The latter keeps the
            toolkit's own ops as nodes ``bixt3d::...``: import ``bixt3d.ops`` before ``torch.export.load``.

    Raises:
        ValueError: unknown format, no file can be written there, or the config names code of others.
        NotImplementedError: the model is made of ops that ONNX does not have.
        ImportError: onnx or onnxscript is not installed.
        RuntimeError: what was written computes something else than the model.
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
    # in a folder of its own, so that the file has its own name, which a .pt2 holds inside
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.stem}.") as folder:
        file = Path(folder, out.name)
        done = write(predictor, program, metadata, file)
        os.replace(file, out)
    return done._replace(path=out)


def describe(predictor: Predictor, name: str) -> dict[str, str]:
    """Return what a program that runs the model has to know; lists as JSON."""
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
    """Return the fewest points that a written model takes: two of them have to be left at its last level."""
    reduction = getattr(getattr(predictor.model, "encoder", None), "reduction", 1)
    return max(predictor.min_points, 2 * reduction) if reduction > 1 else predictor.min_points


def trace(predictor: Predictor) -> torch.export.ExportedProgram:
    """Trace a model into one graph for any number of clouds, and of points from :func:`fewest_points` on."""
    # many points, so that no level of a hierarchy is down to one, which would count as a fixed size
    inputs = example(predictor, 2, 4 * predictor.num_points + 1)
    clouds = torch.export.Dim("clouds", min=1)
    points = torch.export.Dim("points", min=fewest_points(predictor))
    sizes: list[dict[int, Any]] = [{0: clouds, 1: points}, {0: clouds}]
    # a hierarchy takes whole shares of the points, which a graph can only check when it runs; torch 2.6 has no such way
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
                f"export: torch {torch.__version__} cannot leave checks of sizes to the exported graph, which this "
                "model needs; export with a newer torch, such as 2.13."
            ) from error


def own_ops(program: torch.export.ExportedProgram) -> list[str]:
    """Return the names of the toolkit's own ops in a graph."""
    return sorted({str(n.target) for n in program.graph.nodes if str(n.target).startswith("bixt3d.")})


def example(predictor: Predictor, clouds: int, points: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Draw inputs of a model: clouds in the unit sphere, and categories in turn where it takes them."""
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
    """Keep what the exporter says of itself (packages it could use, what it leaves as it is) to itself."""
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
    """Return the largest difference of logits from the model's on sizes that were not traced."""
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
    """Return the median seconds of each, run in turn."""
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
