"""Turn coordinates into tokens with a sinusoidal encoding of each axis and a linear map."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .initial import init_linear
from .plain import is_plain


class SinusoidalEncoding(nn.Module):
    r"""Encode each coordinate axis by sines and cosines with geometrically spaced periods.

    For axis ``a`` and frequency ``i`` of ``dims_per_axis / 2``::

        angle[i] = coordinate[a] * scale / temperature ** (2 * i / dims_per_axis)
        out[a * dims_per_axis + 2 * i]     = sin(angle[i])
        out[a * dims_per_axis + 2 * i + 1] = cos(angle[i])

    so the periods range from ``2 pi / scale`` (finest) to almost ``temperature`` times that (coarsest), in
    the unit of the coordinates. There are no learnt parameters.

    Args:
        num_axes: number of coordinates of a point (3 for xyz, 6 for xyz and normal).
        dims_per_axis: even number of encoding dimensions per axis.
        scale: angle in radians of a coordinate of 1 at the finest period.
        temperature: factor over which the periods range, but for one step. Above 1, later periods are coarser.

    Raises:
        ValueError: a count is not positive, ``dims_per_axis`` is odd, or ``scale`` or ``temperature`` is
            not a positive finite number.

    Source: Hiller et al., BiXT (arXiv 2402.12138), section 2, "Positional encodings"; Vaswani et al. 2017,
    section 3.5. The paper does not give scale and temperature for point coordinates. ``docs/search.md`` has the
    measurements behind the values in ``cfgs/model``.
    """

    def __init__(
        self, num_axes: int = 3, *, dims_per_axis: int = 32, scale: float = 1.0, temperature: float = 10000.0
    ):
        super().__init__()
        if num_axes < 1:
            raise ValueError(f"num_axes: expected at least 1, got {num_axes}.")
        if dims_per_axis < 2 or dims_per_axis % 2:
            raise ValueError(f"dims_per_axis: expected an even number of at least 2, got {dims_per_axis}.")
        for name, value in (("scale", scale), ("temperature", temperature)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}: expected a positive finite number, got {value}.")
        self.num_axes = num_axes
        self.dims_per_axis = dims_per_axis
        self.scale = float(scale)
        self.temperature = float(temperature)
        self.frequency: Tensor
        self.register_buffer("frequency", self._frequencies(), persistent=False)

    def _frequencies(self) -> Tensor:
        exponent = torch.arange(0, self.dims_per_axis, 2, dtype=torch.float64) / self.dims_per_axis
        return (self.scale / self.temperature**exponent).float()

    def _apply(self, fn: Callable, recurse: bool = True) -> SinusoidalEncoding:
        """Move to another device. The frequencies stay float32 under ``model.half()``, since large angles need it."""
        super()._apply(fn, recurse)
        self.frequency = self._frequencies().to(self.frequency.device)
        return self

    @property
    def out_dim(self) -> int:
        """Width of the encoding: ``num_axes * dims_per_axis``."""
        return self.num_axes * self.dims_per_axis

    def forward(self, coordinates: Tensor) -> Tensor:
        """Encode ``(..., num_axes)`` coordinates as ``(..., out_dim)``, differentiable.

        The result is float64 for float64 coordinates and float32 otherwise.

        Raises:
            ValueError: another number of coordinates per point.
        """
        if coordinates.shape[-1] != self.num_axes:
            raise ValueError(
                f"coordinates: expected {self.num_axes} per point in the last axis, got shape "
                f"{tuple(coordinates.shape)}."
            )
        # at least float32, even under autocast: half precision cannot represent large angles
        coordinates = coordinates.to(torch.promote_types(coordinates.dtype, torch.float32))
        angle = coordinates.unsqueeze(-1) * self.frequency
        return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-3)

    def extra_repr(self) -> str:
        """Show the settings when printed."""
        return (
            f"num_axes={self.num_axes}, dims_per_axis={self.dims_per_axis}, scale={self.scale:g}, "
            f"temperature={self.temperature:g}"
        )


class PointTokenizer(nn.Module):
    """Turn every point into a token: sinusoidal encoding of its coordinates, then one linear map.

    Args:
        dim: token width D.
        in_channels: 3 for xyz, 6 for xyz and unit normal; every channel is an axis of the encoding.
        dims_per_axis, scale, temperature: see :class:`SinusoidalEncoding`. The defaults are those of the configs, for
            points in [-1, 1].

    Shape: ``(B, N, in_channels)`` float -> ``(B, N, D)``.

    Source: Hiller et al., BiXT (arXiv 2402.12138), section 2, "Input tokenization".
    """

    def __init__(
        self,
        dim: int,
        *,
        in_channels: int = 3,
        dims_per_axis: int = 32,
        scale: float = 25.0,
        temperature: float = 100.0,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.dim = dim
        self.encoding = SinusoidalEncoding(
            in_channels, dims_per_axis=dims_per_axis, scale=scale, temperature=temperature
        )
        self.proj = nn.Linear(self.encoding.out_dim, dim)
        self.apply(init_linear)

    def forward(self, points: Tensor) -> Tensor:
        """Tokenise ``(B, N, in_channels)`` points as ``(B, N, D)``.

        Raises:
            ValueError: points of another shape.
        """
        check_channels(points, self.in_channels)
        encoded = self.encoding(points)
        # also works for a replaced projection: adapters keep weights in submodules, quantised maps have no parameters
        dtypes = [p.dtype for p in self.proj.parameters() if p.is_floating_point()]
        return self.proj(encoded.to(dtypes[0] if dtypes else torch.float32))


def check_channels(points: Tensor, in_channels: int) -> None:
    """Check that points have shape ``(B, N, in_channels)``.

    Raises:
        ValueError: they have another shape.
    """
    if points.dim() != 3 or points.shape[-1] != in_channels:
        kind = {3: " with xyz", 6: " with xyz and normal"}.get(in_channels, "")
        raise ValueError(f"points: expected shape (B, N, {in_channels}){kind}, got {tuple(points.shape)}.")


def is_plain_tokenizer(tokenizer: nn.Module) -> bool:
    """Return whether a tokeniser is an unchanged :class:`PointTokenizer`.

    That maps each point independently and keeps no token, so points may be split into chunks and the encoder may
    overwrite the tokens. Any other tokeniser may look at neighbours or at the whole cloud.
    """
    return isinstance(tokenizer, PointTokenizer) and is_plain(
        {tokenizer: PointTokenizer, tokenizer.encoding: SinusoidalEncoding, tokenizer.proj: nn.Linear}
    )
