"""Faults on purpose, for tests: kill this process, or fill the disk, at a named point.

`FORETRAIN_FAULT="mid-checkpoint:2"` ends the process by SIGKILL the second time `reach("mid-checkpoint")` is called;
`"term-mid-step:3"` sends it SIGTERM the third time `mid-step` is reached; `"full-disk:5"` makes the fifth write to
disk, and every one after it, fail as on a full disk. Several faults are joined by commas. Without the variable
`reach` only looks at an empty dict.

Points: `mid-step` (between backward and optimizer), `mid-checkpoint` (tensors written, no manifest yet), `mid-rename`
(all written, not yet under its final name), `write` (before each piece written to any file).
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter

from foretrain.errors import RequestError

_armed: dict[str, int] = {}
_reached: Counter[str] = Counter()


def reach(point: str) -> None:
    """Say that `point` is reached; nothing happens unless a fault is armed for it.

    Raises:
        OSError: ENOSPC, where a full disk is armed and `point` is `write`.
    """
    if _armed:
        _strike(point)


def arm(faults: str) -> None:
    """Arm the faults of a text such as `mid-step:3,full-disk:1`, in place of those armed before; empty for none."""
    _armed.clear()
    _reached.clear()
    for fault in filter(None, faults.split(",")):
        point, _, count = fault.strip().rpartition(":")
        if not point or not count.isdigit() or int(count) == 0:
            raise RequestError(
                f"FORETRAIN_FAULT: '{fault}' should be a point and a count from 1 on, such as mid-step:3."
            )
        _armed[point] = int(count)


def _strike(point: str) -> None:
    _reached[point] += 1
    if _reached[point] == _armed.get(point):
        os.kill(os.getpid(), signal.SIGKILL)
    if _reached[point] == _armed.get(f"term-{point}"):
        os.kill(os.getpid(), signal.SIGTERM)
    full = _armed.get("full-disk")
    if point == "write" and full is not None and _reached[point] >= full:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


arm(os.environ.get("FORETRAIN_FAULT", ""))
