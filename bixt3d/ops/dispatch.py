"""Choose the backend of each op from one table.

Each row of the table is a backend: its name, the function that computes the op, and a function that returns why it
cannot run. The order of the rows is their priority. Availability is checked when an op is called, never on import.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import checks
from .backends import (
    attention,
    cpu,
    cpu_attention,
    cpu_features,
    group_max,
    mlp,
    neighbors,
    pointnet2_features,
    pointnet2_ops,
    reference,
    stream,
    torch_cluster,
    triton_attention,
    triton_features,
    triton_points,
    triton_runtime,
    vectorized,
)
from .backends.tracing import constant_when_traced, in_transform

# backend=None skips these. torch-cluster is slower than this toolkit in every case of docs/benchmarks.md, and
# pointnet2_ops has not been timed. The results of the Triton kernels have been checked under the interpreter, but their
# speed on a device has not been measured yet (tests marked gpu, benchmarks/ops.py).
BY_NAME_ONLY = ("pointnet2_ops", "torch_cluster", "triton")


def _always(*inputs: object, **options: object) -> str | None:
    return None


@dataclass(frozen=True)
class Backend:
    """One implementation of an op.

    Args:
        name: value of ``backend=`` that selects it.
        run: takes the checked arguments of the op and returns its result.
        why_not: takes the same arguments and the keywords of the op. Returns None if ``run`` would work, else the
            reason as a clause, such as "needs a CUDA device". Called without arguments, it answers for this machine.
        traced: if False, ``backend=None`` skips this row while torch.compile or torch.export traces.
        reverse_only: supports only ``backward`` and ``torch.autograd.grad``, and cannot run under the transforms of
            torch.func or forward-mode AD.
    """

    name: str
    run: Callable[..., Any]
    why_not: Callable[..., str | None] = _always
    traced: bool = True
    reverse_only: bool = False

    def chosen_unnamed(self) -> bool:
        """Return whether ``backend=None`` considers this row now."""
        return self.name not in BY_NAME_ONLY and (self.traced or not torch.compiler.is_compiling())

    def reason(self, *inputs: Any, **options: Any) -> str | None:
        """Return why this row cannot run now, or None."""
        if self.reverse_only and in_transform():
            return "supports only reverse-mode AD, and cannot run under torch.func or forward-mode AD"
        return self.why_not(*inputs, **options)


BACKENDS: dict[str, tuple[Backend, ...]] = {
    "farthest_point_sample": (
        Backend("triton", triton_points.farthest_point_sample, triton_runtime.why_not),
        Backend("cpu", cpu.farthest_point_sample, cpu.why_not),
        Backend("torch", vectorized.farthest_point_sample),
        Backend("reference", reference.farthest_point_sample),
        Backend("pointnet2_ops", pointnet2_ops.farthest_point_sample, pointnet2_ops.why_not),
        Backend("torch_cluster", torch_cluster.farthest_point_sample, torch_cluster.why_not),
    ),
    "knn": (
        Backend("triton", triton_points.knn, triton_points.knn_why_not),
        Backend("cpu", cpu.knn, cpu.why_not),
        Backend("torch", vectorized.knn),
        Backend("reference", reference.knn),
        Backend("torch_cluster", torch_cluster.knn, torch_cluster.knn_why_not),
    ),
    "ball_query": (
        Backend("triton", triton_points.ball_query, triton_runtime.why_not),
        Backend("cpu", cpu.ball_query, cpu.why_not),
        Backend("torch", vectorized.ball_query),
        Backend("reference", reference.ball_query),
        Backend("pointnet2_ops", pointnet2_ops.ball_query, pointnet2_ops.why_not),
    ),
    "three_nn": (
        Backend("triton", triton_points.three_nn, triton_runtime.why_not),
        Backend("cpu", cpu.three_nn, cpu.why_not),
        Backend("torch", vectorized.three_nn),
        Backend("reference", reference.three_nn),
        Backend("pointnet2_ops", pointnet2_ops.three_nn, pointnet2_ops.why_not),
    ),
    "gather_points": (
        Backend("triton", triton_features.gather_points, triton_features.rows_why_not, reverse_only=True),
        Backend("cpu", cpu_features.gather_points, cpu_features.why_not, traced=False, reverse_only=True),
        Backend("torch", vectorized.gather_points),
        Backend("reference", reference.gather_points),
        Backend(
            "pointnet2_ops", pointnet2_features.gather_points, pointnet2_features.why_not, reverse_only=True
        ),
    ),
    "group_points": (
        Backend("triton", triton_features.group_points, triton_features.rows_why_not, reverse_only=True),
        Backend("cpu", cpu_features.group_points, cpu_features.why_not, traced=False, reverse_only=True),
        Backend("torch", vectorized.group_points),
        Backend("reference", reference.group_points),
        Backend(
            "pointnet2_ops", pointnet2_features.group_points, pointnet2_features.why_not, reverse_only=True
        ),
    ),
    "group_max": (
        Backend("cpu", group_max.cpu, group_max.cpu_why_not, traced=False, reverse_only=True),
        Backend("torch", group_max.pooled, group_max.pooled_why_not, traced=False),
        Backend("reference", group_max.reference),
    ),
    "neighbor_sum": (
        Backend("cpu", neighbors.cpu_sum, cpu_features.why_not, traced=False, reverse_only=True),
        Backend("reference", neighbors.reference_sum),
    ),
    "neighbor_max": (
        Backend("cpu", neighbors.cpu_max, neighbors.max_why_not, traced=False, reverse_only=True),
        Backend("reference", neighbors.reference_max),
    ),
    "three_interpolate": (
        Backend("triton", triton_features.three_interpolate, triton_runtime.why_not, reverse_only=True),
        Backend("cpu", cpu_features.three_interpolate, cpu_features.why_not, traced=False, reverse_only=True),
        Backend("torch", vectorized.three_interpolate),
        Backend("reference", reference.three_interpolate),
        Backend(
            "pointnet2_ops",
            pointnet2_features.three_interpolate,
            pointnet2_features.why_not,
            reverse_only=True,
        ),
    ),
    "bidirectional_attention": (
        Backend("triton", triton_attention.attend, triton_attention.why_not, reverse_only=True),
        Backend("cpu", cpu_attention.attend, cpu_attention.why_not, reverse_only=True),
        Backend("sdpa", attention.sdpa, attention.sdpa_why_not),
        Backend("reference", attention.reference),
    ),
    "latent_attention": (
        Backend("cpu", cpu_attention.attend_latents, cpu_attention.latents_why_not, reverse_only=True),
        Backend("sdpa", attention.sdpa_latents, attention.sdpa_why_not),
        Backend("reference", attention.reference_latents),
    ),
    "stream_attention": (
        Backend("cpu", stream.cpu_stream, stream.cpu_why_not, traced=False, reverse_only=True),
        Backend("reference", stream.reference),
    ),
    "residual_mlp": (
        Backend("cpu", mlp.cpu, mlp.cpu_why_not, traced=False, reverse_only=True),
        Backend("reference", mlp.reference),
    ),
}


def run(op: str, backend: str | None, *args: Any, **options: Any) -> Any:
    """Compute ``op`` with the named backend, or with the first that can run.

    Args:
        op: a name in :data:`BACKENDS`.
        backend: name of a backend, or None or "" for the first that can run. A backend that the environment prefers
            (``BIXT3D_PREFER=farthest_point_sample=triton,knn=triton``) is tried before all others. If it cannot run,
            a warning says why, once per message.
        args, options: checked arguments for the backend.

    Returns:
        The result of the backend.

    Raises:
        ValueError: no backend of this op has that name.
        NotImplementedError: the named backend cannot run. It never falls back to another one.
    """
    rows = BACKENDS[op]
    preferred = None if backend else _preferred(op)
    for row in rows:
        if row.name == preferred:
            reason = row.reason(*args, **options)
            if reason is None:
                return row.run(*args, **options)
            _warn_once(f"BIXT3D_PREFER: {op} cannot use backend {preferred!r}, which {reason}")
    candidates = [row for row in rows if (row.name == backend if backend else row.chosen_unnamed())]
    if not candidates:
        checks.unknown_option(f"backend of {op}", backend, [row.name for row in rows])
    reasons = []
    for row in candidates:
        reason = row.reason(*args, **options)
        if reason is None:
            return row.run(*args, **options)
        reasons.append(f"backend {row.name!r} {reason}")
    raise NotImplementedError(
        f"{op} cannot run: {'; '.join(reasons)}; got {_describe(args)}; "
        f"use backend=None for one that can, or see available_backends({op!r})"
    )


@constant_when_traced
def _preferred(op: str) -> str | None:
    """Return the backend that the environment prefers for ``op``: ``BIXT3D_PREFER=knn=triton,...``."""
    named = dict(pair.split("=", 1) for pair in os.environ.get("BIXT3D_PREFER", "").split(",") if "=" in pair)
    for name, wanted in named.items():
        if name not in BACKENDS:
            checks.unknown_option("op in BIXT3D_PREFER", name, BACKENDS)
        if wanted not in [row.name for row in BACKENDS[name]]:
            checks.unknown_option(
                f"backend of {name} in BIXT3D_PREFER", wanted, [r.name for r in BACKENDS[name]]
            )
    return named.get(op)


_warned: set[str] = set()


@constant_when_traced
def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, stacklevel=4)


def available_backends(op_name: str, /, *inputs: Any, **options: Any) -> dict[str, str | None]:
    """List the backends of an op in order of priority, each with the reason why it cannot run.

    Args:
        op_name: the name of a public op, such as "knn".
        inputs: the arguments of the call to check. Without any, the result holds for this machine in general.
        options: keyword arguments of that call, such as ``k=24``. A ``dropout_p`` above 0 counts unless
            ``training=False`` is given too.

    Returns:
        ``{name: None}`` for a backend that can run and ``{name: reason}`` for one that cannot. ``backend=None`` picks
        the first that can run and is not in ``dispatch.BY_NAME_ONLY``.

    Raises:
        ValueError: there is no op of that name.
    """
    if op_name not in BACKENDS:
        checks.unknown_option("op", op_name, BACKENDS)
    return {backend.name: backend.reason(*inputs, **options) for backend in BACKENDS[op_name]}


def _describe(args: tuple[Any, ...]) -> str:
    tensors = [x for x in args if isinstance(x, Tensor)]
    return ", ".join(f"{checks.shape_of(x)} {checks.dtype_name(x.dtype)} on {x.device}" for x in tensors)
