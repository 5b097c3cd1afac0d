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
        momentum: share of a running mean that is kept at each step.
        constant: the threshold of every class in place of these, where there is one; means are kept all the same.
    """

    def __init__(self, momentum: float, constant: float | None = None) -> None:
        self.momentum, self.constant = momentum, constant
        self.mean: float | None = None
        """Over all classes; None before there was anything."""
        self._classes: dict[str, float] = {}

    def follow(self, sums: Tensor, counts: Tensor, classes: Sequence[str]) -> None:
        """Move the means by one batch; one that has nothing at all leaves them.

        Args:
            sums: float64 [classes], sums of the signal over what the batch has of each class.
            counts: float64 [classes], over how much.
            classes: their names.
        """
        if not bool(counts.any()):
            return
        self.mean = self._moved(self.mean, float(sums.sum() / counts.sum()))
        for name, total, count in zip(classes, sums.tolist(), counts.tolist(), strict=True):
            if count > 0:
                self._classes[name] = self._moved(self._classes.get(name), total / count)

    def _moved(self, old: float | None, new: float) -> float:
        # In this form a mean that does not change stays the same to the last bit.
        return new if old is None else old + (1 - self.momentum) * (new - old)

    def of(self, classes: Sequence[str]) -> Tensor:
        """The thresholds, float64 [classes]; that of a class never seen is the mean, and 0 before there was any."""
        if self.constant is not None:
            return torch.full((len(classes),), self.constant, dtype=torch.float64)
        largest = max(self._classes.values(), default=1.0) or 1.0
        mean = self.mean or 0.0
        return torch.tensor(
            [mean * self._classes.get(name, largest) / largest for name in classes], dtype=torch.float64
        )

    def state_dict(self) -> dict[str, Any]:
        """All means."""
        return {"mean": self.mean, "classes": dict(self._classes)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.mean, self._classes = state["mean"], dict(state["classes"])
