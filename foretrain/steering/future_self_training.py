"""Learn from an averaged teacher that has looked some steps ahead."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.gradients import clip_gradient, mean_gradient
from foretrain.parts import Facts
from foretrain.section import Count, Number
from foretrain.steering._teaching import Known, Taught

if TYPE_CHECKING:
    from foretrain.context import Context
    from foretrain.objectives.base import Targets
    from foretrain.objectives.outputs import Outputs


class FutureSelfTraining(Taught):
    """FST: a mean teacher that is averaged over virtual future students as well, before it gives a step's targets.

    The teacher is an exponential moving average of the student, `phi <- a phi + (1 - a) theta` with
    `a = min(1 - 1/(t + 1), decay)` in step t. At each step it takes in the student as it is; then `ahead` virtual
    students. `depth`: the student takes that many steps, one after the other, on the rows of the batch and with the
    targets that the teacher has by then, and the teacher takes in each. `wide`: it takes one step from the same weights
    on each of `ahead` parts of the batch's rows, and the teacher takes in the mean of the results. All of it is undone,
    the optimizer's state included (the released code leaves the moments as virtual steps made them, and counts those
    steps). Then the teacher gives the targets of the one step that is real. With `ahead` 0 it is the plain mean
    teacher.

    The paper's teacher labels images that have no labels. A language model has the label of every token: here the
    teacher's distribution is mixed with it, `q = (1 - w) onehot + w r`. So it can only regularise; that the teacher
    sees further is no knowledge that the text does not hold.

    Virtual steps are made at the rate of the step, with gradients in eval mode that are clipped like the run's own, and
    without what other steering parts do. A teacher that takes in more students per step is also a faster one: compare
    with a lower `decay`, and at matched compute.

    Figures: see `Taught`.
    """

    kind: Literal["future_self_training"] = "future_self_training"
    facts: ClassVar[Facts] = Facts(
        paper="Learning from Future: A Novel Self-Training Framework for Semantic Segmentation",
        arxiv="2209.06993",
        year=2022,
        answers="target: what will the averaged learner hold for likely next, some steps from now?",
        overhead="a forward pass of the teacher, and `ahead` whole steps with one each (`wide`: one step, in parts)",
    )

    ahead: Count = Field(3, ge=0)
    """Virtual steps (`wide`: virtual students) before each real one."""
    variant: Literal["depth", "wide"] = "depth"
    """Whether virtual students follow one another, or start from the same weights."""
    decay: Number = Field(0.99, ge=0, lt=1)
    """Most of itself that the teacher keeps each time it takes in a student; 0.99 to 0.999 in the paper."""

    _teacher: Any = PrivateAttr(None)

    def setup(self, context: Context) -> None:
        """See the base; the teacher is made at its first use.

        Raises:
            RequestError: a sharded model, or fewer rows than virtual students; more candidates than there are ids.
        """
        super().setup(context)
        self._teacher = None
        if context.learner.sharded:
            raise RequestError(
                "steering 'future_self_training' keeps a whole teacher on each process and cannot follow a sharded "
                "model; write `distributed: replicate`."
            )
        rows = context.stream.rows // context.group.world
        if self.variant == "wide" and self.ahead > rows:
            raise RequestError(
                f"steering 'future_self_training': {self.ahead} virtual students need a row of the batch each, and a "
                f"process has {rows}; lower `ahead`, or raise batch.tokens."
            )

    # The teacher ---------------------------------------------------------------------------------------------------

    def known(self, batch: Batch) -> Known | None:
        with torch.no_grad():
            outputs = self._context.objective.forward(self._teacher, batch)
            found: Known = outputs.candidates(batch["labels"], self.candidates)
        return found

    def before_step(self, batch: Batch) -> None:
        """The teacher takes in the student of today, and those of the virtual steps."""
        super().before_step(batch)
        weights = self._context.weights
        self._take_in(weights, batch.step)
        if self.ahead and self.variant == "depth":
            with self._context.undone():
                for _ in range(self.ahead):
                    self._step(batch)
                    self._take_in(weights, batch.step)
        elif self.ahead:
            rows = torch.arange(batch.rows, device=batch["mask"].device)
            total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
            for number in range(self.ahead):
                with self._context.undone():
                    # Rows at regular distances have all domains in the shares of the mixture.
                    self._step(batch.take(rows[number :: self.ahead]))
                    for name, weight in weights.items():
                        total[name] += weight.detach()
            self._take_in({name: tensor / self.ahead for name, tensor in total.items()}, batch.step)

    def _take_in(self, weights: Mapping[str, Tensor], step: int) -> None:
        """Move the teacher towards a student."""
        average = self._average()
        kept = min(1 - 1 / (step + 1), self.decay)
        torch._foreach_lerp_(list(average.values()), [weights[name].detach() for name in average], weight=1 - kept)

    def _average(self) -> dict[str, nn.Parameter]:
        """The teacher's own weights by the names of the student's, float32."""
        if self._teacher is None:
            # Made at its first use: only then is it known what the run starts from.
            self._teacher = copy.deepcopy(self._context.model).eval().requires_grad_(False).float()
            average = self._average()
            torch._foreach_copy_(list(average.values()), [self._context.weights[name].detach() for name in average])
            return average
        return {name: own for name, own in self._teacher.named_parameters() if name in self._context.weights}

    # Looking ahead -------------------------------------------------------------------------------------------------

    def _step(self, batch: Batch) -> None:
        """A step of the student on some rows with the teacher's targets."""

        def targets(outputs: Outputs, piece: Batch) -> Targets:
            found = self.known(piece)
            assert found is not None
            return self.mixed(found, piece.step)

        gradient = mean_gradient(self._context, batch, targets=targets)
        clip_gradient(gradient, self._context.recipe.stability.clip)
        self._context.apply(gradient)

    # State ---------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The teacher; empty before its first use."""
        if self._teacher is None:
            return {"teacher": {}}
        return {"teacher": {name: own.detach() for name, own in self._average().items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._teacher = None
        if state["teacher"]:
            for name, own in self._average().items():
                own.copy_(state["teacher"][name])
