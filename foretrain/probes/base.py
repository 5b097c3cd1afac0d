"""Probe: something measured on the model while it trains."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from foretrain.parts import Part
from foretrain.spans import Span

if TYPE_CHECKING:
    from foretrain.context import Context


class Probe(Part):
    """Measures something of the model at intervals. It changes nothing, and its cost is not counted in the budget."""

    axis: ClassVar[str] = "probe"

    every: Span = Field(0.1, gt=0)
    """How often: a share of the run (1.0: at both ends alone), or a whole number of steps."""

    def setup(self, context: Context) -> None:
        """Create private state."""

    @abstractmethod
    def measure(self, context: Context) -> dict[str, float]:
        """Figures by name; they appear as `probe/KIND/NAME` in `metrics.jsonl`."""
