"""Convert public PointMLP checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# Patterns of official names -> ours.
_NAMES = (
    (r"embedding\.net\.", r"encoder.embedding."),
    (r"local_grouper_list\.(\d+)\.affine_", r"encoder.stages.\1.grouping."),
    (r"pre_blocks_list\.(\d+)\.transfer\.net\.", r"encoder.stages.\1.transfer."),
    (r"pre_blocks_list\.(\d+)\.operation\.(\d+)\.net1\.", r"encoder.stages.\1.before.\2.expand."),
    (r"pre_blocks_list\.(\d+)\.operation\.(\d+)\.net2\.", r"encoder.stages.\1.before.\2.contract."),
    (r"pos_blocks_list\.(\d+)\.operation\.(\d+)\.net1\.", r"encoder.stages.\1.after.\2.expand."),
    (r"pos_blocks_list\.(\d+)\.operation\.(\d+)\.net2\.", r"encoder.stages.\1.after.\2.contract."),
    (r"decode_list\.(\d+)\.fuse\.net\.", r"decoder.propagations.\1.fuse."),
    (
        r"decode_list\.(\d+)\.extraction\.operation\.(\d+)\.net1\.",
        r"decoder.propagations.\1.blocks.\2.expand.",
    ),
    (
        r"decode_list\.(\d+)\.extraction\.operation\.(\d+)\.net2\.",
        r"decoder.propagations.\1.blocks.\2.contract.",
    ),
    (r"gmp_map_list\.(\d+)\.net\.", r"decoder.level_context.\1."),
    (r"gmp_map_end\.net\.", r"decoder.context."),
    (r"cls_map\.(\d+)\.net\.", r"decoder.category.\1."),
)
_CLASSIFIER = {"0": "head.0.0", "1": "head.0.1", "4": "head.2.0", "5": "head.2.1", "8": "head.4"}
_SEGMENTER = {"0": "decoder.head.0.0", "1": "decoder.head.0.1", "3": "decoder.head.2"}


def pointmlp_from_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of an official PointMLP (github.com/ma-xu/pointMLP-pytorch) for this toolkit.

    Shapes change as well: 1×1 convolutions ``(out, in, 1)`` become linear maps ``(out, in)``, and alpha and beta are
    flattened. Classifiers of any size, including PointMLP-elite, and segmenters are supported.

    Args:
        state_dict: official state dict. ``module.`` prefixes are allowed.

    Returns:
        A new dict with the keys of :class:`~bixt3d.models.PointMLPClassifier` or
        :class:`~bixt3d.models.PointMLPSegmenter`. Its tensors share memory with the input.

    Raises:
        ValueError: a key is unknown in an official PointMLP.

    Source: names as in commit 1ab7f04 of the official code; Ma et al., PointMLP (ICLR 2022).
    """
    state = {k.removeprefix("module."): v for k, v in state_dict.items()}
    head = _SEGMENTER if any(k.startswith("decode_list.") for k in state) else _CLASSIFIER
    converted: dict[str, Tensor] = {}
    unknown = []
    for key, value in state.items():
        name = _rename(key, head)
        if name is None:
            unknown.append(key)
            continue
        if name.endswith((".alpha", ".beta")):
            value = value.flatten()
        elif value.dim() == 3:
            value = value.squeeze(-1)
        converted[name] = value
    if unknown:
        raise ValueError(
            f"state_dict: {len(unknown)} keys are not of an official PointMLP, the first is {unknown[0]!r}; "
            "expected embedding.*, pre_blocks_list.*, classifier.* and so on."
        )
    return converted


def _rename(key: str, head: Mapping[str, str]) -> str | None:
    classifier = re.match(r"classifier\.(\d+)\.", key)
    if classifier:
        ours = head.get(classifier[1])
        return ours and f"{ours}.{key[classifier.end() :]}"
    for pattern, replacement in _NAMES:
        match = re.match(pattern, key)
        if match:
            return match.expand(replacement) + key[match.end() :]
    return None
