"""Initialisation of the linear maps of BiXT."""

from __future__ import annotations

from torch import nn


def init_linear(module: nn.Module) -> None:
    """Initialise a linear map Xavier-uniform with zero bias, as in BiXT. Other modules are left unchanged.

    A layer applies this only to modules that it has built itself, never to modules passed to it.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
