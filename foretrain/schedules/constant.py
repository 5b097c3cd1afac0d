"""The peak value throughout."""

from __future__ import annotations

from typing import ClassVar, Literal

from foretrain.parts import Facts
from foretrain.schedules.base import Schedule


class Constant(Schedule):
    """Stays at 1 after the warm-up, to the last step."""

    kind: Literal["constant"] = "constant"
    facts: ClassVar[Facts] = Facts(answers="how does the learning rate move? not at all")

    def shape(self, step: int, start: int, total: int) -> float:
        return 1.0
