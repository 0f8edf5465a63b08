"""Layers of PointMLP that see every point, or every neighbour of a group, alone (channels last)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn


class ChannelBatchNorm(nn.BatchNorm1d):
    """Batch norm over every axis but the last, so that channels may stay last.

    Shape: ``(..., C)`` -> ``(..., C)``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel over all other axes (running statistics in evaluation).

        Raises:
            ValueError: a single row in training, which has no variance.
        """
        rows = x.reshape(-1, x.shape[-1])
        if self.training and rows.shape[0] == 1:
            raise ValueError(
                f"batch norm: expected at least 2 values of each channel in training, got shape {tuple(x.shape)}; give "
                "at least 2 clouds to a training batch (train.batch_size in a config), or call model.eval()."
            )
        return super().forward(rows).view(x.shape)

    def line(self, moments: Callable[[], tuple[Tensor, Tensor, int]]) -> tuple[Tensor, Tensor]:
        """Return scale and shift ``(C,)`` for which ``self(x) == scale * x + shift``, without x itself.

        Args:
            moments: returns mean and biased variance ``(C,)`` of the rows of x, and their number; called in
                training, and where there are no running statistics, which they enter as in the call itself.
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
        """Let the moments of ``count`` rows enter the running statistics, as torch's own batch norm does."""
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
    """Raise TypeError where a norm was turned into torch's SyncBatchNorm, which would normalise another axis."""
    if isinstance(norm, nn.SyncBatchNorm):
        raise TypeError(
            "batch norm: torch.nn.SyncBatchNorm takes channels as the second axis, here they are the last; leave out "
            "convert_sync_batchnorm: each device then takes the statistics of its own batch (train.batch_size)."
        )


def recomputing(module: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Return the contexts of activation checkpointing: of the forward pass, and of its repetition.

    A batch norm would count the batch twice in its running statistics; in the repetition it leaves them alone.
    """
    return nullcontext(), _without_statistics(module)


@contextmanager
def _without_statistics(module: nn.Module) -> Iterator[None]:
    # the running statistics still pass through, since the backward pass saves them, but take up nothing
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
        bias: whether the linear map has one (the norm makes it redundant; public weights may have it).
        act: whether the ReLU follows.

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
            TypeError: the batch norm was turned into torch's SyncBatchNorm.
        """
        return self.norm_act(self[0](x))

    def norm_act(self, x: Tensor) -> Tensor:
        """Apply what follows the linear map, where somebody else has applied that."""
        for layer in list(self)[1:]:
            refuse_channels_second(layer)
            x = layer(x)
        return x


class PointwiseResidual(nn.Module):
    """``relu(x + norm(linear(relu(norm(linear(x))))))`` on the last axis.

    Args:
        dim: channels in and out.
        expansion: hidden channels as a multiple of ``dim``.
        bias: whether the linear maps have one.

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
        """Refine every row of ``(..., dim)`` alone."""
        return self.act(x + self.contract(self.expand(x)))
