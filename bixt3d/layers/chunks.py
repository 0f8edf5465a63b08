"""Process tokens in chunks, which bounds the memory of intermediate results and, on a CPU, keeps them in the caches.

Only in evaluation without gradient: a gradient keeps everything anyway, and in a compiled or exported graph a loop
would fix the number of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..ops import join_latents
from .plain import is_known_inside, is_plain

# Default chunk on the CPU. Intermediate results then reuse memory, part of it in the caches. For one cloud of 32,768
# points in float32, the naive classifier takes 1,140 ms with two threads. With chunks of 2,048 tokens it takes
# 1,271 ms, of 8,192 tokens 1,238 ms, and with all tokens at once 1,316 ms.
CPU_CHUNK = 4096


class Chunked(nn.Module):
    """Base class of layers that can process ``chunk`` tokens at a time, counted over all clouds.

    Attributes:
        chunk: tokens at a time. None for :data:`CPU_CHUNK` on the CPU and for all tokens elsewhere.
    """

    chunk: int | None = None

    def chunk_size(self, tokens: Tensor, kinds: dict[nn.Module, type[nn.Module]]) -> int | None:
        """Return how many of the tokens ``(B, N, C)`` to process at a time, or None for all.

        All tokens are processed at once in training, with gradients and while compiling. The same holds if a module of
        the layer has a hook, or is defined outside of the toolkit and torch and so may look at whole clouds. ``kinds``
        are the modules that are not called themselves for chunks, which :func:`is_plain` has to allow.
        """
        # in training, stochastic depth draws once per cloud
        size = None if self.training else _tokens_each(tokens, self.chunk)
        return size if size is not None and is_plain(kinds) and is_known_inside(self) else None


def _tokens_each(tokens: Tensor, chunk: int | None) -> int | None:
    """Return how many of the tokens ``(B, N, C)`` to process at a time, or None for all."""
    if chunk is None and tokens.device.type == "cpu":
        chunk = CPU_CHUNK
    if chunk is None or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    return chunk if tokens.shape[0] * tokens.shape[1] > chunk else None


def in_chunks(function: Callable[[Tensor], Tensor], x: Tensor, chunk: int | None) -> Tensor:
    """Apply a tokenwise function to ``chunk`` tokens at a time.

    ``out[b, n] = function(x)[b, n]``.

    Args:
        function: maps each token independently, ``(B, n, C)`` -> ``(B, n, C')`` for any B and n, without randomness.
            Chunks are passed as one cloud.
        x: ``(B, N, C)``.
        chunk: see :class:`Chunked`.

    Returns:
        ``(B, N, C')``.
    """
    size = _tokens_each(x, chunk)
    if size is None:
        return function(x)
    rows, out = x.reshape(1, -1, x.shape[2]), None
    for start in range(0, rows.shape[1], size):
        part = function(rows[:, start : start + size])
        if out is None:
            out = part.new_empty(1, rows.shape[1], part.shape[2])
        out[:, start : start + size] = part
    assert out is not None
    return out.view(*x.shape[:2], -1)


def attend_in_chunks(
    attend: Callable[[Sequence[Tensor], Tensor], tuple[Tensor, Tensor | None, Tensor]],
    latent_side: Sequence[Tensor],
    tokens: Tensor,
    size: int,
    overwrite: bool = False,
) -> tuple[Tensor, Any]:
    """Attend to ``size`` tokens at a time and combine the results exactly.

    A chunk is several whole clouds, or a part of one.

    Args:
        attend: called with the latent side of some clouds and tokens ``(b, n, C)`` of these clouds. Returns the result
            of the latents ``(b, H, M, D)``, the updated tokens ``(b, n, C')`` or None, and the log-sums of the latents
            ``(b, H, M)``. With ``overwrite``, it may update the tokens in place and return them.
        latent_side: references (and values) of the latents, each ``(B, ...)``, or ``(1, ...)`` if shared by all clouds.
        tokens: ``(B, N, C)``.
        size: from :meth:`Chunked.chunk_size`.
        overwrite: write the updated tokens over ``tokens`` if width and dtype are the same.

    Returns:
        The results of the latents ``(B, H, M, D)`` over all tokens, and the updated tokens ``(B, N, C')`` or None.
    """
    batch, count = tokens.shape[:2]
    clouds_each = max(1, size // count)
    num_parts = math.ceil(count / size)
    tokens_each = math.ceil(count / num_parts)
    latents, updated = [], None
    for first in range(0, batch, clouds_each):
        clouds = slice(first, first + clouds_each)
        side = [x if x.shape[0] == 1 else x[clouds] for x in latent_side]
        parts, logsumexps = [], []
        for start in range(0, count, tokens_each):
            some = slice(start, start + tokens_each)
            old = tokens[clouds, some]
            part, new, logsumexp = attend(side, old)
            parts.append(part)
            logsumexps.append(logsumexp)
            if new is not None:
                if updated is None:
                    fits = overwrite and new.shape[2] == tokens.shape[2] and new.dtype == tokens.dtype
                    updated = tokens if fits else new.new_empty(batch, count, new.shape[2])
                if new is not old:
                    updated[clouds, some] = new
        latents.append(join_latents(parts, logsumexps) if len(parts) > 1 else parts[0])
    return torch.cat(latents), updated
