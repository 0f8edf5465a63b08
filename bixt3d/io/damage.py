"""One kind of error for files that a parser rejects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_LONGEST = 300  # characters of the reason, since a parser may quote a whole line of the file


@dataclass
class Parsing:
    """Context manager that turns any exception of a parser into a RuntimeError of one sentence.

    On damaged files, libraries may raise any exception.

    Args:
        path: the file.
        form: name of the format that it is parsed as.

    Raises:
        RuntimeError: an exception was raised in the ``with`` block.
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
