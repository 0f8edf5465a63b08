"""Work on so many tokens at a time: what is made in between is bounded, and on a CPU stays in its caches.

Only in evaluation without gradient: a gradient needs everything anyway, and in a compiled or exported graph a loop
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

# Tokens at a time on the CPU. What is made of them then lies in memory that has been used before, partly in the
# caches. The naive classifier on one cloud of 32,768 points, two threads: 1,140 ms, with 2,048 tokens 1,271, with 8,192
# 1,238 and with all 1,316 (float32).
CPU_CHUNK = 4096


class Chunked(nn.Module):
    """A layer that can take ``chunk`` tokens at a time, counted over all clouds.

    Attributes:
        chunk: None for :data:`CPU_CHUNK` on the CPU and all tokens elsewhere.
    """

    chunk: int | None = None

    def chunk_size(self, tokens: Tensor, kinds: dict[nn.Module, type[nn.Module]]) -> int | None:
        """Return how many of the tokens ``(B, N, C)`` to take at a time; None for all, as one who watches wants.

        So does a module of one's own inside, which may look at whole clouds.
        ``kinds`` are the modules whose own call would be passed over in chunks, which :func:`is_plain` has to allow.
        """
        # in training, stochastic depth draws once for each cloud
        size = None if self.training else _tokens_each(tokens, self.chunk)
        return size if size is not None and is_plain(kinds) and is_known_inside(self) else None


def _tokens_each(tokens: Tensor, chunk: int | None) -> int | None:
    """Return how many of the tokens ``(B, N, C)`` to take at a time, or None where they go through at once."""
    if chunk is None and tokens.device.type == "cpu":
        chunk = CPU_CHUNK
    if chunk is None or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    return chunk if tokens.shape[0] * tokens.shape[1] > chunk else None


def in_chunks(function: Callable[[Tensor], Tensor], x: Tensor, chunk: int | None) -> Tensor:
    """Apply a function of every token alone to ``chunk`` tokens at a time.

    ``out[b, n] = function(x)[b, n]``.

    Args:
        function: ``(B, n, C)`` -> ``(B, n, C')`` for any B and n, without randomness; chunks come as one long cloud.
        x: ``(B, N, C)``.
        chunk: as in :class:`Chunked`.

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
    """Let latents meet ``size`` tokens at a time, exactly: several whole clouds, or parts of one.

    Args:
        attend: called with the latents' side of some clouds and tokens ``(b, n, C)`` of these. It returns the result
            of the latents ``(b, H, M, D)``, the updated tokens ``(b, n, C')`` or None, and the log-sums of the latents
            ``(b, H, M)``; with ``overwrite`` it may write the tokens over those it got and return them.
        latent_side: what the latents bring, ``(B, ...)``, or ``(1, ...)`` where it serves every cloud.
        tokens: ``(B, N, C)``.
        size: of :meth:`Chunked.chunk_size`.
        overwrite: write the updated tokens over ``tokens``, chunk by chunk, where they are as wide.

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
