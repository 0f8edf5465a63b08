"""Leave a training run cleanly when the user or the scheduler asks for it."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

# Seconds. One Ctrl-C in a terminal comes twice where torchrun hands it on to processes that have got it already.
ONE_PRESS = 1.0
# What asks a run to leave, where the platform has it: Ctrl-C, schedulers, SLURM's warning (--signal=USR1@60), the end
# of a connection, and Ctrl-Break, the one that a process on Windows can send to another.
STOPS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
)


class StopRequest:
    """Note ``STOPS`` instead of dying of them; a second Ctrl-C, a second later, interrupts at once.

    SIGHUP stays without effect where it was so before, as under ``nohup``. Use as a context manager around the loop
    and look at :attr:`requested` between steps. The handlers that were in place come back at the end. Outside the
    main thread, where Python allows no handlers, it never asks to stop.

    Attributes:
        requested: number of the signal that came, or None.
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
