"""Turn the multi-line errors of Hydra, OmegaConf and PyYAML into one sentence."""

from __future__ import annotations

import contextlib
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..signatures import full_name, locate, not_taken


def resolved(config: Any) -> dict[str, Any]:
    """Return a config as plain containers, with every interpolation replaced by its value."""
    from omegaconf import OmegaConf

    with as_value_errors():
        return typing.cast(dict, OmegaConf.to_container(config, resolve=True, throw_on_missing=True))


@contextlib.contextmanager
def as_value_errors(where: str = "") -> Iterator[None]:
    """Turn errors of Hydra, OmegaConf and PyYAML into a ValueError of one sentence, which begins with ``where``."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{where}{_sentence(error)}") from error


def taker_of(node: Any, key: str) -> str | None:
    """Return the name of the callable of a node if it has a parameter ``key``, else None."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        return None
    try:
        target = locate(node["_target_"], "")
    except ValueError:  # reported when the node is built
        return None
    return None if not_taken(target, [key]) else full_name(target)


def _sentence(error: BaseException) -> str:
    """Return the message of an error of Hydra, OmegaConf or PyYAML as one line."""
    cause = error.__cause__ or error  # Hydra wraps errors of OmegaConf, which know the key and its siblings
    key, parent = getattr(cause, "full_key", None), getattr(cause, "parent_node", None)
    if "not in struct" in str(cause) and isinstance(parent, Mapping):
        path = str(key).replace("[", ".").replace("]", "")
        hint = re.search(r"Could not override '(.*)'\.\s+To append .* use (\+.*)", str(error))
        taker = taker_of(parent, path.rpartition(".")[2])
        if taker and hint and hint[1] == path:  # else a nested key is meant
            return f"{path}: the config does not set this key, but {taker} takes it; add it with a plus: {hint[2]}"
        known = ", ".join(sorted(str(k) for k in parent)) or "(none)"
        return f"{key}: unknown key; expected one of {known}."
    if "out of range" in str(cause) and isinstance(parent, Sequence):
        return f"{key}: there is no such entry; the list has {len(parent)}, counted from 0."
    if "Missing mandatory value" in str(cause):
        return f"{key}: has no value yet; give one with {key}=VALUE."
    argument = getattr(error, "override", None)  # set by Hydra's OverrideParseException
    if argument:
        name, _, value = argument.partition("=")
        advice = "" if value[:1] in "'\"" else f", or quote the value: \"{name}='{value}'\""
        return f"{argument}: cannot be read; check its brackets and quotes{advice}."
    text = str(error).partition("Config search path")[0]
    details = ("full_key:", "object_type=", "See https:")
    lines = [line.strip() for line in text.splitlines()]
    return " ".join(" ".join(x for x in lines if not x.startswith(details)).split()) or type(error).__name__
