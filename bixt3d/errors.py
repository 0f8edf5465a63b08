"""Error reporting of the scripts: an error that the user can fix is printed as one line."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
# Errors that a user can fix. A subclass comes before its base, so that the first match is the most specific.
USER_ERRORS = (
    FileNotFoundError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ImportError,
    TypeError,
    ValueError,
)
# Packages whose messages say what to fix.
OWN_PACKAGES = ("bixt3d", "hydra", "omegaconf")
INTERRUPTED = 130  # 128 + SIGINT, as in a shell


def report_errors(action: Callable[[], T]) -> T:
    """Run the main function of a script; print an error that the user can fix as one line and exit with status 1.

    If the error was not raised by the toolkit itself, as with a bug in a user's own model, its traceback is printed
    before that line. Ctrl-C prints ``interrupted`` and exits with status 130. With ``BIXT3D_TRACEBACK=1`` in the
    environment, errors and Ctrl-C are raised unchanged. Output errors never end the work: see :func:`steady_output`.

    Args:
        action: the function to run, defined in the script's own file.

    Returns:
        The return value of ``action``.

    Raises:
        SystemExit: ``action`` failed with one of ``USER_ERRORS``, or was interrupted.
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
    """Keep ``print`` from failing inside the context: on unencodable characters, a closed pipe or a full disk.

    Characters that the stream cannot encode are written as escapes (``\\xb7``). A stream that fails is silent from
    then on.
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
    """A text stream whose writes never fail."""

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
        """Redirect the stream, with what is still in its buffer, to the null device."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is not a file
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def _says_enough(error: BaseException) -> bool:
    """Whether an error needs no traceback: the operating system, the script, the toolkit or Hydra raised it."""
    if isinstance(error, OSError):
        return True
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    package = str(frames[-1].f_globals.get("__name__")).partition(".")[0]
    # the first frame is report_errors, the second the script's own action
    return package in OWN_PACKAGES or frames[-1].f_code.co_filename == frames[1].f_code.co_filename


def sentence(error: BaseException) -> str:
    """Return an error's message as one line; that of an operating system error begins with the file name."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}."
    return " ".join(text.split()) or type(error).__name__


def placed(error: BaseException, where: str) -> Exception:
    """Return an error of the same kind whose message begins with ``where``.

    Its class is the first of ``USER_ERRORS`` that matches, or ValueError if none does. The error's own class cannot
    be used, since its constructor may need more than a message, as that of UnicodeDecodeError does.
    """
    kind = next((k for k in USER_ERRORS if isinstance(error, k)), ValueError)
    return kind(f"{where}{sentence(error)}")
