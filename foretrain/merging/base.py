"""Merge: what is made of finished runs after training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn
from transformers import PreTrainedModel

from foretrain.parts import Part

if TYPE_CHECKING:
    from foretrain.recipe import Recipe
    from foretrain.run_directory import RunDirectory
    from foretrain.tasks.base import Evaluated


@dataclass(frozen=True)
class Merged:
    """What came out of a merge, in fp32 and eval mode.

    Attributes:
        model: what objectives run through: ids in, logits out, as a `transformers` model does it.
        subject: the same as tasks see it.
        inference: forward passes of a member that one use of it costs.
    """

    model: nn.Module
    subject: Evaluated
    inference: int = 1

    @property
    def exported(self) -> PreTrainedModel | None:
        """The model, where it is one with weights of its own that `transformers` can load."""
        return self.model if isinstance(self.model, PreTrainedModel) else None


class Merge(Part):
    """Makes one thing to be judged of the checkpoints of a run, or of several runs. It trains nothing.

    It is a pure function of the runs, and leaves them as they are.
    """

    axis: ClassVar[str] = "merge"

    def check(self, recipe: Recipe, steps: int | None = None) -> None:
        """Find, before anything is trained, why the runs of a recipe could not be merged.

        Args:
            recipe: of a run that will be merged.
            steps: how long it will be, where that is known.

        Raises:
            RequestError: they will lack something; the message says what to set.
        """

    @abstractmethod
    def merge(self, runs: Sequence[RunDirectory]) -> Merged:
        """Merge finished runs (`members.check_members` has seen them), one in memory at a time where that is enough.

        Raises:
            RequestError: they do not fit together, or lack something.
        """
