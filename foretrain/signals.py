"""Interruption: SIGTERM and SIGINT as a flag that the training loop looks at between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Interruption:
    """While open, the first SIGTERM or SIGINT only sets `requested`; a second SIGINT raises KeyboardInterrupt at once.

    Python gives signals to the main thread only: opened in another thread, this changes nothing and is never requested.
    A SIGINT that was ignored when the program started (a shell's background job) stays ignored.

    Attributes:
        requested: whether the run was asked to stop.
        name: the first signal that came ("SIGTERM", "SIGINT"), or empty.
    """

    def __init__(self) -> None:
        self.requested = False
        self.name = ""
        self._before: dict[signal.Signals, Any] = {}

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        self.name = self.name or signal.Signals(number).name

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                before = signal.getsignal(number)
                # None: a handler that Python did not set and could not put back.
                if before is not None and before != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """While open, SIGTERM raises KeyboardInterrupt as Ctrl-C does: for work between whose steps nothing is lost.

    Within an `Interruption` Ctrl-C does so again too. A SIGINT that is ignored stays ignored.
    """
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if handler is not None and not (number == signal.SIGINT and handler == signal.SIG_IGN):
                before[number] = signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
