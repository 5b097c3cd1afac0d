"""Rule: how the task vectors of several models become one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from foretrain.parts import Part

if TYPE_CHECKING:
    from foretrain.merging.vectors import TaskVectors

Combine = Callable[[str, Sequence[Tensor]], Tensor]
"""What becomes of one tensor: its name and the models' differences in it, float64, give one difference."""


class Rule(Part):
    """Makes one task vector of several, tensor by tensor."""

    axis: ClassVar[str] = "rule"

    @abstractmethod
    def over(self, vectors: TaskVectors) -> Combine:
        """What becomes of each tensor of these vectors.

        A rule that must know something of whole vectors (a threshold, a norm) passes over them here, with one tensor in
        memory at a time.
        """
