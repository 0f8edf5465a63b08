"""Parts of the residual branches of a transformer: norm, MLP, layer scale and drop path."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops import residual_mlp
from .initial import init_linear
from .plain import is_plain

NORM_EPS = 1e-6


class DropPath(nn.Module):
    """Drop a residual branch for random samples, and scale it by ``1 / (1 - rate)`` for the others.

    Args:
        rate: probability, in [0, 1), of dropping the branch of a sample in training.

    Shape: ``(B, ...)`` unchanged. The identity in evaluation and at rate 0.

    Raises:
        ValueError: ``rate`` is not in [0, 1).

    Source: Huang et al., Deep Networks with Stochastic Depth (2016), section 3.
    """

    def __init__(self, rate: float = 0.0):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"drop path rate: expected at least 0 and below 1, got {rate}.")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop or scale each sample along the first axis of ``x``."""
        factors = self.draw(x)
        return x if factors is None else x * factors.view(-1, *[1] * (x.dim() - 1))

    def draw(self, x: Tensor) -> Tensor | None:
        """Draw a factor for each sample, 0 or ``1 / (1 - rate)``, as ``(B,)`` of the dtype of ``x``. None means 1."""
        if self.rate == 0 or not self.training:
            return None
        keep = 1 - self.rate
        return torch.empty(x.shape[0], dtype=x.dtype, device=x.device).bernoulli_(keep) / keep

    def extra_repr(self) -> str:
        """Show the rate when printed."""
        return f"rate={self.rate:g}"


class LayerScale(nn.Module):
    """Scale each channel of a residual branch by a learnt factor, initialised to ``init``.

    Source: Touvron et al., Going Deeper with Image Transformers (2021), section 2.
    """

    def __init__(self, dim: int, init: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(init)))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply ``(..., dim)`` by the factors."""
        return x * self.gamma


class Branch(nn.Module):
    """Apply layer scale, then drop path, to the output of a residual branch before it is added."""

    def __init__(self, dim: int, *, drop_path: float = 0.0, layer_scale: float | None = None):
        super().__init__()
        self.scale = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Scale and drop ``(B, ..., dim)``."""
        return self.drop_path(self.scale(x))


class MLP(nn.Module):
    """Two linear maps with a GELU between them, applied to each token.

    Shape: ``(..., dim)`` -> ``(..., dim)``; the hidden width is ``int(dim * ratio)``.
    """

    def __init__(self, dim: int, *, ratio: float = 4.0):
        super().__init__()
        hidden = int(dim * ratio)
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)
        self.apply(init_linear)

    def forward(self, x: Tensor) -> Tensor:
        """Apply both maps to the last axis."""
        return self.fc2(self.act(self.fc1(x)))


def norm(dim: int) -> nn.LayerNorm:
    """Build the layer normalisation of ``dim`` channels with which each residual branch begins."""
    return nn.LayerNorm(dim, eps=NORM_EPS)


class ResidualMLP(nn.Module):
    """MLP with a norm and a residual, ``x + branch(mlp(norm(x)))``, on the last axis.

    Attributes:
        backend: backend of :func:`bixt3d.ops.residual_mlp`, which computes this layer unless there is a layer scale,
            or a part was replaced, has a hook or lacks a bias. None picks the first that can run.
    """

    backend: str | None = None

    def __init__(
        self, dim: int, *, mlp_ratio: float = 4.0, drop_path: float = 0.0, layer_scale: float | None = None
    ):
        super().__init__()
        self.norm = norm(dim)
        self.mlp = MLP(dim, ratio=mlp_ratio)
        self.branch = Branch(dim, drop_path=drop_path, layer_scale=layer_scale)

    def forward(self, x: Tensor, update: Tensor | None = None, *, overwrite: bool = False) -> Tensor:
        """Map each row of ``(B, N, dim)`` independently, after adding ``update`` of the same shape, if given.

        ``overwrite`` allows the result to be written over ``x``, which is then returned. Only without gradient.
        """
        if torch.compiler.is_compiling() or not self._is_plain():
            x = x if update is None else x + update
            return x + self.branch(self.mlp(self.norm(x)))
        first, second = self.mlp.fc1, self.mlp.fc2
        parameters = (self.norm.weight, self.norm.bias, first.weight, first.bias, second.weight, second.bias)
        scale, eps = self.branch.drop_path.draw(x), self.norm.eps
        out = x if overwrite and x.is_contiguous() else None
        return residual_mlp(
            x, *parameters, update=update, scale=scale, eps=eps, out=out, backend=self.backend
        )

    def _is_plain(self) -> bool:
        """Return whether the op computes exactly this layer: no layer scale, no part replaced, hooked or missing."""
        if not is_plain({self.norm: nn.LayerNorm, self.mlp: MLP, self.branch: Branch}):
            return False
        kinds: dict[nn.Module, type[nn.Module]] = {self.mlp.fc1: nn.Linear, self.mlp.act: nn.GELU}
        kinds |= {self.mlp.fc2: nn.Linear, self.branch.scale: nn.Identity, self.branch.drop_path: DropPath}
        return (
            is_plain(kinds)
            and self.mlp.act.approximate == "none"
            and all(part.bias is not None for part in (self.norm, self.mlp.fc1, self.mlp.fc2))
        )
