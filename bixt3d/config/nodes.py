"""Build the objects that config nodes describe."""

from __future__ import annotations

import functools
import typing
from collections.abc import Mapping
from typing import Any

from ..errors import USER_ERRORS, placed
from ..signatures import check, check_keywords

T = typing.TypeVar("T")


def build(node: Mapping[str, Any], where: str = "config", **keywords: Any) -> Any:
    """Make the call that a node describes, and return its result.

    For a node with ``_partial_: true``, the result is a ``functools.partial``. If that is later called and fails, the
    error names the node as well.

    Args:
        node: mapping with ``_target_``. Nested nodes are built first.
        where: name of the node in messages.
        **keywords: further keyword arguments of the outermost call.

    Raises:
        ValueError: the target or a key is unknown, or the call rejects a value.
        TypeError: the type of a value does not match the annotation.
    """
    import hydra.utils
    from hydra.errors import InstantiationException

    if not isinstance(node, Mapping) or "_target_" not in node:
        got = f"the keys {', '.join(sorted(node)) or '(none)'}" if isinstance(node, Mapping) else repr(node)
        raise ValueError(
            f"{where}: expected a node with _target_, got {got}; choose one of the groups in cfgs/, or name what to "
            "call."
        )
    check({**node, **keywords}, where)
    try:
        made = hydra.utils.instantiate(dict(node), _convert_="all", **keywords)
    except InstantiationException as error:
        # Hydra wraps the error of the call, which is what the user needs
        cause = error.__cause__
        if isinstance(cause, USER_ERRORS):
            raise placed(cause, f"{where}: ") from cause
        raise ValueError(f"{where}: {error}") from error
    if not node.get("_partial_"):
        return made
    rest = _Partial(made.func, *made.args, **made.keywords)
    rest.where = where
    return rest


class _Partial(functools.partial):
    """A partial call of a node, whose errors name the node."""

    where: str

    def __call__(self, /, *args: Any, **keywords: Any) -> Any:
        try:
            return super().__call__(*args, **keywords)
        except USER_ERRORS as error:
            raise placed(error, f"{self.where}: ") from error


def build_settings(cls: type[T], node: Mapping[str, Any], where: str) -> T:
    """Build a settings dataclass from a mapping, which is checked like a node.

    Raises:
        ValueError: a key is unknown, or the class rejects a value.
        TypeError: the type of a value does not match the annotation.
    """
    check_keywords(cls, node, where)
    try:
        return cls(**node)
    except (ValueError, TypeError) as error:
        raise placed(error, f"{where}.") from error
