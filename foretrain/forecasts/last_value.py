"""The last value so far, for all that comes."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from foretrain.forecasts._held import Holding
from foretrain.forecasts.curves import Floats
from foretrain.parts import Facts


class LastValue(Holding):
    """The mean of the last values of the same run, or of the run with the most compute (Hitchhiker's baseline)."""

    kind: Literal["last_value"] = "last_value"
    facts: ClassVar[Facts] = Facts(
        paper="A Hitchhiker's Guide to Scaling Law Estimation",
        arxiv="2410.11840",
        year=2024,
        answers="what if nothing changed any more?",
    )

    window: float = Field(0.02, ge=0, le=1)
    """Share of the values so far whose mean it is; 0: the very last."""

    def held(self, values: Floats) -> float:
        return float(values[-max(1, round(self.window * values.size)) :].mean())
