"""Configs, in which a YAML node is one call. This is the only part of the package that uses Hydra and OmegaConf.

``_target_`` of a node names a callable, and the other keys are its keyword arguments. With ``_partial_: true``, the
remaining arguments are added in code. Every node is checked against the signature and annotations of its target before
anything is built.
"""

from .launching import compose, launch
from .nodes import build, build_settings
from .saved import differences, from_yaml, override, read_yaml, to_yaml

__all__ = [
    "build",
    "build_settings",
    "compose",
    "differences",
    "from_yaml",
    "launch",
    "override",
    "read_yaml",
    "to_yaml",
]
