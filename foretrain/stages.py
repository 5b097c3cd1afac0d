"""Stages: a run in parts, each with a mixture, and perhaps a learning-rate schedule, of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from pydantic import Field

from foretrain.errors import RequestError, unknown_name
from foretrain.parts import PartOf
from foretrain.schedules.base import Schedule
from foretrain.section import Number, Section
from foretrain.spans import Span, interval

if TYPE_CHECKING:
    from foretrain.moving import Moving


class Stage(Section):
    """One part of a run: what it reads, for how long, and how the learning rate moves meanwhile."""

    weights: dict[str, Number] = Field(min_length=1)
    """Share of the stream by domain of the corpus, relative to one another; others are not drawn."""
    share: Number = Field(1.0, gt=0)
    """Length, relative to the other stages."""
    schedule: PartOf[Schedule] | None = None
    """Begins anew with the stage and ends with it; unset: the recipe's own goes on over the whole run."""
    peak: Number = Field(1.0, gt=0)
    """The stage's learning rates, as a multiple of what the optimizer and the schedule say."""
    branch: Span = Field(0, ge=0)
    """The end of the stage that is a side branch, as a share of it or in steps: measured like any stage's end, and left
    behind by the next stage, which goes on from the weights and the optimizer's state before the branch. 0: none."""


@dataclass(frozen=True)
class Period:
    """A stage as steps.

    Attributes:
        name: of the stage; empty where the recipe has none.
        first, end: its steps are `first` to `end - 1`.
        weights: the share of every domain of the corpus, summing to 1.
        schedule: its own, or None.
        peak: multiple of the learning rate.
        branch: the step at which its side branch begins; `end` where it has none.
    """

    name: str
    first: int
    end: int
    weights: Mapping[str, float]
    schedule: Schedule | None = None
    peak: float = 1.0
    branch: int = 0


class Timeline:
    """The stages of a run as periods of steps; a run without stages is one period.

    Args:
        stages: by name, in their order.
        weights: share of every domain, for a run without stages.
        schedule: of the run.
        start: the step at which the run (or its current schedule) began.
        total: its last step's number, plus 1.

    Raises:
        RequestError: a stage would have no step.
    """

    def __init__(
        self, stages: Mapping[str, Stage], weights: Mapping[str, float], schedule: Schedule, start: int, total: int
    ) -> None:
        self.schedule, self.start, self.total = schedule, start, total
        self.staged = bool(stages)
        if not stages:
            self.stages: list[Period] = [Period("", 0, total, dict(weights), branch=total)]
            return
        whole = sum(stage.share for stage in stages.values())
        ends = [start + round((total - start) * done / whole) for done in accumulate(s.share for s in stages.values())]
        self.stages = []
        for (name, stage), first, end in zip(stages.items(), [start, *ends], ends, strict=False):
            if end <= first:
                raise RequestError(
                    f"stages.{name}: its share of the {total - start} steps is less than one; give it a larger "
                    "`share`, or the run a larger budget."
                )
            branch = end - min(end - first, interval(stage.branch, end - first)) if stage.branch else end
            shares = stage_weights(stage, weights)
            self.stages.append(Period(name, first, end, shares, stage.schedule, stage.peak, branch))

    def at(self, step: int) -> Period:
        """The period that a step belongs to; the last one for steps behind the end, the first for steps before it."""
        return next((period for period in self.stages if step < period.end), self.stages[-1])

    def aside(self, step: int) -> bool:
        """Whether a step is of a side branch, which the next stage leaves behind."""
        period = self.at(step)
        return period.branch <= step < period.end and period is not self.stages[-1]

    def ended(self, steps: int) -> Period | None:
        """The stage whose last step was just done, after so many steps; None where none was."""
        return next((period for period in self.stages if self.staged and period.end == steps), None)

    def factor(self, step: int) -> float:
        """The learning rate of a step as a multiple of the optimizer's."""
        period = self.at(step)
        if period.schedule is None:
            return period.peak * self.schedule.factor(step - self.start, self.total - self.start)
        return period.peak * period.schedule.factor(step - period.first, period.end - period.first)

    def plain(self) -> list[dict[str, Any]]:
        """The stages as plain data; empty where there are none."""
        return [
            {"name": period.name, "first": period.first, "end": period.end, "weights": dict(period.weights)}
            for period in self.stages
            if self.staged
        ]


def stage_weights(stage: Stage, domains: Mapping[str, Any]) -> dict[str, float]:
    """The share of every domain in a stage."""
    total = sum(stage.weights.values())
    return {name: stage.weights.get(name, 0.0) / total for name in domains}


def mean_weights(stages: Mapping[str, Stage], domains: Mapping[str, Any]) -> dict[str, float]:
    """The share of every domain over all stages, each by its length."""
    whole = sum(stage.share for stage in stages.values())
    each = [(stage.share / whole, stage_weights(stage, domains)) for stage in stages.values()]
    return {name: sum(share * weights[name] for share, weights in each) for name in domains}


def stage_faults(stages: Mapping[str, Stage], domains: Mapping[str, float], minutes: bool) -> list[str]:
    """What is wrong with the stages of a recipe whose domains have these weights."""
    faults = []
    for name, stage in stages.items():
        for domain, weight in stage.weights.items():
            if domain not in domains:
                faults.append(f"stages.{name}.weights: {unknown_name('domain', domain, domains)}")
            if weight < 0:
                faults.append(f"stages.{name}.weights.{domain}: should be 0 or more (given: {weight:g})")
        if sum(stage.weights.values()) <= 0:
            faults.append(f"stages.{name}.weights: they sum to zero; at least one needs a weight above 0")
    drawn = {domain for stage in stages.values() for domain, weight in stage.weights.items() if weight > 0}
    # 1 is what it is where nothing is said, and 0 says that a domain is only judged.
    own = [name for name, weight in domains.items() if weight != 1 and (weight != 0 or name in drawn)]
    if stages and own:
        faults.append(f"corpus.{own[0]}.weight: with stages, weights stand in stages.NAME.weights alone; leave it out")
    if stages and minutes:
        faults.append("stages: a budget in minutes may move its end, and stages with it; give steps, tokens or flops")
    return faults


class SideBranches:
    """Keeps the state before a stage's side branch, and puts it back where the next stage begins."""

    def __init__(self, moving: Moving) -> None:
        self._moving = moving
        self._held: dict[str, Any] | None = None

    def enter(self, step: int, timeline: Timeline) -> None:
        """To be called before each step."""
        period = timeline.at(step)
        if step == period.first and self._held is not None:
            self._moving.put_back(self._held)
            self._held = None
        if step == period.branch < period.end and period is not timeline.stages[-1]:
            self._held = self._moving.take()

    def state_dict(self) -> dict[str, Any]:
        """What is held, if anything is."""
        return {"held": self._held}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._held = state["held"]


class Transfer:
    """What every stage did to the domains of the others, from the losses at each stage's end.

    Figures after a stage, each a mean over domains that were drawn so far (a domain's own stage is the first that draws
    it), in nats; L is the loss, lower is better:

        `learned`            L after the domain's own stage
        `retained`           L now
        `forgetting`         L now minus the lowest L after any stage since its own; of domains of earlier stages
        `backward_transfer`  L after its own stage minus L now; of domains of earlier stages
        `forward_transfer`   L at the start of the run minus L just before its own stage; of domains that came later
    """

    def __init__(self, timeline: Timeline) -> None:
        self._own = {
            domain: number
            for number, period in reversed(list(enumerate(timeline.stages, 1)))
            for domain, weight in period.weights.items()
            if weight > 0
        }
        # Losses by domain at the start, and after each stage.
        self._losses: list[dict[str, float]] = []

    def start(self, losses: Mapping[str, float]) -> None:
        """Losses before the first step."""
        self._losses = [dict(losses)]

    def after_stage(self, losses: Mapping[str, float]) -> dict[str, float]:
        """The figures after one more stage, from its losses."""
        if not self._losses:  # a run that was extended: nothing is known of its beginning
            self.start(losses)
        self._losses.append(dict(losses))
        now, rows = len(self._losses) - 1, self._losses
        drawn = {name: own for name, own in self._own.items() if own <= now and name in losses}
        earlier = {name: own for name, own in drawn.items() if own < now}
        later = {name: own for name, own in drawn.items() if own > 1}
        found = {
            "learned": [rows[own][name] for name, own in drawn.items()],
            "retained": [losses[name] for name in drawn],
            "forgetting": [losses[name] - min(row[name] for row in rows[own:]) for name, own in earlier.items()],
            "backward_transfer": [rows[own][name] - losses[name] for name, own in earlier.items()],
            "forward_transfer": [rows[0][name] - rows[own - 1][name] for name, own in later.items()],
        }
        return {f"stages/{name}": sum(values) / len(values) for name, values in found.items() if values}

    def state_dict(self) -> dict[str, Any]:
        """The losses so far."""
        return {"losses": [dict(row) for row in self._losses]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._losses = [dict(row) for row in state["losses"]]


FIGURES: Sequence[tuple[str, bool]] = (
    ("stages/learned", False),
    ("stages/retained", False),
    ("stages/forgetting", False),
    ("stages/backward_transfer", True),
    ("stages/forward_transfer", True),
)
"""Names of the figures, and whether higher is better."""
