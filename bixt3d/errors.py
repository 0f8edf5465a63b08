"""What a script does with errors that its user can mend: it ends with one sentence."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
# What a user can do something about. A subclass stands before its base, so that the first that fits says the most.
USER_ERRORS = (
    FileNotFoundError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ImportError,
    TypeError,
    ValueError,
)
# Packages whose messages say what to mend.
OWN_PACKAGES = ("bixt3d", "hydra", "omegaconf")
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


def report_errors(action: Callable[[], T]) -> T:
    """Run a script's work; print an error that a user can mend as one line and exit with status 1.

    Where the toolkit did not raise it itself, as of a bug in a model of one's own, the traceback stands before that
    line. Ctrl-C prints ``interrupted`` and exits with status 130. With ``BIXT3D_TRACEBACK=1`` in the environment the
    error is raised instead of either. Printing ends no work: see :func:`steady_output`.

    Args:
        action: the work, a function of the script's own file.

    Returns:
        What it returns.

    Raises:
        SystemExit: it failed with one of ``USER_ERRORS``, or was interrupted.
    """
    try:
        with steady_output():
            return action()
    except (*USER_ERRORS, KeyboardInterrupt) as error:
        if os.environ.get("BIXT3D_TRACEBACK") == "1":
            raise
        if isinstance(error, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
            sys.exit(INTERRUPTED)
        if not _says_enough(error):
            traceback.print_exception(error)
        sys.exit(f"error: {sentence(error)}")


@contextlib.contextmanager
def steady_output() -> Iterator[None]:
    """While it lasts, no print ends the work: not what the output cannot encode, not a closed pipe, not a full disk.

    What cannot be encoded is written as an escape (``\\xb7``). A stream that takes nothing any more is silent from then
    on.
    """
    before = sys.stdout, sys.stderr
    steady = tuple(s if s is None or isinstance(s, _Steady) else _Steady(s) for s in before)
    sys.stdout, sys.stderr = steady
    try:
        yield
    finally:
        for stream in steady:
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before


class _Steady:
    """A text stream that nothing written to it can fail on."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            return self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError:
            self._silence()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._silence()

    def _silence(self) -> None:
        """Let the stream end nowhere, also what it still holds."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is no file
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def _says_enough(error: BaseException) -> bool:
    """Whether the operating system, the script, the toolkit or its reader of configs raised an error."""
    if isinstance(error, OSError):
        return True
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    package = str(frames[-1].f_globals.get("__name__")).partition(".")[0]
    # the first frame is that of report_errors, the second that of the script's own action
    return package in OWN_PACKAGES or frames[-1].f_code.co_filename == frames[1].f_code.co_filename


def sentence(error: BaseException) -> str:
    """Say in one line what an error says; one of the operating system begins with the file's name."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}."
    return " ".join(text.split()) or type(error).__name__


def placed(error: BaseException, where: str) -> Exception:
    """Return an error of the same kind whose message begins with ``where``.

    The kind is one of ``USER_ERRORS``, since the error's own class may take other arguments than a message, as
    UnicodeDecodeError does; ValueError where it is none of them.
    """
    kind = next((k for k in USER_ERRORS if isinstance(error, k)), ValueError)
    return kind(f"{where}{sentence(error)}")
