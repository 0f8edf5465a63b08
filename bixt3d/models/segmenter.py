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
    """Score the parts of every point from the refined tokens.

    *Naive*, without a decoder: ``logits[i] = head(norm(token[i]))``; the encoder keeps every point.
    *Encoder-decoder*: the tokens before the first layer and after each go through a
    :class:`~bixt3d.models.PointMLPDecoder` back to every point; the encoder may reduce.

    The category of a cloud, where it is known, enters as a one-hot:

    - ``"tokens"``: mapped to the token width and added to every token that comes in;
    - ``"latents"``: mapped to the latent width and added to every latent that comes in;
    - ``"head"``: concatenated to the normed tokens, which a linear head turns into a bias for each part and
      category; with a decoder, embedded there, as PointMLP does.

    Nothing of this is built where ``category_at`` is None or there is one category.

    Args:
        num_parts: number of parts, over all categories.
        num_categories: number of categories.
        tokenizer: points ``(B, N, C)`` -> tokens ``(B, N, encoder.token_dim)``.
        encoder: built with ``dense=True``, see :class:`~bixt3d.models.BiXTEncoder`.
        decoder: completes :class:`~bixt3d.models.PointMLPDecoder`; None for the naive segmenter.
        category_at: ``"head"``, ``"latents"``, ``"tokens"`` or None.
        dropout: dropout before the linear head; a decoder has its own.

    Raises:
        ValueError: the encoder is not dense, reduces the points without a decoder, or does not agree with
            the tokenizer on the token width; or ``category_at`` is unknown.

    Source: Hiller et al., BiXT (arXiv 2402.12138), section 3.2 and appendix C.1. Where the category enters
    the naive segmenter is not published; at the tokens it reaches every layer.
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
        """Whether the model reads the category; else it takes any, None too, and passes it over."""
        return self.category_at is not None

    @property
    def in_channels(self) -> int:
        """Channels of a point: 3 for xyz, 6 for xyz and normal."""
        return self.tokenizer.in_channels

    @property
    def min_points(self) -> int:
        """The fewest points a cloud may have."""
        return self.encoder.min_points

    @property
    def min_batch_size(self) -> int:
        """The fewest clouds of a training batch: a decoder may have batch norms that see one vector of each."""
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
        """Encode points without scoring their parts.

        Args:
            points: ``(B, N, C)`` float.
            category: ``(B,)`` int64, where :attr:`takes_category`.
            return_attention: return the attention maps of every layer as well; they are not computed
                otherwise.

        Returns:
            latents ``(B, M, D)``, tokens ``(B, S, D')`` and their centers ``(B, S, 3)``; with
            ``return_attention`` a fourth item, a list with the maps and token centers of each layer.
        """
        out = self._encode(points, category, return_attention=return_attention)
        return out[:3] if out.attention is None else (*out[:3], out.attention)

    def forward(self, points: Tensor, category: Tensor | None = None) -> Tensor:
        """Score the parts of ``(B, N, C)`` points.

        Args:
            points: ``(B, N, C)`` float.
            category: ``(B,)`` int64, where :attr:`takes_category`.

        Returns:
            ``(B, N, num_parts)`` logits over the parts of all categories.

        Raises:
            ValueError: points of another shape or fewer than :attr:`min_points`, or a missing or impossible
                category.
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
