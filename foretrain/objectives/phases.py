"""One objective after another within a run, which goes on as one: optimizer, learning rate and data order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, field_validator
from torch import Tensor, nn

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.objectives.base import Objective, Targets
from foretrain.objectives.outputs import Outputs
from foretrain.parts import Facts, PartOf
from foretrain.section import Number, Section
from foretrain.tokens.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from foretrain.context import Context


class Phase(Section):
    """One part of a run: what is predicted, and for how long."""

    objective: PartOf[Objective]
    """What is predicted."""
    share: Number = Field(1.0, gt=0)
    """Length, relative to the other phases."""


class Phases(Objective):
    """Biphasic training, or any number of phases: the objective changes at a share of the run, and nothing else does.

    Weights, the optimizer's state, the learning-rate schedule and the order of the data go on across a change. (What is
    read, and a learning rate that begins anew, are `stages`: they combine.) Every row of the stream is as long as the
    longest that a phase needs. Losses of training and validation are those of the phase that a step was of, so their
    curves jump where the objective changes. A run that is extended after its end goes on in its last phase.
    """

    kind: Literal["phases"] = "phases"
    facts: ClassVar[Facts] = Facts(
        paper="Should We Still Pretrain Encoders with Masked Language Modeling?",
        arxiv="2507.00994",
        year=2025,
        answers="what is predicted? one thing, and later another",
    )

    phases: dict[str, Phase] = Field(min_length=1)
    """Phases by name, in their order."""

    _ends: list[int] = PrivateAttr(default_factory=list)
    _step: int = PrivateAttr(0)
    _length: int = PrivateAttr(0)

    @field_validator("phases")
    @classmethod
    def _of_one_modality(cls, phases: dict[str, Phase]) -> dict[str, Phase]:
        found = {phase.objective.modality for phase in phases.values()}
        if found != {cls.modality}:
            raise ValueError(f"phases are of objectives that learn from {cls.modality}, not {', '.join(sorted(found))}")
        return phases

    def members(self) -> Sequence[Objective]:
        return [member for phase in self.phases.values() for member in phase.objective.members()]

    def setup(self, context: Context) -> None:
        """Set up every phase.

        Raises:
            RequestError: a phase would have no step.
        """
        super().setup(context)
        first, total = context.timeline.start, context.total_steps
        whole = sum(phase.share for phase in self.phases.values())
        done = accumulate(phase.share for phase in self.phases.values())
        self._ends = [first + round((total - first) * share / whole) for share in done]
        for name, begin, end in zip(self.phases, [first, *self._ends], self._ends, strict=False):
            # An extended run goes on with the ends that its checkpoint holds.
            if end <= begin and not context.rehearsal and first == 0:
                raise RequestError(
                    f"objective.phases.{name}: its share of the {total - first} steps is less than one; give it a "
                    "larger `share`, or the run a larger budget."
                )
        for phase in self.phases.values():
            phase.objective.setup(context)

    def fit(self, text: TextTokenizer | None, length: int) -> None:
        self._length = length
        for phase in self.phases.values():
            phase.objective.fit(text, length)

    def window(self, context_length: int) -> int:
        return max(phase.objective.window(context_length) for phase in self.phases.values())

    def _name(self, step: int) -> str:
        names = list(self.phases)
        return next((name for name, end in zip(names, self._ends, strict=False) if step < end), names[-1])

    @property
    def current(self) -> Objective:
        """The objective of the step that is made, or was made last."""
        name = self._name(self._step) if self._ends else next(iter(self.phases))
        return self.phases[name].objective

    def step_kind(self, step: int) -> str:
        name = self._name(step)
        return ":".join(part for part in (name, self.phases[name].objective.step_kind(step)) if part)

    def begins(self, step: int) -> bool:
        return step in self._ends[:-1]

    def before_step(self, step: int) -> None:
        self._step = step
        if self.begins(step):
            self.current.take_over()
        self.current.before_step(step)

    def prepare(self, batch: Batch) -> Batch:
        # Rows are as long as some phase needs. This one takes their end: what stands before it is context, and judged
        # in another row.
        width, whole = self.current.window(self._length), self.window(self._length)
        cut = {name: tensor[:, whole - width :] for name, tensor in batch.items() if tensor.shape[1:2] == (whole,)}
        return self.current.prepare(batch.with_(**cut))

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        return self.current.forward(model, batch)

    def losses(self, outputs: Outputs, batch: Batch, targets: Targets | None = None) -> Tensor:
        return self.current.losses(outputs, batch, targets)

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        return self.current.counts(batch)

    def special_tokens(self) -> Sequence[str]:
        return [name for phase in self.phases.values() for name in phase.objective.special_tokens()]

    def modules(self) -> Iterable[nn.Module]:
        return [module for phase in self.phases.values() for module in phase.objective.modules()]

    def of_the_model_alone(self) -> bool:
        # Its own state is a place in the run, which a merge has too: the end.
        return all(phase.objective.of_the_model_alone() for phase in self.phases.values())

    def after_step(self, step: int) -> None:
        self.current.after_step(step)

    def state_dict(self) -> dict[str, Any]:
        """The step, where the phases end, and what each keeps."""
        kept = {name: phase.objective.state_dict() for name, phase in self.phases.items()}
        return {"step": self._step, "ends": list(self._ends), "phases": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._step, self._ends = int(state["step"]), [int(end) for end in state["ends"]]
        for name, phase in self.phases.items():
            phase.objective.load_state_dict(state["phases"][name])
