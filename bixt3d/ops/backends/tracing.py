"""Support for torch.compile, torch.export, torch.func and forward-mode AD in the choice of a backend."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch.autograd import forward_ad

Function = TypeVar("Function", bound=Callable)


def constant_when_traced(function: Function) -> Function:
    """Make torch.compile and torch.export call ``function`` while tracing and keep its result as a constant.

    Ops that are not wrapped in a custom op are traced together with the choice of their backend. This does the same as
    torch.compiler.assume_constant_result, which would import the compiler, and triton with it, right away.
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function


# There is no public API for these two checks. Both work with torch 2.6 to 2.13.
@constant_when_traced
def in_forward_mode() -> bool:
    """Return whether a level of forward-mode AD is active, as under torch.func.jvp."""
    return forward_ad._current_level >= 0


@constant_when_traced
def in_transform() -> bool:
    """Return whether forward-mode AD or a transform of torch.func (vmap, grad, jvp, ...) is active."""
    return in_forward_mode() or torch._C._are_functorch_transforms_active()
