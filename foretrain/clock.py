"""Clock: keeps a run with a budget in minutes on time although the machine does not keep its pace."""

from __future__ import annotations

import time
from collections.abc import Callable

LOOKS = (0.25, 0.5, 0.75, 0.9)
"""Shares of the steps after which the run looks at the clock."""
SLACK = 0.03
"""The plan stands while the run would end within this share of its minutes."""


class Clock:
    """Watches a run's end come nearer, and says when another number of steps would meet it better.

    A few steps before the first tell how many the minutes buy, but machines slow down and speed up. At a few points of
    the run the pace since the last such point tells when it would end; where that is off by more than 3 % of the
    minutes, the last step moves. One look at most halves or doubles the steps that are left, so a pause (a laptop that
    slept) does not end the run.

    Args:
        end: when the command should be done, in seconds since the epoch.
        minutes: the whole budget.
        closing: seconds kept for what follows the last step.
        now: the time, in seconds since the epoch.
    """

    def __init__(self, end: float, minutes: float, closing: float, now: Callable[[], float] = time.time) -> None:
        self.end, self.slack, self.closing, self.now = end, SLACK * minutes * 60, closing, now
        self.looks = list(LOOKS)
        self.first, self.step, self.since = 0, 0, now()

    def begin(self, step: int) -> None:
        """Training begins, at this step."""
        self.first, self.step, self.since = step, step, self.now()

    def due(self, step: int, total: int) -> bool:
        """Whether it is time to look."""
        done, planned = step - self.first, total - self.first
        return bool(self.looks) and self.step < step < total and done >= self.looks[0] * planned

    def total(self, step: int, total: int) -> int:
        """How many steps the run should have: `total` as before, or as many as end it on time."""
        del self.looks[0]
        now, left = self.now(), total - step
        pace = (now - self.since) / (step - self.step)
        self.step, self.since = step, now
        early = self.end - self.closing - now - left * pace
        if abs(early) <= self.slack:
            return total
        fitting = int(left + early / max(pace, 1e-9))
        return step + min(2 * left, max(fitting, (left + 1) // 2))
