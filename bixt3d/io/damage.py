"""The error for a file that a parser rejects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_LONGEST = 300  # characters of a reason, which may quote a whole line of the file


@dataclass
class Parsing:
    """Make one sentence of whatever a library raises in a ``with`` block: on damaged bytes that may be any exception.

    Args:
        path: the file.
        form: what it is read as.

    Raises:
        RuntimeError: anything was raised.
    """

    path: str | Path
    form: str

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            reason = next(iter(str(error).splitlines()), "")[:_LONGEST] or type(error).__name__
            raise RuntimeError(
                f"{self.path}: cannot be read as {self.form}, it may be truncated or damaged: {reason.rstrip('.')}."
            ) from error
