"""Compare the nodes of a config with the signatures and annotations of what they call, without calling it."""

from __future__ import annotations

import inspect
import os
import pkgutil
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

_NODE_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
# What the config of a checkpoint may name unless its reader trusts it.
_SHIPPED = r"(bixt3d\.(datasets|layers|models|optim|tasks)|torch\.(nn|optim))"
# Where the classes stand whose values YAML says as they are.
_PLAIN = ("builtins", "collections.abc", "typing")
_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def check(node: Any, where: str = "config") -> None:
    """Compare a node, and those inside it, with the signatures of what they call.

    Raises:
        ValueError: a target that does not exist, or a key that its call does not take.
        TypeError: a value of another type than the call's annotation, or keys without ``_target_`` where something is
            to be called.
    """
    if isinstance(node, Mapping):
        if "_target_" in node:
            target = locate(node["_target_"], where)
            values = {k: v for k, v in node.items() if k not in _NODE_KEYS}
            check_keywords(target, values, where)
        for key, value in node.items():
            check(value, f"{where}.{key}")
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for i, value in enumerate(node):
            check(value, f"{where}[{i}]")


def check_keywords(target: Callable, values: Mapping[str, Any], where: str) -> None:
    """Raise unless ``target`` takes these keywords with values of these types (see :func:`check`)."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{where}: expected keys with values, got {values!r}.")
    unknown = not_taken(target, values)
    if unknown:
        known = ", ".join(sorted(_keywords(target)[0])) or "(none)"
        raise ValueError(
            f"{where}: unknown key {unknown[0]!r} for {full_name(target)}; expected one of {known}."
        )
    hints = _hints(target)
    for key, value in values.items():
        accepted = _plain_types(hints.get(key))
        built = isinstance(value, Mapping) and "_target_" in value  # of which only its call says the type
        if accepted and not built and not _fits(value, accepted):
            expected = " or ".join(
                _EXPECTED.get(t, "null" if t is type(None) else t.__name__) for t in accepted
            )
            raise TypeError(f"{where}.{key}: expected {expected}, got {value!r}.")
        if isinstance(value, Mapping) and not built and _has_to_be_made(hints.get(key)):
            raise TypeError(
                f"{where}.{key}: expected a node with _target_, since {full_name(target)} takes no plain keys here, "
                f"got the keys {', '.join(map(str, value)) or '(none)'}; name what to call, or leave it out with "
                f"~{where}.{key}."
            )


def not_taken(target: Callable, names: Iterable[str]) -> list[str]:
    """Return those of the keywords, sorted, that a call of ``target`` does not take."""
    known, open_ended = _keywords(target)
    return [] if open_ended else sorted(set(names) - known)


def locate(target: Any, where: str) -> Callable:
    """Import what ``_target_`` names, from the current folder as well.

    Python puts a script's own folder on the path, not the folder it is started in, so that one is appended.

    Raises:
        ValueError: it cannot be imported or called.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(f"{where}._target_: {target!r} cannot be imported ({error}).") from error
    if not callable(found):
        raise ValueError(
            f"{where}._target_: expected a class or a function, {target!r} is a {type(found).__name__}."
        )
    return found


def foreign_name(node: Any) -> str | None:
    """Return a name in a config that reaches beyond models, data and optimisers of the toolkit and of torch.

    Names are judged before anything is imported, and once more by what they lead to, since a module shows what it
    imports as well. Of ``bixt3d.datasets`` only classes count, because its functions fetch and write files. A text that
    would be interpolated once more, and could then name anything, counts as a name.

    Args:
        node: a resolved config.

    Returns:
        The first such name; None where there is none.
    """
    names = list(_names(node))
    public = re.compile(rf"{_SHIPPED}(\.[A-Za-z]\w*)+")
    return next((n for n in names if not public.fullmatch(n)), None) or next(
        (n for n in names if not _is_shipped(n)), None
    )


def _names(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        node = list(node.values())
    if isinstance(node, str):
        if "${" in node:
            yield node
    elif isinstance(node, Sequence):
        for value in node:
            yield from _names(value)


def _is_shipped(name: str) -> bool:
    try:
        found = locate(name, "")
    except ValueError:  # said when the node is built
        return True
    module = str(getattr(found, "__module__", None))
    if module.startswith("bixt3d.datasets") and not inspect.isclass(found):
        return False
    return re.fullmatch(rf"{_SHIPPED}(\.\w+)*", module) is not None


def full_name(target: Callable) -> str:
    """Return module and name of a class or function."""
    name = getattr(target, "__qualname__", type(target).__qualname__)
    return f"{getattr(target, '__module__', type(target).__module__)}.{name}"


def _keywords(target: Callable) -> tuple[set[str], bool]:
    """Return the names of a call's keywords, and whether it takes others as well."""
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # of what is written in C, which does not always tell
        return set(), True
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    known = {n for n, p in parameters.items() if p.kind in kinds}
    return known, any(p.kind == p.VAR_KEYWORD for p in parameters.values())


def _hints(target: Callable) -> dict[str, Any]:
    """Return the annotations of a call; none where they name what only a type checker imports."""
    constructor = target.__init__ if inspect.isclass(target) else target  # type: ignore[misc]
    try:
        return typing.get_type_hints(constructor)
    except (NameError, AttributeError, TypeError, SyntaxError):
        return {}


def _plain_types(annotation: Any) -> tuple[type, ...]:
    """Return the simple types that an annotation allows; empty where it allows others as well."""
    if annotation in (bool, int, float, str):
        return (annotation,)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        # a tensor, which torch's optimisers take for a number, is nothing that YAML can say
        options = tuple(t for t in typing.get_args(annotation) if getattr(t, "__qualname__", "") != "Tensor")
        if set(options) <= {bool, int, float, str, type(None)}:
            return options
    return ()


def _has_to_be_made(annotation: Any) -> bool:
    """Whether an annotation allows only callables and objects of classes, which YAML can say as nodes alone."""
    options = [o for o in typing.get_args(annotation) if o is not types.NoneType]
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        options = [annotation]
    kinds = [typing.get_origin(option) or option for option in options]
    return all(
        kind is Callable
        or (inspect.isclass(kind) and kind.__module__ not in _PLAIN and not issubclass(kind, Mapping))
        for kind in kinds
    )


def _fits(value: Any, accepted: tuple[type, ...]) -> bool:
    if isinstance(value, bool):  # which Python takes for a whole number
        return bool in accepted
    return isinstance(value, accepted) or (isinstance(value, int) and float in accepted)
