"""The BiXT encoder, which refines a few learnt latents together with many tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..layers import BidirectionalCross, EncoderBlock, LatentSelfAttention, bidirectional_cross
from ..layers.blocks import CrossFactory
from ..layers.chunks import Chunked
from ..layers.plain import is_known_inside
from ..layers.pointwise import recomputing
from .outputs import EncoderOutput, LayerAttention, Level
from .points import fewest_points

SHARING = ("all", "all_but_first", "none")


def _tie(target: nn.Module, source: nn.Module) -> None:
    """Make ``target`` use the parameters of ``source``, a module of the same structure."""
    for name, module in source.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            setattr(target.get_submodule(name), key, parameter)


class BiXTEncoder(nn.Module):
    """Refine M learnt latents and N tokens layer by layer, at a cost linear in N.

    Each layer applies cross-attention between latents and tokens with an MLP on each, then self-attention of the
    latents with an MLP. A token refinement may come before or after the cross-attention. Unless ``dense``, the last
    layer updates only the latents, since nothing reads its tokens.

    Args:
        depth: number of layers.
        dim: width of the latents.
        token_dim: width of the input tokens (default: ``dim``).
        token_dims: width of the tokens after the refinement of each layer, one per layer (default: all
            ``token_dim``). Only a refinement can change the width.
        num_latents: number of latents M.
        num_heads: number of attention heads; must divide ``dim``.
        mlp_ratio: hidden width of the MLPs as a multiple of the width of their stream.
        drop_path: stochastic depth rate of attentions and MLPs, which rises linearly from 0 to this in the last layer.
        dropout: dropout of attention weights.
        layer_scale: initial value of the learnt scale on every residual branch; None for no scale.
        cross: builder of the cross layer: :func:`~bixt3d.layers.bidirectional_cross` (BiXT),
            :func:`~bixt3d.layers.sequential_cross` or :func:`~bixt3d.layers.iterative_cross` (Perceiver).
        self_attention_per_layer: number of latent self-attentions in each layer (a Perceiver has several).
        share_cross: ``"none"``, ``"all"`` (every layer uses the parameters of the first cross layer) or
            ``"all_but_first"`` (all layers after the first use those of the second).
        refinement: builder ``(in_dim, out_dim) -> module`` of the token refinement, such as
            :class:`~bixt3d.layers.GroupRefinement`; None for none. Its attributes ``reduction`` and
            ``num_neighbors`` count as 1 if it has none.
        refinement_layers: indices of the layers that have a refinement (default: all).
        refine: ``"before"`` or ``"after"`` the cross-attention. With ``"after"``, a one-sided last layer has no
            refinement, since nothing would read the refined tokens.
        dense: whether the last layer updates the tokens too, for heads that read them.
        checkpoint_activations: in training, store only the inputs of each layer and recompute the layer in the
            backward pass. The results are the same. This saves memory and takes about a third more time.
        chunk: number of tokens, over all clouds of a batch, to tokenise and to pass through a bi-directional layer at
            a time, in evaluation without gradient. Without refinements, it bounds the size of every tensor except the
            tokens. None for 4,096 on the CPU, where that is faster, and for all tokens elsewhere.

    Raises:
        ValueError: ``num_heads`` does not divide the width, or options are invalid or conflict.

    Source: Hiller et al., BiXT (arXiv 2402.12138), section 2.3 and appendix C.1.
    """

    def __init__(
        self,
        *,
        depth: int = 12,
        dim: int = 192,
        token_dim: int | None = None,
        token_dims: Sequence[int] | None = None,
        num_latents: int = 64,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.1,
        dropout: float = 0.0,
        layer_scale: float | None = None,
        cross: CrossFactory = bidirectional_cross,
        self_attention_per_layer: int = 1,
        share_cross: str = "none",
        refinement: Callable[[int, int], nn.Module] | None = None,
        refinement_layers: Sequence[int] | None = None,
        refine: str = "before",
        dense: bool = False,
        checkpoint_activations: bool = False,
        chunk: int | None = None,
    ):
        super().__init__()
        token_dim = token_dim or dim
        for name, value in {"depth": depth, "dim": dim, "num_latents": num_latents, "chunk": chunk}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}.")
        if refine not in ("after", "before"):
            raise ValueError(f"refine: expected 'after' or 'before', got {refine!r}.")
        if share_cross not in SHARING:
            raise ValueError(f"share_cross: expected one of {', '.join(SHARING)}, got {share_cross!r}.")
        outside = [i for i in refinement_layers or () if not 0 <= i < depth]
        if outside:
            raise ValueError(f"refinement_layers: expected layers 0 to {depth - 1}, got {outside}.")
        self.dim = dim
        self.dense = dense
        self.refine = refine
        self.checkpoint_activations = checkpoint_activations
        self.chunk = chunk

        refined = set(range(depth) if refinement_layers is None else refinement_layers)
        if refine == "after" and not dense:
            refined.discard(depth - 1)
        if refinement is None:
            refined = set()
        widths = self._token_widths(depth, token_dim, token_dims, refined)

        self.latents = nn.Parameter(torch.empty(1, num_latents, dim))
        self.blocks = nn.ModuleList()
        self.refinements = nn.ModuleList()
        for i in range(depth):
            options: dict[str, Any] = {
                "num_heads": num_heads,
                "mlp_ratio": mlp_ratio,
                "drop_path": drop_path * i / max(depth - 1, 1),
                "layer_scale": layer_scale,
                "dropout": dropout,
            }
            cross_dim = widths[i + 1] if refine == "before" else widths[i]
            layer = cross(dim, cross_dim, one_sided=not dense and i == depth - 1, **options)
            attention: list[nn.Module] = [
                LatentSelfAttention(dim, **options) for _ in range(self_attention_per_layer)
            ]
            self.blocks.append(EncoderBlock(layer, attention))
            self.refinements.append(
                refinement(widths[i], widths[i + 1]) if refinement and i in refined else nn.Identity()
            )
        self._share_cross(share_cross)
        self.share_cross = share_cross
        self.token_dim = token_dim
        self.level_dims = tuple(widths)
        for module in self.modules():
            if isinstance(module, Chunked):
                module.chunk = chunk
        nn.init.trunc_normal_(self.latents, std=0.02)

    @staticmethod
    def _token_widths(
        depth: int, token_dim: int, token_dims: Sequence[int] | None, refined: set[int]
    ) -> list[int]:
        """Return the token widths before the first layer and after the refinement of each layer."""
        if token_dims is None:
            return [token_dim] * (depth + 1)
        if len(token_dims) != depth:
            raise ValueError(
                f"token_dims: expected one width for each of the {depth} layers, got {len(token_dims)}."
            )
        widths = [token_dim, *token_dims]
        for i in range(depth):
            if widths[i + 1] != widths[i] and i not in refined:
                raise ValueError(
                    f"token_dims: layer {i} changes the width from {widths[i]} to {widths[i + 1]}, but has no "
                    "refinement to do so; keep the width or give the layer a refinement."
                )
        return widths

    def _share_cross(self, share_cross: str) -> None:
        if share_cross == "none":
            return
        first = 0 if share_cross == "all" else 1
        for block in self.blocks[first + 1 :]:
            if type(block.cross) is not type(self.blocks[first].cross):  # type: ignore[union-attr]
                raise ValueError(
                    f"share_cross={share_cross!r}: the one-sided last layer has other parameters than the rest; "
                    "share only iterative attention, or build the encoder with dense=True."
                )
            _tie(block.cross, self.blocks[first].cross)  # type: ignore[arg-type, union-attr]

    @property
    def _groupings(self) -> list[tuple[int, int]]:
        """Number of neighbours and reduction of each refinement, 1 by default."""
        return [(getattr(x, "num_neighbors", 1), getattr(x, "reduction", 1)) for x in self.refinements]

    @property
    def min_points(self) -> int:
        """Minimum number of tokens that every refinement accepts."""
        return fewest_points(self._groupings)

    @property
    def reduction(self) -> int:
        """Factor by which the number of tokens shrinks: N tokens become about ``N // reduction``."""
        return math.prod(reduction for _, reduction in self._groupings)

    @property
    def out_token_dim(self) -> int:
        """Width of the output tokens."""
        return self.level_dims[-1]

    def freeze_unread_latents(self) -> None:
        """Freeze the parameters that only affect the last layer's latents, for heads that read only tokens.

        These parameters never get a gradient, and distributed training would wait for it.
        """
        last = self.blocks[-1]
        unread: list[nn.Module] = [last.self_attention]  # type: ignore[list-item]
        if isinstance(last.cross, BidirectionalCross) and self.share_cross == "none":
            unread += [last.cross.latent_branch, last.cross.latent_mlp, last.cross.attention.latent_proj]
        for module in unread:
            module.requires_grad_(False)

    def forward(
        self,
        tokens: Tensor,
        centers: Tensor,
        *,
        latent_shift: Tensor | None = None,
        return_attention: bool = False,
        return_levels: bool = False,
        overwrite: bool = False,
    ) -> EncoderOutput:
        """Encode ``(B, N, token_dim)`` tokens at ``(B, N, 3)`` centers.

        Args:
            tokens: ``(B, N, token_dim)``.
            centers: ``(B, N, 3)`` xyz of the tokens, read only by refinements.
            latent_shift: ``(B, 1, dim)``, added to the learnt latents of each cloud.
            return_attention: whether to return the attention maps of every layer.
            return_levels: whether to return the tokens before the first layer and after each layer.
            overwrite: whether ``tokens`` may be overwritten in place when no gradient is recorded.
        """
        latents = self.latents if latent_shift is None else self.latents + latent_shift
        levels = [Level(tokens, centers)] if return_levels else []
        neighbor_index: Tensor | None = None
        attention: list[LayerAttention] = []
        run = self._checkpointed if self.checkpoint_activations and self.training else self._layer
        # Without a gradient, nothing else reads a layer's tokens, so the next layer may overwrite them.
        kept = None if overwrite else tokens
        needed = torch.is_grad_enabled() or torch.compiler.is_compiling() or return_levels
        forgets = not needed and is_known_inside(self)
        for i in range(len(self.blocks)):
            state = (latents, tokens, centers, neighbor_index)
            latents, tokens, centers, neighbor_index, maps = run(
                i, *state, return_attention, forgets and tokens is not kept
            )
            if maps is not None:
                attention.append(maps)
            if return_levels:
                levels.append(Level(tokens, centers))
        return EncoderOutput(
            latents,
            tokens,
            centers,
            attention if return_attention else None,
            levels if return_levels else None,
        )

    def _layer(
        self,
        i: int,
        latents: Tensor,
        tokens: Tensor,
        centers: Tensor,
        neighbor_index: Tensor | None,
        return_attention: bool,
        overwrite: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, LayerAttention | None]:
        """Apply the refinement and the block of layer ``i``. With ``overwrite``, ``tokens`` may be overwritten."""
        refinement = self.refinements[i]
        refines = not isinstance(refinement, nn.Identity)
        if refines and self.refine == "before":
            tokens, centers, neighbor_index = refinement(tokens, centers, neighbor_index)
        latents, tokens, maps = self.blocks[i](
            latents, tokens, return_attention=return_attention, overwrite=overwrite
        )
        attention = None if maps is None else LayerAttention(maps, centers)
        if refines and self.refine == "after":
            tokens, centers, neighbor_index = refinement(tokens, centers, neighbor_index)
        return latents, tokens, centers, neighbor_index, attention

    def _checkpointed(self, *arguments: Any) -> Any:
        """Apply a layer and recompute its activations in the backward pass."""
        if torch.compiler.is_compiling():  # the compiler's partitioner does not update buffers twice
            return checkpoint(self._layer, *arguments, use_reentrant=False)
        return checkpoint(self._layer, *arguments, use_reentrant=False, context_fn=lambda: recomputing(self))
