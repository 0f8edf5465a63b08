"""The end of custom ops whose gradient has no gradient itself: one sentence that says what to do."""

from typing import Any

import torch


def differentiates_once(name: str, op: str, backend: str) -> None:
    """Have the custom op ``bixt3d::<name>``, the gradient of ``op`` in ``backend``, refuse to be differentiated."""

    def refuse(ctx: Any, *grads: Any) -> None:
        raise NotImplementedError(
            f"{op}: backend {backend!r} differentiates once, expected one that does so twice; set "
            'backend="reference" on the layers before the forward pass (docs/python.md, "Second derivatives").'
        )

    torch.library.register_autograd(f"bixt3d::{name}", refuse)
