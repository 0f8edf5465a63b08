"""Rows of the model benchmark: which model, how it runs and on which inputs. Also builds models and counts FLOPs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bixt3d.config import build, compose
from bixt3d.layers import BidirectionalCrossAttention, CrossAttention
from bixt3d.layers.residual import ResidualMLP
from bixt3d.operations import count_operations
from bixt3d.training.assembly import build_model, build_task

CONFIGS = Path(__file__).parents[1] / "cfgs"
CLASSES, PARTS, CATEGORIES = 40, 50, 16
PAIRED = ("bixt_naive", "bixt_grouping", "bixt_hierarchy", "bixt_seg_naive", "bixt_seg_encdec")
RIVAL = "pointmlp"
# Not a model, but products of a square matrix (width, times), as a measure of what the machine reaches at the time.
MATRIX = "matrix product"
SQUARES = {"cpu": (2048, 20), "cuda": (8192, 50)}
SEGMENTED = 2048  # points per cloud for part segmentation, the least that a hierarchy by 4 takes
# Models of one field are measured in interleaved rounds, so that they can be compared.
FIELDS = (
    ("bixt_naive", "pointmlp", "pointmlp_elite"),
    ("bixt_grouping",),
    ("bixt_hierarchy",),
    ("bixt_sequential", "bixt_iterative"),
    ("pointnet2", "pointnet"),
    ("bixt_seg_naive", "bixt_seg_encdec", "pointmlp_seg"),
)
MODELS = tuple(model for field in FIELDS for model in field)


@dataclass(frozen=True)
class Row:
    """One measurement.

    Args:
        model: name of a file in ``cfgs/model``, path of a custom config (:func:`own_config`), or :data:`MATRIX`.
        how: ``"eager"``, ``"compiled"`` or ``"reference"``. The last is eager with all tokens at once and the backends
            of that name, which store the similarities, both attention maps and the hidden layers, like the authors'
            formulation.
        work: ``"inference"``, or ``"training"`` (forward, backward, AdamW).
        clouds, points: size of a batch.
        precision: ``"fp32"``, ``"bf16"`` (autocast) or ``"int8"`` (linear maps of the blocks, with dynamically
            quantised inputs).
        chunk, checkpoint: ``chunk`` and ``checkpoint_activations`` of the encoder.
    """

    model: str
    how: str
    work: str
    clouds: int
    points: int
    precision: str = "fp32"
    chunk: int | None = None
    checkpoint: bool = False

    def arguments(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def name(self) -> str:
        """Name of the model in tables."""
        path = Path(self.model)
        return path.parent.name if path.name == "config.yaml" else path.stem

    @property
    def label(self) -> str:
        extra = "" if self.chunk is None else f", chunk {self.chunk:,}"
        return f"{self.how}{extra}{', checkpointed' if self.checkpoint else ''}"


def own_config(given: str) -> str:
    """Return the path of a config, given as such or by the folder of a run.

    Raises:
        ValueError: there is no such config.
    """
    path = Path(given, "config.yaml") if Path(given).is_dir() else Path(given)
    if path.suffix != ".yaml" or not path.is_file():
        raise ValueError(
            f"{given}: no such model; expected one of {', '.join(MODELS)}, a config file, or the folder of a run."
        )
    return str(path.resolve())


def is_own(model: str) -> bool:
    return model.endswith(".yaml")


@cache
def _composed(path: str) -> dict[str, Any]:
    return compose(path, config_root=CONFIGS)


@cache
def segments(model: str) -> bool:
    """Return whether a model segments parts. It then takes the category of each cloud too."""
    if not is_own(model):
        return "_seg" in model
    return "num_parts" in _own_task(model).model_arguments()


@cache
def _own_task(path: str) -> Any:
    """Build the task of a config, with as many classes, or categories and parts, as the other models have."""
    config = _composed(path)
    if "PartSegmentation" not in config["task"]["_target_"]:
        return build_task(config, [str(i) for i in range(CLASSES)])
    categories = [str(i * CATEGORIES // PARTS) for i in range(PARTS)]
    parts = [f"{category}/{i}" for i, category in enumerate(categories)]
    return build_task(config, list(dict.fromkeys(categories)), parts)


def throughput(
    models: list[str], hows: list[str], sizes: dict[str, list[tuple[int, int]]], precisions: list[str]
) -> Iterator[tuple[str, list[Row]]]:
    """Yield the title and rows of each table. Custom models join the field of the classifiers or of the segmenters."""
    own = [model for model in models if is_own(model)]
    first, *others, last = FIELDS
    fields = (
        (*first, *(m for m in own if not segments(m))),
        *others,
        (*last, *(m for m in own if segments(m))),
    )
    for work, shapes in sizes.items():
        for clouds, points in shapes:
            for precision in precisions:
                for field in fields:
                    batch = (clouds, points)
                    if segments(field[0]) and points < SEGMENTED:
                        batch = (
                            max(2, clouds * points // SEGMENTED),
                            SEGMENTED,
                        )  # batch norm needs two clouds
                    rows = [
                        Row(model, how, work, *batch, precision)
                        for model in field
                        if model in models
                        for how in hows
                        if how != "reference" or model in PAIRED
                    ]
                    if rows and work == "inference":
                        rows.append(Row(MATRIX, "torch", work, *batch, precision))
                    if rows:
                        yield f"{work}, {batch[0]} x {batch[1]:,} points, {precision}", rows


def scaling(hows: list[str], points: list[int], precisions: list[str]) -> Iterator[tuple[str, list[Row]]]:
    for precision in precisions:
        for count in points:
            rows = [Row("bixt_naive", how, "inference", 1, count, precision) for how in hows]
            yield f"inference, 1 x {count:,} points, {precision}", rows


def latency(models: list[str]) -> Iterator[tuple[str, list[Row]]]:
    for model in ("bixt_naive", "bixt_hierarchy"):
        if model in models:
            rows = [
                Row(model, "eager", "inference", 1, 1024, precision) for precision in ("fp32", "bf16", "int8")
            ]
            yield "latency of one cloud of 1,024 points", rows


def memory(points: int, clouds: int, chunk: int) -> Iterator[tuple[str, list[Row]]]:
    """Yield one large cloud with and without chunks, and a training step with and without checkpointed activations."""
    whole = Row("bixt_naive", "eager", "inference", 1, points)
    yield f"one cloud of {points:,} points", [whole, replace(whole, chunk=chunk)]
    kept = Row("bixt_naive", "eager", "training", clouds, 1024)
    yield f"training step, {clouds} x 1,024 points", [kept, replace(kept, checkpoint=True)]


def make_model(row: Row) -> nn.Module:
    if is_own(row.model):
        return build_model(_composed(row.model), _own_task(row.model))
    overrides = []
    if row.model.startswith("bixt"):
        chunk: int | str = "null" if row.chunk is None else row.chunk
        if row.how == "reference":
            chunk = row.clouds * row.points  # all tokens at once
        overrides = [
            f"encoder.chunk={chunk}",
            f"encoder.checkpoint_activations={str(row.checkpoint).lower()}",
        ]
    node = compose(CONFIGS / "model" / f"{row.model}.yaml", overrides, config_root=CONFIGS)
    sizes = (
        {"num_parts": PARTS, "num_categories": CATEGORIES}
        if segments(row.model)
        else {"num_classes": CLASSES}
    )
    model = build(node, "model", **sizes)
    if row.how == "reference":
        name_backends(model, "reference")
    return model


def name_backends(model: nn.Module, backend: str) -> None:
    for module in model.modules():
        if isinstance(module, BidirectionalCrossAttention | CrossAttention | ResidualMLP):
            module.backend = backend


def operations(row: Row, device: str) -> float | None:
    """Return the floating-point operations of a run, or None for training, where they are not counted."""
    if row.model == MATRIX:
        width, times = SQUARES[device]
        return 2.0 * times * width**3
    return None if row.work == "training" else float(row.clouds * count(row.model, row.points)[1])


def inputs(row: Row, model: Any, device: str) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(row.clouds, row.points, model.in_channels, generator=generator) * 2 - 1
    if not segments(row.model):
        return (points.to(device),)
    return points.to(device), (torch.arange(row.clouds) % CATEGORIES).to(device)


@cache
def count(model: str, points: int) -> tuple[int, int]:
    """Return the number of parameters, and of floating-point operations in a forward pass for one cloud.

    :func:`bixt3d.operations.count_operations` defines which operations count.
    """
    row = Row(model, "reference", "inference", 1, points)
    made = make_model(row)
    return sum(p.numel() for p in made.parameters()), count_operations(made, *inputs(row, made, "cpu"))
