"""The BiXT encoder: a few learnt latents and many tokens, refined together."""

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

    Each layer is cross-attention between the streams with an MLP on both, then self-attention of the
    latents with an MLP; a token refinement may come before or after it. Unless ``dense``, the last layer
    updates the latents alone, since nothing reads its tokens.

    Args:
        depth: number of layers.
        dim: width of the latents.
        token_dim: width of the tokens that come in (``dim`` by default).
        token_dims: width of the tokens after the refinement of each layer, ``depth`` numbers; all
            ``token_dim`` by default. Only a refinement can change the width.
        num_latents: number of latents M.
        num_heads: heads of every attention; must divide ``dim``.
        mlp_ratio: hidden width of the MLPs as a multiple of their stream's width.
        drop_path: stochastic depth, growing from 0 to this in the last layer; it drops attentions and MLPs.
        dropout: dropout of attention weights.
        layer_scale: start of the learnt factor on every residual branch; None for none.
        cross: builder of the cross layer: :func:`~bixt3d.layers.bidirectional_cross` (BiXT),
            :func:`~bixt3d.layers.sequential_cross` or :func:`~bixt3d.layers.iterative_cross` (Perceiver).
        self_attention_per_layer: latent self-attention layers in each layer (a Perceiver has several).
        share_cross: ``"none"``, ``"all"`` (every layer uses the parameters of the first cross layer) or
            ``"all_but_first"``.
        refinement: builder ``(in_dim, out_dim) -> module`` of the token refinement, such as
            :class:`~bixt3d.layers.GroupRefinement`, whose ``reduction`` and ``num_neighbors`` count as 1 where
            it does not say; None for none.
        refinement_layers: the layers (from 0) that have one; all by default.
        refine: ``"before"`` the cross-attention of its layer or ``"after"`` it. After it a one-sided last
            layer has none: nothing would read the refined tokens.
        dense: update the tokens in the last layer too, for heads that read them.
        checkpoint_activations: in training, keep only what goes into each layer and compute the layer again
            for its gradient: the same numbers with less memory, for about a third more time.
        chunk: in evaluation without gradient, the number of tokens that are tokenised or go through a
            bi-directional layer at a time, over all clouds of a batch; without refinements it bounds every tensor
            but the tokens themselves. None for 4,096 on the CPU, where it is faster, and for all elsewhere.

    Raises:
        ValueError: heads do not divide the width, or an option does not fit another.

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
        """Width of the tokens before layer 0 and after the refinement of each layer."""
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
        """Neighbours and reduction of each refinement, 1 where it says nothing."""
        return [(getattr(x, "num_neighbors", 1), getattr(x, "reduction", 1)) for x in self.refinements]

    @property
    def min_points(self) -> int:
        """The fewest tokens that every refinement accepts."""
        return fewest_points(self._groupings)

    @property
    def reduction(self) -> int:
        """Tokens go in as N and come out as about ``N // reduction``."""
        return math.prod(reduction for _, reduction in self._groupings)

    @property
    def out_token_dim(self) -> int:
        """Width of the tokens that come out."""
        return self.level_dims[-1]

    def freeze_unread_latents(self) -> None:
        """Stop training what changes nothing but the last layer's latents, for heads that read tokens alone.

        Such parameters never get a gradient, and distributed training waits for every trainable one.
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
            centers: xyz of the tokens, read by refinements alone.
            latent_shift: ``(B, 1, dim)`` to add to the learnt latents of each cloud.
            return_attention: also compute every layer's attention maps.
            return_levels: also keep the tokens before the first layer and after each.
            overwrite: allow the memory of ``tokens`` to be written over where no gradient is recorded.
        """
        latents = self.latents if latent_shift is None else self.latents + latent_shift
        levels = [Level(tokens, centers)] if return_levels else []
        neighbor_index: Tensor | None = None
        attention: list[LayerAttention] = []
        run = self._checkpointed if self.checkpoint_activations and self.training else self._layer
        # Without a gradient nobody else sees what a layer made of the tokens, and the next one may write over it.
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
        """Apply layer ``i``: its refinement and its block, which may write over the ``tokens`` given."""
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
        """Apply a layer whose activations are computed again when its gradient is."""
        if torch.compiler.is_compiling():  # the compiler's partitioner writes no buffer a second time
            return checkpoint(self._layer, *arguments, use_reentrant=False)
        return checkpoint(self._layer, *arguments, use_reentrant=False, context_fn=lambda: recomputing(self))
