"""What merges share that are a weighted mean of the weights of checkpoints."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from foretrain.checkpoints import Checkpointer
from foretrain.errors import RequestError
from foretrain.exporting import load_run_model
from foretrain.merging.base import Merge, Merged
from foretrain.merging.members import check_members
from foretrain.merging.networks import differences, weights_of
from foretrain.modalities.base import modality_of
from foretrain.section import Count
from foretrain.spans import interval

if TYPE_CHECKING:
    from foretrain.recipe import Recipe
    from foretrain.run_directory import RunDirectory


class Weighted(Merge):
    """A weighted mean of the weights of the last checkpoints of every run, summed in float64.

    What is averaged is the plain model of each checkpoint, so it is the same for every parametrization. It costs one
    pass over the weights, and as much at use as one model. Runs from different weights end in different valleys of the
    loss, and their mean is no model.
    """

    last: Count = Field(5, gt=0)
    """How many of the newest checkpoints of each run are averaged, by the schedule of `checkpoint.every`."""

    @abstractmethod
    def shares(self) -> list[float]:
        """Weights of a run's `last` checkpoints, the oldest first, on any scale."""

    def check(self, recipe: Recipe, steps: int | None = None) -> None:
        keep, every = recipe.checkpoint.keep, recipe.checkpoint.every
        if self.last == 1:
            return
        if keep < self.last:
            raise RequestError(
                f"merge: the average of the last {self.last} checkpoints needs checkpoint.keep: {self.last} or more "
                f"(the recipe keeps {keep})."
            )
        steps = steps or recipe.budget.steps
        if steps is not None:
            written = -(-steps // interval(every, steps))
        elif isinstance(every, float):
            written = -int(-1 // every)
        else:
            return
        if written < self.last:
            raise RequestError(
                f"merge: the average of the last {self.last} checkpoints needs a run that writes as many, and with "
                f"checkpoint.every: {every:g} this one writes {written}. Lower checkpoint.every or merge.last."
            )

    def merge(self, runs: Sequence[RunDirectory]) -> Merged:
        check_members(runs)
        sums: dict[str, Tensor] = {}
        kept: PreTrainedModel | None = None
        total = 0.0
        for run, model, share in self._models(runs):
            weights = weights_of(model)
            if kept is None:
                sums = {name: share * weight.double() for name, weight in weights.items()}
            else:
                _refuse_other(run, model, weights, runs[0], kept, sums)
                for name, weight in weights.items():
                    sums[name] += share * weight.double()
            kept, total = model, total + share
        assert kept is not None
        with torch.no_grad():
            for name, weight in weights_of(kept).items():
                mean = sums[name] / total
                weight.copy_(mean if weight.is_floating_point() else mean.round())
        return Merged(kept, _subject(kept, runs[0]))

    def _models(self, runs: Sequence[RunDirectory]) -> Iterator[tuple[RunDirectory, PreTrainedModel, float]]:
        """The models, one at a time, each with its share."""
        for run in runs:
            # The last checkpoint of a finished run is its model, which may be all that was kept of it.
            steps = [None] if self.last == 1 else self._steps(run)
            for step, share in zip(steps, self.shares(), strict=True):
                yield run, load_run_model(run, step)[0], share

    def _steps(self, run: RunDirectory) -> list[int]:
        found = Checkpointer(run.checkpoints_path, owner=False)
        steps = [step for step in found.steps() if not found.manifest(step).passing]
        if len(steps) < self.last:
            raise RequestError(
                f"{run.path} has {len(steps)} checkpoints, fewer than the {self.last} to be averaged. Run it with "
                f"checkpoint.keep: {self.last} and a small enough checkpoint.every, or lower merge.last."
            )
        return steps[-self.last :]


def _subject(model: PreTrainedModel, run: RunDirectory) -> Any:
    """A model as the tasks of a run see it."""
    modality = modality_of(model.config)
    return modality.subject(model, modality.load_tokenizer(run.tokenizer_path), int(run.plan()["model"]["context"]))


def _refuse_other(
    run: RunDirectory,
    model: PreTrainedModel,
    weights: dict[str, Tensor],
    first: RunDirectory,
    before: PreTrainedModel,
    sums: dict[str, Tensor],
) -> None:
    """See that the weights of two models are numbers of the same meaning."""
    differ = differences(weights, model.config, sums, before.config)
    if differ:
        raise RequestError(
            f"{run.path} cannot be averaged with {first.path}: their models are not the same network "
            f"({'; '.join(differ[:3])}). Average runs of one `model`; others can be merged as an ensemble."
        )
