"""Error for second derivatives of custom ops that have only first ones."""

from typing import Any

import torch


def differentiates_once(name: str, op: str, backend: str) -> None:
    """Make ``bixt3d::<name>``, the backward pass of ``op`` in ``backend``, raise when it is differentiated itself."""

    def refuse(ctx: Any, *grads: Any) -> None:
        raise NotImplementedError(
            f"{op}: backend {backend!r} has no second derivatives, expected one that has; set "
            'backend="reference" on the layers before the forward pass (docs/python.md, "Second derivatives").'
        )

    torch.library.register_autograd(f"bixt3d::{name}", refuse)
