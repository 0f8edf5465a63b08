"""Check config nodes against the signatures and annotations of the callables they name, without calling them."""

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
# What the config of a checkpoint may name without trust_code.
_SHIPPED = r"(bixt3d\.(datasets|layers|models|optim|tasks)|torch\.(nn|optim))"
# Modules of the classes whose values can be written directly in YAML.
_PLAIN = ("builtins", "collections.abc", "typing")
_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}


def check(node: Any, where: str = "config") -> None:
    """Check a node, and all nodes inside it, against the signatures of the callables they name.

    Raises:
        ValueError: a target does not exist, or a key is not a parameter of its target.
        TypeError: the type of a value does not match the annotation, or ``_target_`` is missing where an object is
            expected.
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
    """Raise unless ``target`` accepts these keywords with values of these types (see :func:`check`)."""
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
        built = isinstance(value, Mapping) and "_target_" in value  # its type is known only once it is called
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
    """Return, sorted, the keywords that ``target`` does not accept."""
    known, open_ended = _keywords(target)
    return [] if open_ended else sorted(set(names) - known)


def locate(target: Any, where: str) -> Callable:
    """Import what ``_target_`` names, also from the current folder.

    Python puts the folder of the script on ``sys.path``, not the current one, so the current one is appended.

    Raises:
        ValueError: it cannot be imported, or is not callable.
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
    """Return a name in a config that is not one of the models, data sets or optimisers of the toolkit and of torch.

    Names are checked before anything is imported, and again by the module that the imported object comes from, since
    a module also exposes what it imports. Of ``bixt3d.datasets`` only classes are allowed, because its functions
    fetch and write files. A string with an interpolation (``${...}``) counts as a foreign name, since it could resolve
    to anything.

    Args:
        node: a resolved config.

    Returns:
        The first such name, or None.
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
    except ValueError:  # reported when the node is built
        return True
    module = str(getattr(found, "__module__", None))
    if module.startswith("bixt3d.datasets") and not inspect.isclass(found):
        return False
    return re.fullmatch(rf"{_SHIPPED}(\.\w+)*", module) is not None


def full_name(target: Callable) -> str:
    """Return the qualified name of a class or function, with its module."""
    name = getattr(target, "__qualname__", type(target).__qualname__)
    return f"{getattr(target, '__module__', type(target).__module__)}.{name}"


def _keywords(target: Callable) -> tuple[set[str], bool]:
    """Return the keyword names of a callable, and whether it accepts others as well."""
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # some callables written in C have no signature
        return set(), True
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    known = {n for n, p in parameters.items() if p.kind in kinds}
    return known, any(p.kind == p.VAR_KEYWORD for p in parameters.values())


def _hints(target: Callable) -> dict[str, Any]:
    """Return the annotations of a callable; empty if they cannot be evaluated, as with type-checking imports."""
    constructor = target.__init__ if inspect.isclass(target) else target  # type: ignore[misc]
    try:
        return typing.get_type_hints(constructor)
    except (NameError, AttributeError, TypeError, SyntaxError):
        return {}


def _plain_types(annotation: Any) -> tuple[type, ...]:
    """Return the simple types that an annotation allows; empty if it allows others as well."""
    if annotation in (bool, int, float, str):
        return (annotation,)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        # torch's optimisers accept tensors for numbers, which YAML cannot express
        options = tuple(t for t in typing.get_args(annotation) if getattr(t, "__qualname__", "") != "Tensor")
        if set(options) <= {bool, int, float, str, type(None)}:
            return options
    return ()


def _has_to_be_made(annotation: Any) -> bool:
    """Whether an annotation allows only callables and class instances, which YAML can express only as nodes."""
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
    if isinstance(value, bool):  # a subclass of int
        return bool in accepted
    return isinstance(value, accepted) or (isinstance(value, int) and float in accepted)
