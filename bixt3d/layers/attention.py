"""Attention modules: bi-directional cross-attention, one-sided cross-attention and self-attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..ops import attention_weights, bidirectional_attention, latent_attention
from .initial import init_linear


class AttentionMaps(NamedTuple):
    """Attention weights of one layer after the softmax, for each head.

    Attributes:
        latents_from_tokens: ``(B, H, M, N)``, sums to 1 over the N tokens.
        tokens_from_latents: ``(B, H, N, M)``, sums to 1 over the M latents. None in a one-sided layer.
    """

    latents_from_tokens: Tensor
    tokens_from_latents: Tensor | None


def _heads_divide(attention_dim: int, num_heads: int) -> None:
    if num_heads < 1 or attention_dim % num_heads:
        raise ValueError(
            f"num_heads: expected a positive divisor of the attention width {attention_dim}, got {num_heads}."
        )


def _split_heads(x: Tensor, parts: int, num_heads: int) -> tuple[Tensor, ...]:
    """Split ``(B, N, parts*H*D)`` into ``parts`` tensors ``(B, H, N, D)``."""
    return x.unflatten(-1, (parts, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _merge_heads(x: Tensor) -> Tensor:
    """Merge the heads of ``(B, H, N, D)`` into ``(B, N, H*D)``."""
    return x.transpose(1, 2).flatten(2)


def _options(attention: Any) -> dict[str, Any]:
    # options of the op, from the settings of the module
    return {"dropout_p": attention.dropout, "training": attention.training, "backend": attention.backend}


class BidirectionalCrossAttention(nn.Module):
    """Let latents and tokens attend to each other through one similarity matrix.

    Per head, with references ``R`` and values ``V`` from one linear map on each side::

        S = R_latents R_tokens^T / sqrt(head width)
        latents_out = softmax over tokens(S) V_tokens
        tokens_out  = softmax over latents(S^T) V_latents

    each followed by its own linear output map. This takes four linear maps where two cross-attentions take six.

    Args:
        latent_dim, token_dim: widths of the two streams.
        num_heads: number of heads H. Has to divide ``attention_dim``.
        attention_dim: width of references and values over all heads. ``latent_dim`` by default.
        dropout: probability of dropping an attention weight in training.
        backend: backend of :func:`bixt3d.ops.bidirectional_attention`. None picks the first that can run.

    Raises:
        ValueError: ``num_heads`` does not divide ``attention_dim``.

    Source: Hiller et al., BiXT (arXiv 2402.12138), section 2.2.
    """

    def __init__(
        self,
        latent_dim: int,
        token_dim: int,
        *,
        num_heads: int,
        attention_dim: int | None = None,
        dropout: float = 0.0,
        backend: str | None = None,
    ):
        super().__init__()
        attention_dim = attention_dim or latent_dim
        _heads_divide(attention_dim, num_heads)
        self.num_heads = num_heads
        self.dropout = dropout
        self.backend = backend
        self.latent_ref_val = nn.Linear(latent_dim, 2 * attention_dim)
        self.token_ref_val = nn.Linear(token_dim, 2 * attention_dim)
        self.latent_proj = nn.Linear(attention_dim, latent_dim)
        self.token_proj = nn.Linear(attention_dim, token_dim)
        self.apply(init_linear)

    def forward(
        self, latents: Tensor, tokens: Tensor, *, return_attention: bool = False
    ) -> tuple[Tensor, Tensor, AttentionMaps | None]:
        """Exchange information between the streams.

        Args:
            latents: ``(B, M, latent_dim)``, or ``(1, M, latent_dim)`` to share them across the batch.
            tokens: ``(B, N, token_dim)``.
            return_attention: also compute the attention maps, at the cost of ``(B, H, M, N)`` memory.

        Returns:
            Updates ``(B, M, latent_dim)`` and ``(B, N, token_dim)``, to be added by the caller, and the attention maps
            or None.
        """
        latent_side, token_side = self.latent_side(latents), self._token_side(tokens)
        latent_out, token_out = bidirectional_attention(*latent_side, *token_side, **_options(self))
        maps = AttentionMaps(*attention_weights(latent_side[0], token_side[0])) if return_attention else None
        return self.latent_update(latent_out), self._token_update(token_out), maps

    def latent_side(self, latents: Tensor) -> tuple[Tensor, ...]:
        """Return references and values ``(B or 1, H, M, D)`` of the latents."""
        return _split_heads(self.latent_ref_val(latents), 2, self.num_heads)

    def attend_to_part(self, latent_side: Sequence[Tensor], tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Exchange information with a part of the tokens. Returns the same as :func:`bixt3d.ops.stream_attention`."""
        latent_out, token_out, logsumexp = bidirectional_attention(
            *latent_side, *self._token_side(tokens), return_logsumexp=True, **_options(self)
        )
        return latent_out, self._token_update(token_out), logsumexp

    def latent_update(self, latent_out: Tensor) -> Tensor:
        """Compute the latents' update from their attention output ``(B, H, M, D)``."""
        return self.latent_proj(_merge_heads(latent_out))

    @property
    def token_maps(self) -> tuple[nn.Module, ...]:
        """The linear maps of the tokens, before and after attention."""
        return self.token_ref_val, self.token_proj

    def _token_side(self, tokens: Tensor) -> tuple[Tensor, ...]:
        return _split_heads(self.token_ref_val(tokens), 2, self.num_heads)

    def _token_update(self, token_out: Tensor) -> Tensor:
        return self.token_proj(_merge_heads(token_out))


class CrossAttention(nn.Module):
    """Let one stream attend to another, which is not changed.

    Used for the one-sided last layer of a BiXT classifier (the latents are the queries), for each half of sequential
    two-way attention, and for the cross-attention of a Perceiver.

    Args:
        query_dim, context_dim: widths of the stream that is updated and of the one that is read.
        num_heads: number of heads H. Has to divide ``attention_dim``.
        attention_dim: width over all heads. ``query_dim`` by default.
        dropout: probability of dropping an attention weight in training.
        backend: backend of :func:`bixt3d.ops.latent_attention`. None picks the first that can run.

    Raises:
        ValueError: ``num_heads`` does not divide ``attention_dim``.

    Source: Vaswani et al. 2017, section 3.2; Hiller et al., BiXT (arXiv 2402.12138), section 2.3.
    """

    def __init__(
        self,
        query_dim: int,
        context_dim: int,
        *,
        num_heads: int,
        attention_dim: int | None = None,
        dropout: float = 0.0,
        backend: str | None = None,
    ):
        super().__init__()
        attention_dim = attention_dim or query_dim
        _heads_divide(attention_dim, num_heads)
        self.num_heads = num_heads
        self.dropout = dropout
        self.backend = backend
        self.query = nn.Linear(query_dim, attention_dim)
        self.key_val = nn.Linear(context_dim, 2 * attention_dim)
        self.proj = nn.Linear(attention_dim, query_dim)
        self.apply(init_linear)

    def forward(
        self, query: Tensor, context: Tensor, *, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend to the context ``(B, N, context_dim)`` with the queries ``(B or 1, M, query_dim)``.

        Returns:
            The update ``(B, M, query_dim)``, and the attention weights ``(B, H, M, N)`` or None.
        """
        (q,), (k, v) = self.latent_side(query), self._token_side(context)
        out = latent_attention(q, k, v, **_options(self))
        weights = attention_weights(q, k)[0] if return_attention else None
        return self.latent_update(out), weights

    def latent_side(self, query: Tensor) -> tuple[Tensor, ...]:
        """Return the queries ``(B or 1, H, M, D)``, in a tuple of one."""
        return _split_heads(self.query(query), 1, self.num_heads)

    def attend_to_part(self, latent_side: Sequence[Tensor], context: Tensor) -> tuple[Tensor, None, Tensor]:
        """Attend to a part of the context. Returns the same as :func:`bixt3d.ops.stream_attention`."""
        out, logsumexp = latent_attention(
            *latent_side, *self._token_side(context), return_logsumexp=True, **_options(self)
        )
        return out, None, logsumexp

    def latent_update(self, out: Tensor) -> Tensor:
        """Compute the update from the attention output ``(B, H, M, D)``."""
        return self.proj(_merge_heads(out))

    @property
    def token_maps(self) -> tuple[nn.Module, ...]:
        """The linear map of the context."""
        return (self.key_val,)

    def _token_side(self, context: Tensor) -> tuple[Tensor, ...]:
        return _split_heads(self.key_val(context), 2, self.num_heads)


class SelfAttention(nn.Module):
    """Multi-head self-attention over the latents.

    Args:
        dim: width of the latents.
        num_heads: number of heads. Has to divide ``dim``.
        dropout: probability of dropping an attention weight in training.

    Shape: ``(B, M, dim)`` -> ``(B, M, dim)``.

    Raises:
        ValueError: ``num_heads`` does not divide ``dim``.

    Source: Vaswani et al. 2017, section 3.2.
    """

    def __init__(self, dim: int, *, num_heads: int, dropout: float = 0.0):
        super().__init__()
        _heads_divide(dim, num_heads)
        self.num_heads = num_heads
        self.dropout = dropout
        self.backend: str | None = None
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.apply(init_linear)

    def forward(self, x: Tensor) -> Tensor:
        """Let the M latents of each cloud attend to each other."""
        q, k, v = _split_heads(self.qkv(x), 3, self.num_heads)
        out = latent_attention(q, k, v, **_options(self))
        return self.proj(_merge_heads(out))
