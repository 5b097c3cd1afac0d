"""Merge: what is made of finished runs after training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

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
        told: what else is to be known of it, as plain data: what `merge.json` says. Its `figures` are figures of the
            result, `merge/NAME`.
    """

    model: nn.Module
    subject: Evaluated
    inference: int = 1
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def exported(self) -> PreTrainedModel | None:
        """The model, where it is one with weights of its own that `transformers` can load."""
        return self.model if isinstance(self.model, PreTrainedModel) else None


class Merge(Part):
    """Makes one thing to be judged of the checkpoints of a run, of several runs, or of models by name.

    It trains nothing. It is a pure function of what goes in, and leaves it as it is.
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

    def write(self, runs: Sequence[RunDirectory], folder: Path) -> dict[str, Any]:
        """Merge, and write what came out as a folder that `transformers` loads, where it has weights of its own.

        Returns:
            What `merge.json` is to say.

        Raises:
            RequestError: as for `merge`.
            RunError: the folder cannot be written.
        """
        from foretrain.merging.writing import write_merged

        return write_merged(self, self.merge(runs), runs, folder)
