"""What every residual branch of a transformer is made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Drop a residual branch for whole samples, and scale what is kept by ``1 / (1 - rate)``.

    Args:
        rate: probability, in [0, 1), that a sample loses the branch during training.

    Shape: ``(B, ...)`` unchanged. The identity in evaluation and at rate 0.

    Source: Huang et al., Deep Networks with Stochastic Depth (2016), section 3.
    """

    def __init__(self, rate: float = 0.0):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"drop path rate: expected at least 0 and below 1, got {rate}.")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop or keep ``x`` for each sample of its first axis."""
        if self.rate == 0 or not self.training:
            return x
        keep = 1 - self.rate
        mask = torch.empty((x.shape[0],) + (1,) * (x.dim() - 1), dtype=x.dtype, device=x.device)
        return x * (mask.bernoulli_(keep) / keep)

    def extra_repr(self) -> str:
        """Show the rate when printed."""
        return f"rate={self.rate:g}"


class LayerScale(nn.Module):
    """Scale every channel of a residual branch by a learnt factor.

    Source: Touvron et al., Going Deeper with Image Transformers (2021), section 2.
    """

    def __init__(self, dim: int, init: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(init)))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply ``(..., dim)`` by the factors."""
        return x * self.gamma


class Branch(nn.Module):
    """What a residual branch passes before it is added: layer scale, then drop path."""

    def __init__(self, dim: int, *, drop_path: float = 0.0, layer_scale: float | None = None):
        super().__init__()
        self.scale = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path = DropPath(drop_path)

    def acts(self) -> bool:
        """Whether it changes anything now."""
        return not isinstance(self.scale, nn.Identity) or (self.training and self.drop_path.rate > 0)

    def forward(self, x: Tensor) -> Tensor:
        """Scale and drop ``(B, ..., dim)``."""
        return self.drop_path(self.scale(x))


class MLP(nn.Module):
    """Two linear maps with a GELU between them, applied to every token alone.

    Shape: ``(..., dim)`` -> ``(..., dim)``; the hidden width is ``int(dim * ratio)``.
    """

    def __init__(self, dim: int, *, ratio: float = 4.0):
        super().__init__()
        hidden = int(dim * ratio)
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Apply both maps to the last axis."""
        return self.fc2(self.act(self.fc1(x)))
