"""Convert public BiXT checkpoints."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from torch import Tensor

logger = logging.getLogger(__name__)

# Prefixes of official names -> ours. Both sides store weights as (out, in), and order joint maps as (reference, value)
# or (query, key, value), so only names change.
_TOP = {"norm_lat.": "norm.", "fc_norm.": "norm.", "norm.": "norm.", "head.": "head."}
# inside `blocks.<i>.`
_BLOCK = {
    "self_attention_latents.norm1.": "self_attention.0.norm.",
    "self_attention_latents.attn.": "self_attention.0.attention.",
    "self_attention_latents.ls1.": "self_attention.0.branch.scale.",
    "self_attention_latents.norm2.": "self_attention.0.mlp.norm.",
    "self_attention_latents.mlp.": "self_attention.0.mlp.mlp.",
    "self_attention_latents.ls2.": "self_attention.0.mlp.branch.scale.",
}
# inside `blocks.<i>.cross_attention_latents_token.`
_TWO_SIDED = {
    "norm1_lat.": "latent_norm.",
    "norm1_pat.": "token_norm.",
    "attn.rv_latents.": "attention.latent_ref_val.",
    "attn.rv_patches.": "attention.token_ref_val.",
    "attn.proj_lat.": "attention.latent_proj.",
    "attn.proj_pat.": "attention.token_proj.",
    "ls1_lat.": "latent_branch.scale.",
    "ls1_pat.": "token_branch.scale.",
    "norm2_lat.": "latent_mlp.norm.",
    "mlp_lat.": "latent_mlp.mlp.",
    "ls2_lat.": "latent_mlp.branch.scale.",
    "norm2_pat.": "token_mlp.norm.",
    "mlp_pat.": "token_mlp.mlp.",
    "ls2_pat.": "token_mlp.branch.scale.",
}
_ONE_SIDED = {
    "norm1_lat.": "query_norm.",
    "norm1_pat.": "context_norm.",
    "attn.r_latents.": "attention.query.",
    "attn.rv_patches.": "attention.key_val.",
    "attn.proj_lat.": "attention.proj.",
    "ls1_lat.": "branch.scale.",
    "norm2_lat.": "mlp.norm.",
    "mlp_lat.": "mlp.mlp.",
    "ls2_lat.": "mlp.branch.scale.",
}
_CROSS = "cross_attention_latents_token."
_LEFT_OUT = ("patch_embed.", "fourier_pos_encode.")


def _rename(key: str, one_sided: set[str]) -> str | None:
    if key == "latents":
        return key
    block = re.match(r"blocks\.(\d+)\.", key)
    theirs = ours = block[0] if block else ""
    names = _BLOCK if block else _TOP
    if block and key.startswith(theirs + _CROSS):
        theirs, ours = theirs + _CROSS, f"{ours}cross."
        names = _ONE_SIDED if block[1] in one_sided else _TWO_SIDED
    rest = key.removeprefix(theirs)
    return next(
        (ours + new + rest.removeprefix(old) for old, new in names.items() if rest.startswith(old)), None
    )


def bixt_from_official(state_dict: Mapping[str, Tensor], *, dense: bool = False) -> dict[str, Tensor]:
    """Rename the weights of an official BiXT (github.com/mrkshllr/BiXT) for this toolkit.

    Only names change. Any width and depth is supported, with or without layer scale. Tensors for images
    (``patch_embed.*``, ``fourier_pos_encode.*``) are left out, and their names are logged as a warning.

    ==========================================================  ======================================
    official (``L`` = ``blocks.i.cross_attention_latents_token``)  here
    ==========================================================  ======================================
    ``latents``                                                 ``latents``
    ``L.norm1_lat``, ``L.norm1_pat``                            ``blocks.i.cross.latent_norm``, ``.token_norm``
    ``L.attn.rv_latents``, ``L.attn.rv_patches``                ``…cross.attention.latent_ref_val``, ``.token_ref_val``
    ``L.attn.proj_lat``, ``L.attn.proj_pat``                    ``…cross.attention.latent_proj``, ``.token_proj``
    ``L.norm2_*``, ``L.mlp_*``                                  ``…cross.latent_mlp.{norm,mlp}``, ``.token_mlp.…``
    ``L.attn.r_latents`` (one-sided), ``.rv_patches``           ``…cross.attention.query``, ``.key_val``
    ``blocks.i.self_attention_latents.*``                       ``blocks.i.self_attention.0.*``
    ``ls1*``, ``ls2*`` (``.gamma``)                             ``….branch.scale.gamma``
    ``fc_norm``, ``norm_lat``; ``head``                         ``norm``; ``head``
    ==========================================================  ======================================

    Args:
        state_dict: official state dict. ``module.`` prefixes are allowed, and keys may start with
            ``0.cross_attention…``, as in a bare stack of blocks.
        dense: whether to leave out a one-sided last layer, as the 13-layer variants do for dense tasks.

    Returns:
        A new dict with the same tensors and the keys of :class:`~bixt3d.models.BiXTEncoder`, and the classifier's
        ``norm.*`` and ``head.*`` if the input has them.

    Raises:
        ValueError: a key is unknown in an official BiXT.

    Source: names as in commit 4ce7cae of the official code; Hiller et al. (arXiv 2402.12138).
    """
    state = {k.removeprefix("module."): v for k, v in state_dict.items()}
    state = {f"blocks.{k}" if re.match(r"\d+\.", k) else k: v for k, v in state.items()}
    one_sided = {k.split(".")[1] for k in state if k.endswith(f"{_CROSS}attn.r_latents.weight")}

    converted: dict[str, Tensor] = {}
    left_out: list[str] = []
    unknown: list[str] = []
    for key, value in state.items():
        block = re.match(r"blocks\.(\d+)\.", key)
        name = _rename(key, one_sided)
        if key.startswith(_LEFT_OUT) or (dense and block and block[1] in one_sided):
            left_out.append(key)
        elif name is None:
            unknown.append(key)
        else:
            converted[name] = value
    if unknown:
        raise ValueError(
            f"state_dict: {len(unknown)} keys are not of an official BiXT, the first is {unknown[0]!r}; "
            "expected latents, blocks.*, fc_norm.*, head.*."
        )
    if left_out:
        logger.warning(
            "left out %d tensors that point clouds do not use: %s", len(left_out), ", ".join(left_out)
        )
    return converted
