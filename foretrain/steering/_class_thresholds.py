"""Thresholds that follow a run, one for each class (after FreeMatch, arXiv 2205.07246)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class ClassThresholds:
    """The running mean of a signal over everything, times each class's own running mean over the largest of these.

    Running means begin with the first batch's. Classes that a batch has nothing of keep theirs.

    Args:
        signals: how many signals there are; each has thresholds of its own.
        momentum: share of a running mean that is kept at each step.
    """

    def __init__(self, signals: int, momentum: float) -> None:
        self.momentum = momentum
        self.means: list[float] = [0.0] * signals
        self._classes: dict[str, list[float]] = {}

    def follow(self, sums: Tensor, counts: Tensor, classes: Sequence[str]) -> None:
        """Move the means by one batch.

        Args:
            sums: float64 [signals, classes], sums of the signals over what the batch has of each class.
            counts: float64 [classes], over how much; not all 0.
            classes: their names.
        """
        found = (sums.sum(1) / counts.sum()).tolist()
        self.means = self._moved(self.means, found) if self._classes else found
        for name, values, count in zip(classes, sums.T.tolist(), counts.tolist(), strict=True):
            if count > 0:
                mean = [value / count for value in values]
                self._classes[name] = self._moved(self._classes[name], mean) if name in self._classes else mean

    def _moved(self, old: list[float], new: list[float]) -> list[float]:
        # In this form a mean that does not change stays the same to the last bit.
        return [a + (1 - self.momentum) * (b - a) for a, b in zip(old, new, strict=True)]

    def of(self, classes: Sequence[str]) -> Tensor:
        """The thresholds, float64 [signals, classes]; that of a class never seen is the mean."""
        largest = [max(values) or 1.0 for values in zip(*self._classes.values(), strict=True)]
        rows = [self._classes.get(name, largest) for name in classes]
        return torch.tensor(
            [[mean * row[signal] / largest[signal] for row in rows] for signal, mean in enumerate(self.means)],
            dtype=torch.float64,
        )

    def state_dict(self) -> dict[str, Any]:
        """All means."""
        return {"means": list(self.means), "classes": {name: list(values) for name, values in self._classes.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.means = list(state["means"])
        self._classes = {name: list(values) for name, values in state["classes"].items()}
