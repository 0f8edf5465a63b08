"""Build the error for a file that a parser rejects."""

from __future__ import annotations

from pathlib import Path

_LONGEST = 300  # characters of a reason, which may quote a whole line of the file


def damaged(path: str | Path, form: str, error: Exception) -> RuntimeError:
    """Make one sentence of whatever a library raised: on damaged bytes that may be any exception.

    Args:
        path: the file.
        form: what it was read as.
        error: what the library raised.
    """
    reason = next(iter(str(error).splitlines()), "")[:_LONGEST] or type(error).__name__
    return RuntimeError(
        f"{path}: cannot be read as {form}, it may be truncated or damaged: {reason.rstrip('.')}."
    )
