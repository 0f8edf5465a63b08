"""Values on a command line: paths and names in any language, also where Hydra's grammar has no word for them."""

from __future__ import annotations

import re
from typing import Any

PAIRS = {"[": "]", "(": ")", "{": "}"}
WINDOWS_PATH = re.compile(r"[A-Za-z]:\\|\\\\")  # in which Hydra would take some backslashes for escapes


def readable(text: str) -> str:
    r"""Return an override, ``key=value``, in a form that Hydra reads as it is meant.

    A value that Hydra's grammar refuses, such as a path with an umlaut, a bracket, ``&``, ``=`` or ``'``, is put into
    quotes, and so is a path of Windows (``C:\...``, ``\\server\share``). In a list, or between the commas of a sweep,
    each entry is looked at by itself. What Hydra reads is left alone.
    """
    key, equals, value = text.partition("=")
    return key + equals + _readable(value)


def quoted(value: str) -> str:
    """Put a value into quotes, in which Hydra takes all characters as they are, apart from ``${...}``."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text=value, quote=Quote.single).with_quotes()


def parsed_value(value: str) -> Any:
    """Return what the value of an override stands for, by the grammar of the command line.

    Raises:
        HydraException: it cannot be read.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(f"value={_readable(value)}").value()


def _readable(value: str) -> str:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    entries = _entries(value)
    if len(entries) > 1:
        return ",".join(map(_readable, entries))
    inside = value.strip()
    if inside.startswith("[") and inside.endswith("]"):
        return f"[{_readable(inside[1:-1])}]"
    if inside.startswith(("[", "{", "'", '"')):
        return value
    if not WINDOWS_PATH.match(value):
        try:
            OverridesParser.create().parse_override(f"value={value}")
        except HydraException:
            pass
        else:
            return value
    return quoted(inside)


def _entries(value: str) -> list[str]:
    """Cut at the commas that stand in no brackets and in no entry that begins with a quote."""
    entries = [""]
    awaited = ""  # what closes the quotes and brackets that are open, the innermost last
    for i, letter in enumerate(value):
        if awaited in ("'", '"'):
            if letter == awaited and (i == 0 or value[i - 1] != "\\"):
                awaited = ""
        elif letter in "'\"" and not entries[-1].strip():
            awaited = letter
        elif awaited and letter == awaited[-1]:
            awaited = awaited[:-1]
        elif letter in PAIRS:
            awaited += PAIRS[letter]
        elif letter == "," and not awaited:
            entries.append("")
            continue
        entries[-1] += letter
    return entries
