"""BiXT for part segmentation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..layers import LatentUpdate, PointTokenizer
from ..layers.chunks import in_chunks
from ..layers.positional import is_plain_tokenizer
from .category import one_hot_category
from .decoder import PointMLPDecoder
from .encoder import BiXTEncoder
from .outputs import EncoderOutput, LayerAttention
from .points import enough_points

CATEGORY_INPUTS = ("head", "latents", "tokens")


class BiXTSegmenter(nn.Module):
    """Segment the parts of point clouds with BiXT, from the refined tokens.

    There are two variants:

    - *Naive*, without a decoder: ``logits[i] = head(norm(token[i]))``. The encoder must keep every point.
    - *Encoder-decoder*: a :class:`~bixt3d.models.PointMLPDecoder` propagates the tokens before the first layer and
      after each layer back to every point. The encoder may reduce the number of points.

    The category of a cloud is encoded as one-hot and enters at ``category_at``:

    - ``"tokens"``: mapped linearly to the token width and added to every input token.
    - ``"latents"``: mapped linearly to the latent width and added to every input latent.
    - ``"head"``: concatenated to the normalised tokens, so that the linear head learns a bias for each part and
      category. With a decoder, it is embedded there, as in PointMLP.

    If ``category_at`` is None or there is only one category, the model has no such input.

    Args:
        num_parts: total number of parts of all categories.
        num_categories: number of categories.
        tokenizer: points ``(B, N, C)`` -> tokens ``(B, N, encoder.token_dim)``.
        encoder: built with ``dense=True``, see :class:`~bixt3d.models.BiXTEncoder`.
        decoder: builder of a :class:`~bixt3d.models.PointMLPDecoder`, called with ``level_dims``, ``num_parts`` and
            ``num_categories``; None for the naive variant.
        category_at: ``"head"``, ``"latents"``, ``"tokens"`` or None.
        dropout: dropout before the linear head. A decoder has its own.

    Raises:
        ValueError: the encoder is not dense, its last layer does not update tokens, it reduces the points without a
            decoder, its token width differs from that of the tokenizer, or ``category_at`` is unknown.

    Source: Hiller et al., BiXT (arXiv 2402.12138), section 3.2 and appendix C.1. Where the category enters the
    naive variant has not been published. Added to the tokens, it reaches every layer.
    """

    def __init__(
        self,
        num_parts: int,
        num_categories: int = 1,
        *,
        tokenizer: PointTokenizer,
        encoder: BiXTEncoder,
        decoder: Callable[..., PointMLPDecoder] | None = None,
        category_at: str | None = "tokens",
        dropout: float = 0.0,
    ):
        super().__init__()
        if tokenizer.dim != encoder.token_dim:
            raise ValueError(
                f"tokenizer.dim: expected the encoder's token width {encoder.token_dim}, got {tokenizer.dim}."
            )
        if not encoder.dense:
            raise ValueError("encoder.dense: expected true, since the head reads the last tokens; got false.")
        if isinstance(encoder.blocks[-1].cross, LatentUpdate):
            raise ValueError(
                "encoder.cross: expected attention that updates its tokens, since the head reads them; use "
                "bidirectional_cross or sequential_cross."
            )
        if category_at is not None and category_at not in CATEGORY_INPUTS:
            raise ValueError(
                f"category_at: expected one of {', '.join(CATEGORY_INPUTS)} or null, got {category_at!r}."
            )
        if decoder is None and encoder.reduction > 1:
            raise ValueError(
                f"encoder.refinement: reduces the points by {encoder.reduction}, but without a decoder every point "
                "needs its token; set its reduction to 1 or give a decoder."
            )
        self.num_parts = num_parts
        self.num_categories = num_categories
        self.category_at = category_at if num_categories > 1 else None
        self.tokenizer = tokenizer
        self.encoder = encoder
        encoder.freeze_unread_latents()
        at_head = self.category_at == "head"
        if self.category_at == "tokens":
            self.category = nn.Linear(num_categories, encoder.token_dim, bias=False)
        elif self.category_at == "latents":
            self.category = nn.Linear(num_categories, encoder.dim, bias=False)
        self.decoder = None
        if decoder is not None:
            self.decoder = decoder(
                level_dims=encoder.level_dims,
                num_parts=num_parts,
                num_categories=num_categories if at_head else None,
            )
            return
        width = encoder.out_token_dim
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width + (num_categories if at_head else 0), num_parts)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def takes_category(self) -> bool:
        """Whether the category is an input of the model. If not, it is ignored and may be None."""
        return self.category_at is not None

    @property
    def in_channels(self) -> int:
        """Number of channels per point: 3 for xyz, 6 for xyz and normal."""
        return self.tokenizer.in_channels

    @property
    def min_points(self) -> int:
        """Minimum number of points per cloud."""
        return self.encoder.min_points

    @property
    def min_batch_size(self) -> int:
        """Minimum number of clouds per training batch. Some batch norms of a decoder see one vector per cloud."""
        return getattr(self.decoder, "min_batch_size", 1)

    def _encode(
        self,
        points: Tensor,
        category: Tensor | None,
        *,
        return_attention: bool = False,
        return_levels: bool = False,
    ) -> EncoderOutput:
        enough_points(points, self.min_points)
        plain, latent_shift = is_plain_tokenizer(self.tokenizer), None
        tokens = in_chunks(self.tokenizer, points, self.encoder.chunk) if plain else self.tokenizer(points)
        if self.category_at in ("latents", "tokens"):
            embedded = self.category(one_hot_category(category, tokens, self.num_categories)).unsqueeze(1)
            if self.category_at == "tokens":
                tokens = tokens + embedded
            else:
                latent_shift = embedded
        return self.encoder(
            tokens,
            points[..., :3].contiguous(),
            latent_shift=latent_shift,
            return_attention=return_attention,
            return_levels=return_levels,
            overwrite=plain,
        )

    def forward_features(
        self, points: Tensor, category: Tensor | None = None, *, return_attention: bool = False
    ) -> tuple[Tensor, Tensor, Tensor] | tuple[Tensor, Tensor, Tensor, list[LayerAttention]]:
        """Encode points without the segmentation head.

        Args:
            points: ``(B, N, C)`` float.
            category: ``(B,)`` int64, needed if :attr:`takes_category`.
            return_attention: whether to compute and return the attention maps of every layer as well.

        Returns:
            latents ``(B, M, D)``, tokens ``(B, S, D')`` and their centers ``(B, S, 3)``. With ``return_attention``,
            also a list with the attention maps and token centers of each layer.
        """
        out = self._encode(points, category, return_attention=return_attention)
        return out[:3] if out.attention is None else (*out[:3], out.attention)

    def forward(self, points: Tensor, category: Tensor | None = None) -> Tensor:
        """Return part logits for every point.

        Args:
            points: ``(B, N, C)`` float.
            category: ``(B,)`` int64, needed if :attr:`takes_category`.

        Returns:
            ``(B, N, num_parts)`` logits over the parts of all categories.

        Raises:
            ValueError: the points have another shape or are fewer than :attr:`min_points`, or a category is missing or
                out of range.
        """
        if self.decoder is not None:
            levels = self._encode(points, category, return_levels=True).levels
            assert levels is not None
            return self.decoder(levels, category)
        tokens = self.dropout(self.norm(self._encode(points, category).tokens))
        if self.category_at == "head":
            one_hot = one_hot_category(category, tokens, self.num_categories)
            tokens = torch.cat((tokens, one_hot.unsqueeze(1).expand(-1, tokens.shape[1], -1)), dim=-1)
        return self.head(tokens)
