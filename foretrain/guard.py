"""Guard: finds steps that would do harm (non-finite values, loss spikes), has them skipped, and stops a lost run."""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Any, Literal

from foretrain.errors import RunError

WINDOW = 64
"""How many good losses the spike rule looks back on."""

Verdict = Literal["good", "non-finite", "spike"]


class Guard:
    """Judges each step from its loss and gradient norm, which are the same on every rank."""

    def __init__(self, spike: float | None, patience: int) -> None:
        self.spike = spike
        self.patience = patience
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self.bad_in_a_row = 0
        self.skipped = 0

    def begin(self) -> None:
        """Forget the losses so far: another stage begins, whose text may be harder for the model, or another loss."""
        self.recent.clear()

    def judge(self, step: int, loss: float, norm: float) -> Verdict:
        """Whether the step may be applied.

        Raises:
            RunError: `patience` bad steps in a row.
        """
        verdict = self._verdict(loss, norm)
        if verdict == "good":
            self.recent.append(loss)
            self.bad_in_a_row = 0
            return verdict
        self.bad_in_a_row += 1
        self.skipped += 1
        if self.bad_in_a_row >= self.patience:
            raise RunError(
                f"The run stopped at step {step}: {self.bad_in_a_row} bad steps in a row, the last one {verdict} "
                f"(loss {loss:.4g}, gradient norm {norm:.4g}). Checkpoints before it are kept. A lower optimizer.lr, a "
                "longer schedule.warmup or precision: fp32 are the usual cures; `--from RUN@step` starts before it."
            )
        return verdict

    def _verdict(self, loss: float, norm: float) -> Verdict:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return "non-finite"
        if self.spike is not None and len(self.recent) == WINDOW:
            middle = statistics.median(self.recent)
            # 1.4826 * the median absolute deviation estimates the standard deviation; the floor spares flat curves.
            spread = max(1.4826 * statistics.median(abs(value - middle) for value in self.recent), 0.02 * abs(middle))
            if loss > middle + self.spike * spread:
                return "spike"
        return "good"

    def state_dict(self) -> dict[str, Any]:
        """Recent losses and counters."""
        return {"recent": list(self.recent), "bad_in_a_row": self.bad_in_a_row, "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.recent = deque(state["recent"], maxlen=WINDOW)
        self.bad_in_a_row, self.skipped = state["bad_in_a_row"], state["skipped"]
