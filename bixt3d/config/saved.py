"""Write, read, compare and override resolved configs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .overrides import parsed_value
from .sentences import as_value_errors, resolved, taker_of


def override(config: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return a copy of a saved config with ``key.key=value`` assignments applied.

    A key must exist, or be a parameter of the callable that its node names. A leading ``+``, as Hydra has it, is
    ignored.

    Raises:
        ValueError: an argument is not an assignment, its key does not exist, or its value is the name of a config
            group option where a node is expected.
    """
    from omegaconf import DictConfig, OmegaConf

    merged = OmegaConf.create(dict(config))
    OmegaConf.set_struct(merged, True)
    for text in assignments:
        key, separator, value = text.removeprefix("+").partition("=")
        if not separator:
            raise ValueError(f"argument {text!r}: expected key=value.")
        with as_value_errors(f"argument {text}: "):
            given = parsed_value(value)
            held = OmegaConf.select(merged, key)
            if isinstance(held, DictConfig) and isinstance(given, str):
                inside = next((str(k) for k in held if not str(k).startswith("_")), "KEY")
                raise ValueError(
                    f"{key}: overrides of a saved config take values, not groups; name a key inside it, such as "
                    f"{key}.{inside}=VALUE."
                )
            parent, _, leaf = key.rpartition(".")
            taken = taker_of(OmegaConf.select(merged, parent), leaf) is not None
            OmegaConf.update(merged, key, given, merge=True, force_add=taken)
    return resolved(merged)


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], besides: Sequence[str] = ()
) -> list[tuple[str, Any, Any]]:
    """List the dotted keys whose values differ between two configs, in order, with both values.

    Keys in ``besides`` are ignored. A key that is missing in one config has the value None there.
    """
    old, new = _flatten(before), _flatten(now)
    keys = sorted((old.keys() | new.keys()) - set(besides))
    return [(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, Mapping) and node:
        return {k: v for key, value in node.items() for k, v in _flatten(value, f"{prefix}{key}.").items()}
    return {prefix.removesuffix("."): node}


def to_yaml(config: Mapping[str, Any]) -> str:
    """Write a config as YAML."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dict(config)))


def from_yaml(text: str) -> dict[str, Any]:
    """Read a config that :func:`to_yaml` wrote."""
    from omegaconf import OmegaConf

    with as_value_errors("saved config: "):
        node = OmegaConf.create(text)
    return resolved(node)


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file as plain containers.

    Raises:
        ValueError: the file is not valid YAML.
    """
    import yaml

    with as_value_errors(f"{path}: "):
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
