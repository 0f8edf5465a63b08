"""Backends of max-pooling over groups: ``reference`` and ``torch`` in torch, ``cpu`` in the compiled library.

The gradient of ``amax`` (``reference``) compares the whole input with the result, counts the equal entries and divides
by their number, in several passes over memory. The other two store the position of each maximum, ``cpu`` in one byte.
On 32 x 256 groups of 24 x 64 numbers, forward and backward together on one core of a busy machine, ``cpu`` is 5 to 9
times faster than ``amax`` in float32 and over 20 times in bfloat16, and 1.2 to 1.5 and 3 times faster than ``torch``
(``OMP_NUM_THREADS=1 python benchmarks/pooling.py --rounds 5``).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checks
from . import cpu_features
from .cpu import call
from .cpu_features import TYPES, computed

MAX_NEIGHBORS = 256


def reference(grouped: Tensor) -> Tensor:
    """Pool with torch's ``amax``."""
    return grouped.amax(dim=2)


def pooled_why_not(*inputs: Any, **options: Any) -> str | None:
    """Return why this backend cannot run. It is for the CPU only, since it has not been timed elsewhere."""
    tensors = checks.tensors_among(inputs, options)
    return "needs CPU tensors" if any(x.device.type != "cpu" for x in tensors) else None


def pooled(grouped: Tensor) -> Tensor:
    """Pool with channels first, like PointMLP's code."""
    if not grouped.numel():
        return reference(grouped)  # torch's pooling rejects empty windows
    return F.adaptive_max_pool1d(grouped.flatten(0, 1).mT, 1).view(*grouped.shape[:2], -1)


def cpu_why_not(*inputs: Any, **options: Any) -> str | None:
    """Return why the library cannot run on these inputs, or None."""
    tensors = checks.tensors_among(inputs, options)
    if any(x.ndim == 4 and x.shape[2] > MAX_NEIGHBORS for x in tensors):
        return f"takes at most {MAX_NEIGHBORS} neighbours"
    return cpu_features.why_not(*tensors)


def cpu(grouped: Tensor) -> Tensor:
    """Pool in one pass over memory forward and one backward. Without a gradient, ``amax`` is faster and is used."""
    wanted = torch.is_grad_enabled() and grouped.requires_grad
    return _largest(grouped)[0] if wanted else reference(grouped)


@torch.library.custom_op("bixt3d::cpu_group_max", mutates_args=(), device_types="cpu")
def _largest(grouped: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maxima (B, M, C) and, as uint8, the position in its group of the first neighbour that holds each."""
    num_clouds, num_groups, k, channels = grouped.shape
    rows = computed(grouped)
    out, winner = rows.new_empty(num_clouds, num_groups, channels), _winners(grouped)
    if out.numel():
        call("bixt3d_group_max", rows, num_clouds * num_groups, k, channels, TYPES[rows.dtype], out, winner)
    return out.to(grouped.dtype), winner


def _winners(grouped: Tensor) -> Tensor:
    return grouped.new_empty(grouped.shape[0], grouped.shape[1], grouped.shape[3], dtype=torch.uint8)


@_largest.register_fake
def _(grouped: Tensor) -> tuple[Tensor, Tensor]:
    winner = _winners(grouped)
    return winner.to(grouped.dtype), winner


@torch.library.custom_op("bixt3d::cpu_group_place", mutates_args=(), device_types="cpu")
def _place(rows: Tensor, winner: Tensor, k: int) -> Tensor:
    """Scatter (B, M, C) to the positions of the maxima in (B, M, K, C), zero elsewhere: the transpose of pooling."""
    num_clouds, num_groups, channels = rows.shape
    given = computed(rows)
    out = given.new_empty(num_clouds, num_groups, k, channels)
    if out.numel():
        sizes = (num_clouds * num_groups, k, channels)
        call("bixt3d_group_place", given, winner, *sizes, TYPES[given.dtype], out)
    return out.to(rows.dtype)


@_place.register_fake
def _(rows: Tensor, winner: Tensor, k: int) -> Tensor:
    return rows.new_empty(rows.shape[0], rows.shape[1], k, rows.shape[2])


def _keep_winner(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])
    ctx.k = inputs[0].shape[2]


def _place_gradient(ctx: Any, grad: Tensor, _: Tensor) -> Tensor:
    (winner,) = ctx.saved_tensors
    return _place(grad, winner, ctx.k)


def _keep_places(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _pick_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (winner,) = ctx.saved_tensors
    return grad.gather(2, winner.long().unsqueeze(2)).squeeze(2), None, None


torch.library.register_autograd("bixt3d::cpu_group_max", _place_gradient, setup_context=_keep_winner)
torch.library.register_autograd("bixt3d::cpu_group_place", _pick_gradient, setup_context=_keep_places)
