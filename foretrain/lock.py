"""RunLock: one process at a time writes to a run's directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType

from foretrain.errors import RequestError

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP}
_POLL = 0.1
_held: weakref.WeakSet[RunLock] = weakref.WeakSet()
_patience: ContextVar[float] = ContextVar("_patience", default=0.0)


@contextlib.contextmanager
def patient(seconds: float) -> Iterator[None]:
    """While open, a run that another process writes is waited for, that long at most, before it is refused.

    For jobs that are started again after a kill: what is left of the killed one may still be writing its checkpoint.
    """
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


class RunLock:
    """Holds `RUN/.lock` until it is released or this process ends, however it ends.

    The kernel keeps the lock (`flock`), so nothing stale is left by a killed process; the file only names the holder.
    Where a file system has no such locks, the run goes on without one.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock; the directory is made if there is none.

        Raises:
            RequestError: another process holds it (within `patient`: still holds it after that time); the message names
                its process id.
        """
        try:
            self.run.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.run / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RequestError(f"The run directory {self.run} cannot be written: {error.strerror or error}.") from error
        try:
            _flock(handle)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                os.close(handle)
                return
            holder = os.read(handle, 32).decode(errors="replace").strip()
            os.close(handle)
            who = f"process {holder}" if holder else "another process"
            raise RequestError(
                f"The run {self.run} is being written by {who}. Wait for it to end or stop it, "
                "or give this run a directory of its own with --out."
            ) from error
        except BaseException:  # Ctrl-C while it waits
            os.close(handle)
            raise
        # The name is a courtesy: a disk too full for it shouldn't keep a run from starting.
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
        self._handle = handle
        _held.add(self)

    def release(self) -> None:
        """Give the lock back; nothing happens if it isn't held."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, 0)
            self._drop()

    def _drop(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
            _held.discard(self)

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _flock(handle: int) -> None:
    deadline = time.monotonic() + _patience.get()
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno in _NO_LOCKS or time.monotonic() >= deadline:
                raise
        time.sleep(_POLL)


def _drop_inherited() -> None:
    for lock in list(_held):
        lock._drop()


# A forked worker shares the lock's file: if it kept that open, a killed run would stay locked as long as it lives.
os.register_at_fork(after_in_child=_drop_inherited)
