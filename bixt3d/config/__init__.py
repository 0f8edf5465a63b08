"""Configs: a YAML node is one call. The only part that touches Hydra and OmegaConf.

A node with ``_target_`` names a callable, the other keys are that call's keywords, and
``_partial_: true`` leaves the rest of the call to the code. Every node is checked against the signature
and the annotations of what it calls before anything is built.
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
