"""End a run with the mean of its latest weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from foretrain.errors import RequestError
from foretrain.parts import Facts
from foretrain.section import Count
from foretrain.spans import Span
from foretrain.steering._averaging import Averaging

if TYPE_CHECKING:
    from foretrain.context import Context


class LatestAverage(Averaging):
    """Latest weight averaging: the uniform mean of the last snapshots, the last step's weights among them.

    Under a constant or slowly falling learning rate it takes out what noise a decay would have taken out. It is put in
    place after the last step; evaluations before that see the weights in training. The same mean of checkpoints, after
    the run, is `merge: {kind: average}`.
    """

    kind: Literal["latest_average"] = "latest_average"
    facts: ClassVar[Facts] = Facts(
        paper="Stop Wasting My Time! Saving Days of ImageNet and BERT Training with Latest Weight Averaging",
        arxiv="2209.14981",
        year=2022,
        answers="update: which weights does the run end with? the mean of its latest ones",
        overhead="a copy of the weights, and a pass over them at each snapshot",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"last": 1}

    every: Span = Field(0.02, gt=0)
    """Distance of snapshots: a share of the run, or a whole number of steps."""
    last: Count = Field(5, gt=0)
    """How many are averaged."""

    def setup(self, context: Context) -> None:
        """See the base.

        Raises:
            RequestError: a budget in minutes, or more snapshots than the run has room for.
        """
        super().setup(context)
        room = -(-context.total_steps // self.distance)
        if self.last > room:
            raise RequestError(
                f"steering '{self.kind}': the last {self.last} snapshots at a distance of {self.distance} steps need a "
                f"longer run than {context.total_steps} steps, which has room for {room}. Lower every or last."
            )

    def wanted(self, left: int) -> bool:
        return left < self.last

    def weight(self, taken: int) -> float:
        return 1 / taken
