"""Configs: a YAML node is one call. The only module that touches Hydra and OmegaConf.

A node with ``_target_`` names a callable, the other keys are that call's keywords, and
``_partial_: true`` leaves the rest of the call to the code. Every node is checked against the signature
and the annotations of what it calls before anything is built.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import tempfile
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import USER_ERRORS, placed, report_errors
from .signatures import check, check_keywords, full_name, locate, not_taken

T = typing.TypeVar("T")


def launch(main: Callable[[dict[str, Any]], None], *, config_root: Path) -> None:
    """Run ``main(config)`` with the config that the command line names.

    ``script.py CONFIG.yaml [key=value ...]``: the first argument is a path, the rest is Hydra's own
    (overrides, ``--multirun``, ``--cfg job``, ``--help`` and so on). Groups are looked up beside the file
    and in ``config_root``. Errors that a user can mend are printed as one line, and the exit status is 1;
    with ``BIXT3D_TRACEBACK=1`` in the environment the traceback is shown instead.

    Args:
        main: receives the composed, resolved config as plain containers.
        config_root: folder with the config groups that the toolkit ships.
    """
    program, *arguments = sys.argv
    given = next((a for a in arguments if a.endswith((".yaml", ".yml")) and "=" not in a), None)
    if given is None:
        shipped = ", ".join(sorted(p.stem for p in config_root.glob("*.yaml")))
        wants_help = bool({"-h", "--help"} & set(arguments))
        print(
            f"usage: python {program} CONFIG.yaml [key=value ...] [--multirun] [--cfg job] [--help]\n"
            f"configs in {config_root}: {shipped}",
            file=sys.stdout if wants_help else sys.stderr,
        )
        sys.exit(0 if wants_help else 2)
    path = Path(given)
    name = report_errors(lambda: _name(path))
    arguments.remove(given)
    defaults = [
        f"hydra.searchpath=[file://{config_root.resolve()}]",
        "hydra.output_subdir=null",
        "hydra.run.dir=.",
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
    ]
    # overrides in one piece and before the options, whose parser takes them in no other order; the last of two holds
    overrides = [a for a in arguments if a.startswith("~") or ("=" in a and not a.startswith("-"))]
    options = [a for a in arguments if a not in overrides]
    sys.argv = [program, *defaults, *overrides, *options]

    import hydra
    from omegaconf import DictConfig

    def job(config: DictConfig) -> None:
        report_errors(lambda: main(_resolved(config)))

    # Hydra prints its own errors over many lines; told so, it raises them like anyone else
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    decorated = hydra.main(version_base="1.3", config_path=str(path.parent.resolve()), config_name=name)
    with contextlib.ExitStack() as stack:
        if {"-m", "--multirun"} & set(options):
            # where Hydra writes what it was told to run; every run has a folder of its own for what it made
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            sys.argv.insert(1, f"hydra.sweep.dir={scratch}")
        report_errors(_as_value_errors()(decorated(job)))


def compose(path: str | Path, overrides: Sequence[str] = (), *, config_root: Path) -> dict[str, Any]:
    """Compose a config as :func:`launch` does, without running anything.

    Args:
        path: the YAML file.
        overrides: Hydra's overrides.
        config_root: see :func:`launch`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file, an option or an override that cannot be used.
    """
    import hydra

    path = Path(path)
    search_path = f"hydra.searchpath=[file://{config_root.resolve()}]"
    folder = str(path.parent.resolve())
    with _as_value_errors(), hydra.initialize_config_dir(config_dir=folder, version_base="1.3"):
        return _resolved(hydra.compose(_name(path), overrides=[search_path, *overrides]))


def _name(path: Path) -> str:
    """Return a config's name, for Hydra, which would look for another file beside one that does not end in .yaml."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such config; expected the path of a YAML file.")
    if path.suffix != ".yaml":
        raise ValueError(f"{path}: expected a config whose name ends in .yaml; rename it.")
    return path.stem


def build(node: Mapping[str, Any], where: str = "config", **keywords: Any) -> Any:
    """Make the call that a node describes.

    What a node with ``_partial_`` leaves to the code is a ``functools.partial``, and an error of that later call names
    the node as well.

    Args:
        node: mapping with ``_target_``; nested nodes are built first.
        where: name of the node in messages.
        **keywords: further keywords of the outermost call.

    Raises:
        ValueError: unknown target or key, or a value that the call refuses.
        TypeError: a value of another type than the call's annotation.
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
        # Hydra wraps what the call raised; the cause is what the user needs
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
    """The rest of a node's call; an error of it names the node."""

    where: str

    def __call__(self, /, *args: Any, **keywords: Any) -> Any:
        try:
            return super().__call__(*args, **keywords)
        except USER_ERRORS as error:
            raise placed(error, f"{self.where}: ") from error


def build_settings(cls: type[T], node: Mapping[str, Any], where: str) -> T:
    """Make a settings dataclass from a mapping, checked like a node."""
    check_keywords(cls, node, where)
    try:
        return cls(**node)
    except (ValueError, TypeError) as error:
        raise placed(error, f"{where}.") from error


def override(config: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return a saved config with ``key.key=value`` assignments.

    They change keys that are there or that the call of their node takes; Hydra's ``+`` before a key does no harm.

    Raises:
        ValueError: an argument is no assignment, names a key that there is not, or gives a node the name of a group.
    """
    from omegaconf import DictConfig, OmegaConf

    merged = OmegaConf.create(dict(config))
    OmegaConf.set_struct(merged, True)
    for text in assignments:
        key, separator, value = text.removeprefix("+").partition("=")
        if not separator:
            raise ValueError(f"argument {text!r}: expected key=value.")
        with _as_value_errors(f"argument {text}: "):
            given = OmegaConf.from_dotlist([f"value={value}"])["value"]
            held = OmegaConf.select(merged, key)
            if isinstance(held, DictConfig) and isinstance(given, str):
                inside = next((str(k) for k in held if not str(k).startswith("_")), "KEY")
                raise ValueError(
                    f"{key}: overrides of a saved config take values, not groups; name a key inside it, such as "
                    f"{key}.{inside}=VALUE."
                )
            parent, _, leaf = key.rpartition(".")
            taken = _taker(OmegaConf.select(merged, parent), leaf) is not None
            OmegaConf.update(merged, key, given, merge=True, force_add=taken)
    return _resolved(merged)


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], besides: Sequence[str] = ()
) -> list[tuple[str, Any, Any]]:
    """List the keys whose values differ between two configs, dotted and in order, with both values.

    ``besides`` are dotted keys that do not count; a key that a config lacks has the value None.
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

    with _as_value_errors("saved config: "):
        node = OmegaConf.create(text)
    return _resolved(node)


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file as plain containers.

    Raises:
        ValueError: the file is no YAML.
    """
    import yaml

    with _as_value_errors(f"{path}: "):
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


def _resolved(config: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    with _as_value_errors():
        return typing.cast(dict, OmegaConf.to_container(config, resolve=True, throw_on_missing=True))


@contextlib.contextmanager
def _as_value_errors(where: str = "") -> Iterator[None]:
    """Turn errors of Hydra, OmegaConf and the reader of YAML into a ValueError of one sentence."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{where}{_sentence(error)}") from error


def _taker(node: Any, key: str) -> str | None:
    """Return the name of what a node calls, where that call takes the key; else None."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        return None
    try:
        target = locate(node["_target_"], "")
    except ValueError:  # said when the node is built
        return None
    return None if not_taken(target, [key]) else full_name(target)


def _sentence(error: BaseException) -> str:
    """Say in one line what an error of Hydra's or OmegaConf's says in several."""
    cause = error.__cause__ or error  # Hydra wraps OmegaConf's, which know the key and its neighbours
    key, parent = getattr(cause, "full_key", None), getattr(cause, "parent_node", None)
    if "not in struct" in str(cause) and isinstance(parent, Mapping):
        path = str(key).replace("[", ".").replace("]", "")
        hint = re.search(r"Could not override '(.*)'\.\s+To append .* use (\+.*)", str(error))
        taker = _taker(parent, path.rpartition(".")[2])
        if taker and hint and hint[1] == path:  # else a key further inside is meant
            return f"{path}: the config does not write this key, but {taker} takes it; add it with a plus: {hint[2]}"
        known = ", ".join(sorted(str(k) for k in parent)) or "(none)"
        return f"{key}: unknown key; expected one of {known}."
    if "out of range" in str(cause) and isinstance(parent, Sequence):
        return f"{key}: there is no such entry; the list has {len(parent)}, counted from 0."
    if "Missing mandatory value" in str(cause):
        return f"{key}: has no value yet; give one with {key}=VALUE."
    text = str(error).partition("Config search path")[0]
    details = ("full_key:", "object_type=", "See https:")
    lines = [line.strip() for line in text.splitlines()]
    return " ".join(" ".join(x for x in lines if not x.startswith(details)).split()) or type(error).__name__
