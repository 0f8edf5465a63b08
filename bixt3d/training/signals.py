"""Stop a training run cleanly when the user or the scheduler asks for it."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

# Seconds within which a second SIGINT is ignored: torchrun forwards Ctrl-C to processes that the terminal has already
# sent it to.
ONE_PRESS = 1.0
# Signals that ask a run to stop, as far as the platform has them: Ctrl-C, schedulers, SLURM's warning
# (--signal=USR1@60), a lost connection, and Ctrl-Break, which is what a process can send to another on Windows.
STOPS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
)


class StopRequest:
    """Record the signals of ``STOPS`` instead of being ended by them.

    Use as a context manager around the loop, and check :attr:`requested` between steps. A second Ctrl-C, at least a
    second after the first signal, raises KeyboardInterrupt at once. SIGHUP stays ignored if it was before, as under
    ``nohup``. The previous handlers are restored at the end. Outside the main thread, where Python allows no signal
    handlers, :attr:`requested` is always None.

    Attributes:
        requested: number of the first signal received, or None.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._since = 0.0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in STOPS:
                if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested is None:
            self.requested, self._since = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._since >= ONE_PRESS:
            raise KeyboardInterrupt
