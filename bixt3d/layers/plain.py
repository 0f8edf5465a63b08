"""Check whether a fused op may replace modules, which are then never called."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import module as of_all


def is_watched(module: nn.Module) -> bool:
    """Return whether calling a module has effects beyond its class, through hooks or a replaced ``forward``.

    Hooks may be on the module, on its gradient or on all modules. A ``forward`` set on the instance counts too.
    Pruning, offloading and torch's old weight and spectral norms work like this.
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
    """Return whether a module and all its submodules come from this toolkit or torch, and none :func:`is_watched`.

    Such modules map each token independently and keep none, so tokens may be split into chunks and overwritten. Any
    other module may look at a whole cloud, or keep its inputs or outputs.
    """
    known = ("bixt3d", "torch")
    return not any(
        type(m).__module__.partition(".")[0] not in known or is_watched(m) for m in module.modules()
    )


def is_plain(kinds: dict[nn.Module, type[nn.Module]]) -> bool:
    """Return whether modules do exactly what their classes define, so that an op may use their parameters instead.

    Each has to be of exactly the given class, which excludes subclasses, parametrised modules and replacements
    (adapters, quantisation), and must not be watched (:func:`is_watched`). Parameters may still be None.

    Args:
        kinds: modules and the classes they were built as.
    """
    return not any(type(module) is not kind or is_watched(module) for module, kind in kinds.items())
