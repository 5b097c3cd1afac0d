"""The best value so far, for all that comes."""

from __future__ import annotations

from typing import ClassVar, Literal

from foretrain.forecasts._held import Holding
from foretrain.forecasts.curves import Floats
from foretrain.parts import Facts


class BestSoFar(Holding):
    """The lowest value of the same run, or of the run with the most compute."""

    kind: Literal["best_so_far"] = "best_so_far"
    facts: ClassVar[Facts] = Facts(
        paper="A Hitchhiker's Guide to Scaling Law Estimation",
        arxiv="2410.11840",
        year=2024,
        answers="what if the best loss so far were the last one?",
    )

    def held(self, values: Floats) -> float:
        return float(values.min())
