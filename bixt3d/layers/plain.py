"""The one question of every fast path: may an op stand for these modules, which are then never called?"""

from __future__ import annotations

from torch import nn
from torch.nn.modules import module as of_all


def is_watched(module: nn.Module) -> bool:
    """Whether somebody looks at, or changes, what a module does when it is called.

    By a hook on it, on its gradient or on all modules, or by a ``forward`` set on the instance, as wrappers do.
    Pruning, the old weight and spectral norms of torch and offloading work so.
    """
    return bool(
        module._forward_pre_hooks
        or module._forward_hooks
        or module._backward_pre_hooks
        or module._backward_hooks
        or "forward" in module.__dict__
        or of_all._global_forward_pre_hooks
        or of_all._global_forward_hooks
        or of_all._global_backward_pre_hooks
        or of_all._global_backward_hooks
    )


def is_known_inside(module: nn.Module) -> bool:
    """Whether a module and all inside it are of this toolkit or of torch, and none :func:`is_watched`.

    Those see every token alone and keep none, so that tokens may come in pieces and be written over. A module of
    somebody else may look at a whole cloud, or keep what it was given or made.
    """
    known = ("bixt3d", "torch")
    return not any(
        type(m).__module__.partition(".")[0] not in known or is_watched(m) for m in module.modules()
    )


def is_plain(kinds: dict[nn.Module, type[nn.Module]]) -> bool:
    """Whether modules compute what their classes say, so that an op may read their parameters and stand for them.

    Each has to be of exactly the class it was built as, which a subclass, a parametrised module and one put in its
    place (adapters, quantisation) are not, and must not be watched. A parameter may still be None.

    Args:
        kinds: modules and the classes they were built as.
    """
    return not any(type(module) is not kind or is_watched(module) for module, kind in kinds.items())
