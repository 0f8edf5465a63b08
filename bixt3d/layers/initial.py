"""How the linear maps of BiXT start."""

from __future__ import annotations

from torch import nn


def init_linear(module: nn.Module) -> None:
    """Start a linear map Xavier-uniform with zero bias, as BiXT does; leave other modules as they are.

    A layer applies this to what it has built itself, and to nothing that it is given.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
