"""BiXT for shape classification."""

from __future__ import annotations

from torch import Tensor, nn

from ..layers import PointTokenizer
from ..layers.chunks import in_chunks
from ..layers.positional import is_plain_tokenizer
from .encoder import BiXTEncoder
from .outputs import LayerAttention
from .points import enough_points


class BiXTClassifier(nn.Module):
    """Classify point clouds with BiXT, from the mean of the refined latents.

    ``logits = head(norm(mean over latents(encoder(tokenizer(points)))))``

    Args:
        num_classes: number of classes.
        tokenizer: points ``(B, N, C)`` -> tokens ``(B, N, encoder.token_dim)``.
        encoder: latents and tokens, see :class:`~bixt3d.models.BiXTEncoder`.
        dropout: dropout before the linear head.

    Raises:
        ValueError: tokenizer and encoder differ in token width.

    Source: Hiller et al., BiXT (arXiv 2402.12138), section 3.2 and appendix C.1.
    """

    def __init__(
        self, num_classes: int, *, tokenizer: PointTokenizer, encoder: BiXTEncoder, dropout: float = 0.0
    ):
        super().__init__()
        if tokenizer.dim != encoder.token_dim:
            raise ValueError(
                f"tokenizer.dim: expected the encoder's token width {encoder.token_dim}, got {tokenizer.dim}."
            )
        self.num_classes = num_classes
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.norm = nn.LayerNorm(encoder.dim, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.dim, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def in_channels(self) -> int:
        """Number of channels per point: 3 for xyz, 6 for xyz and normal."""
        return self.tokenizer.in_channels

    @property
    def min_points(self) -> int:
        """Minimum number of points per cloud."""
        return self.encoder.min_points

    def _encode(self, points: Tensor, return_attention: bool):
        enough_points(points, self.min_points)
        plain = is_plain_tokenizer(self.tokenizer)
        tokens = in_chunks(self.tokenizer, points, self.encoder.chunk) if plain else self.tokenizer(points)
        return self.encoder(tokens, points[..., :3], return_attention=return_attention, overwrite=plain)

    def forward_features(
        self, points: Tensor, *, return_attention: bool = False
    ) -> tuple[Tensor, Tensor, Tensor] | tuple[Tensor, Tensor, Tensor, list[LayerAttention]]:
        """Encode points without the classification head.

        Args:
            points: ``(B, N, C)`` float.
            return_attention: whether to compute and return the attention maps of every layer as well.

        Returns:
            latents ``(B, M, D)``, tokens ``(B, S, D')`` and their centers ``(B, S, 3)``. With ``return_attention``,
            also a list with the attention maps and token centers of each layer.
        """
        out = self._encode(points, return_attention)
        return out[:3] if out.attention is None else (*out[:3], out.attention)

    def forward(self, points: Tensor) -> Tensor:
        """Return logits ``(B, num_classes)`` for points ``(B, N, C)``.

        Raises:
            ValueError: the points have another shape, or are fewer than :attr:`min_points`.
        """
        latents = self._encode(points, False).latents
        return self.head(self.dropout(self.norm(latents.mean(dim=1))))
