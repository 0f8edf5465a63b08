"""Quote override values, such as paths with special characters, that Hydra's grammar does not accept as they are."""

from __future__ import annotations

import re
from typing import Any

PAIRS = {"[": "]", "(": ")", "{": "}"}
WINDOWS_PATH = re.compile(r"[A-Za-z]:\\|\\\\")  # Hydra would read some of its backslashes as escapes


def readable(text: str) -> str:
    r"""Return an override, ``key=value``, with its value quoted if Hydra could not read it otherwise.

    Quotes are added to values that Hydra's grammar rejects, such as a path with an umlaut, a bracket, ``&``, ``=`` or
    ``'``, and to Windows paths (``C:\...``, ``\\server\share``). In lists and in the comma-separated values of a sweep,
    each entry is treated separately. Other values are left unchanged.
    """
    key, equals, value = text.partition("=")
    return key + equals + _readable(value)


def quoted(value: str) -> str:
    """Quote a value, so that Hydra reads all its characters literally, except ``${...}``."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text=value, quote=Quote.single).with_quotes()


def parsed_value(value: str) -> Any:
    """Parse the value of an override by the grammar of the command line.

    Raises:
        HydraException: the value cannot be parsed.
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
    """Split a value at the commas outside brackets and outside quotes that begin an entry."""
    entries = [""]
    awaited = ""  # closing characters of the open quotes and brackets, innermost last
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
