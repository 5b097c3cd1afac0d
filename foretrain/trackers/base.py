"""Tracker: a service or file format that the metrics of a run are also sent to."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from foretrain.parts import Part


class Tracker(Part):
    """Receives what goes to `metrics.jsonl` and `timing.jsonl`. Trackers never see data or weights."""

    axis: ClassVar[str] = "tracker"

    @abstractmethod
    def start(self, run: Path, name: str, recipe: Mapping[str, Any]) -> None:
        """Open the tracker for a run directory; `recipe` is the resolved recipe as plain data.

        Raises:
            RequestError: its package is not installed (the message names the extra).
        """

    @abstractmethod
    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """One step's figures."""

    def finish(self) -> None:
        """Flush and close."""
