"""What the choice of a backend asks and tells the transforms of torch: compile, export, torch.func, forward mode."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch.autograd import forward_ad

Function = TypeVar("Function", bound=Callable)


def constant_when_traced(function: Function) -> Function:
    """Have torch.compile and torch.export call ``function`` while they trace and keep its result as a constant.

    They trace the ops that have no custom op around them, the choice of the backend included. This is all that
    torch.compiler.assume_constant_result does, apart from importing the compiler, and triton with it, on the spot.
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function


# Neither question has a public form; torch 2.6 to 2.13 answer both.
@constant_when_traced
def in_forward_mode() -> bool:
    """Tell whether a level of forward-mode AD is active, as under torch.func.jvp."""
    return forward_ad._current_level >= 0


@constant_when_traced
def in_transform() -> bool:
    """Tell whether forward-mode AD or a transform of torch.func (vmap, grad, jvp, ...) is active."""
    return in_forward_mode() or torch._C._are_functorch_transforms_active()
