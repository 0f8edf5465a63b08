"""Layers of PointMLP that map each point, or each neighbour of a group, independently (channels last)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn


class ChannelBatchNorm(nn.BatchNorm1d):
    """Batch norm over all axes but the last, for tensors with channels last.

    Shape: ``(..., C)`` -> ``(..., C)``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel over all other axes, or with the running statistics in evaluation.

        Raises:
            ValueError: a single row in training, which has no variance.
        """
        rows = x.reshape(-1, x.shape[-1])
        if self.training and rows.shape[0] == 1:
            raise ValueError(
                f"batch norm: expected at least 2 values per channel in training, got shape {tuple(x.shape)}; use "
                "training batches of at least 2 clouds (train.batch_size in a config), or call model.eval()."
            )
        return super().forward(rows).view(x.shape)

    def line(self, moments: Callable[[], tuple[Tensor, Tensor, int]]) -> tuple[Tensor, Tensor]:
        """Return scale and shift ``(C,)`` such that ``self(x) == scale * x + shift``, from the moments of x alone.

        Args:
            moments: returns mean and biased variance ``(C,)`` of the rows of x, and the number of rows. Called in
                training, where the moments also update the running statistics, and if there are no running statistics.
        """
        mean, variance = self.running_mean, self.running_var
        if self.training or mean is None or variance is None:
            mean, variance, count = moments()
            if self.training and self.track_running_stats:
                self._track(mean.detach(), variance.detach(), count)
        scale = (variance + self.eps).rsqrt()
        scale = scale if self.weight is None else self.weight * scale
        shift = mean * scale
        return scale, -shift if self.bias is None else self.bias - shift

    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Update the running statistics with the moments of ``count`` rows, as torch's batch norm does."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if self.running_mean is None or self.running_var is None or count == 0:
            return
        share: Any = self.momentum
        if share is None:  # the mean over all batches so far
            batches = self.num_batches_tracked
            share = 0.0 if batches is None else 1 / batches.to(self.running_var.dtype)
        unbiased = variance * (count / max(count - 1, 1))
        for running, found in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.lerp_(found.to(running.dtype), share)


def refuse_channels_second(norm: nn.Module) -> None:
    """Raise TypeError if a norm was converted to torch's SyncBatchNorm, which would normalise the wrong axis."""
    if isinstance(norm, nn.SyncBatchNorm):
        raise TypeError(
            "batch norm: torch.nn.SyncBatchNorm takes channels as the second axis, here they are the last; leave out "
            "convert_sync_batchnorm: each device then uses the statistics of its own batch (train.batch_size)."
        )


def recomputing(module: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Return the two contexts of activation checkpointing, for the forward pass and for its recomputation.

    The recomputation leaves the running statistics of batch norms unchanged, which would otherwise count the batch
    twice.
    """
    return nullcontext(), _without_statistics(module)


@contextmanager
def _without_statistics(module: nn.Module) -> Iterator[None]:
    # zero momentum instead of no running statistics, since the recomputation has to save the same tensors for backward
    norms = [m for m in module.modules() if isinstance(m, ChannelBatchNorm)]
    found = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in found:
            norm.momentum, norm.num_batches_tracked = momentum, count


class LinearNormAct(nn.Sequential):
    """Linear map, batch norm and ReLU on the last axis.

    Args:
        in_dim, out_dim: channels before and after.
        bias: whether the linear map has a bias. The norm makes it redundant, but public weights may have it.
        act: whether to apply the ReLU.

    Shape: ``(..., in_dim)`` -> ``(..., out_dim)``.

    Source: Ma et al., PointMLP (ICLR 2022), section 3.2; a 1×1 convolution there.
    """

    def __init__(self, in_dim: int, out_dim: int, *, bias: bool = False, act: bool = True):
        layers: list[nn.Module] = [nn.Linear(in_dim, out_dim, bias=bias), ChannelBatchNorm(out_dim)]
        if act:
            layers.append(nn.ReLU())
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers in turn.

        Raises:
            TypeError: the batch norm was converted to torch's SyncBatchNorm.
        """
        return self.norm_act(self[0](x))

    def norm_act(self, x: Tensor) -> Tensor:
        """Apply the norm and the ReLU to the output of the linear map."""
        for layer in list(self)[1:]:
            refuse_channels_second(layer)
            x = layer(x)
        return x


class PointwiseResidual(nn.Module):
    """Residual block ``relu(x + norm(linear(relu(norm(linear(x))))))`` on the last axis.

    Args:
        dim: channels in and out.
        expansion: hidden channels as a multiple of ``dim``.
        bias: whether the linear maps have a bias.

    Shape: ``(..., dim)`` -> ``(..., dim)``.

    Source: Ma et al., PointMLP (ICLR 2022), section 3.2, the residual point MLP block.
    """

    def __init__(self, dim: int, *, expansion: float = 1.0, bias: bool = False):
        super().__init__()
        hidden = int(dim * expansion)
        self.expand = LinearNormAct(dim, hidden, bias=bias)
        self.contract = LinearNormAct(hidden, dim, bias=bias, act=False)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map each row of ``(..., dim)`` independently."""
        return self.act(x + self.contract(self.expand(x)))
