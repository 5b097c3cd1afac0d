"""Draw more from the topics that improve least."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from foretrain.batch import Batch
from foretrain.errors import RequestError, unknown_name
from foretrain.parts import Facts
from foretrain.section import Count, Number
from foretrain.spans import Span, interval
from foretrain.steering.base import Steering

if TYPE_CHECKING:
    from foretrain.context import Context


class TopicControl(Steering):
    """Shares of topics move by exp(rate * gap), the gap being how far a topic's progress lags behind that of all.

    A topic is a domain of the corpus. Every so often the loss of each is measured on its `steer` split. Its progress
    is the relative fall of its perplexity, 1 - exp(L now - L before); its gap is the mean progress of all topics minus
    its own, over the mean size of a topic's progress, within -`most` and `most`. So a topic that stands still while the
    others go on gains by exp(rate * (about 1)), whatever the size of the steps. Shares are then normalised within the
    topics, so that together they keep what the recipe (or a stage, or an earlier mixer) gives them; other domains are
    left alone. Factors add up from one measurement to the next.

    The paper says that the share of topics whose perplexity improves least is raised, and not by how much; the formula
    is ours. Figures: `DOMAIN/progress` and `DOMAIN/gap` of a measurement; the weights are `domain/NAME/weight`.
    """

    kind: Literal["topic_control"] = "topic_control"
    facts: ClassVar[Facts] = Facts(
        paper="Towards Effective and Efficient Continual Pre-training of Large Language Models",
        arxiv="2407.18743",
        year=2024,
        answers="mix: which topics improve least?",
        overhead="a forward pass over some of the steer split at each measurement",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"rate": 0.0}

    topics: list[str] = []
    """The domains that share with one another; empty: all that have a steer split."""
    rate: Number = Field(0.2, ge=0)
    """How far the logarithm of a share moves at a measurement, for a gap of 1."""
    every: Span = Field(0.05, gt=0)
    """How often is measured: a share of the run, or a number of steps."""
    most: Number = Field(2.0, gt=0)
    """The largest gap that counts: a single measurement moves no share by more than exp(rate * most)."""
    tokens: Count | None = Field(None, gt=0)
    """Tokens of each topic's steer split that are measured on; unset: those of `evaluation.tokens`."""

    _context: Context = PrivateAttr()
    _topics: tuple[str, ...] = PrivateAttr(())
    _losses: dict[str, float] = PrivateAttr(default_factory=dict)
    _factors: dict[str, float] = PrivateAttr(default_factory=dict)

    def setup(self, context: Context) -> None:
        """See that the topics are domains.

        Raises:
            RequestError: one is not, or stands twice.
        """
        self._context = context
        for name in self.topics:
            if name not in context.stream.domains:
                where = f"steering '{self.kind}': topics"
                raise RequestError(f"{where}: {unknown_name('domain', name, context.stream.domains)}")
        if len(set(self.topics)) < len(self.topics):
            raise RequestError(f"steering '{self.kind}': topics: a domain stands there twice; name each once.")
        self._topics = tuple(self.topics)
        self._losses, self._factors = {}, dict.fromkeys(self.topics, 0.0)

    def _due(self, step: int) -> bool:
        return step % interval(self.every, self._context.total_steps) == 0

    def step_kind(self, step: int) -> str:
        """`topics` where they are measured."""
        return "topics" if self._due(step) else ""

    def before_step(self, batch: Batch) -> None:
        """Measure the topics, where it is due, and move their factors.

        Raises:
            RequestError: a topic has no steer split.
        """
        if not self._due(batch.step):
            return
        losses = self._context.evaluate("steer", self.tokens)
        if not self._topics:
            self._topics = tuple(losses)
            self._factors = dict.fromkeys(self._topics, 0.0)
        for name in self._topics:
            if name not in losses:
                raise RequestError(
                    f"steering '{self.kind}': domain '{name}' has no steer split to measure its progress on; give it a "
                    f"share of its documents, such as corpus.{name}.steer: 0.05, or leave it out of `topics`."
                )
        before, self._losses = self._losses, {name: losses[name] for name in self._topics}
        if before:
            progress = {name: 1 - math.exp(self._losses[name] - before[name]) for name in self._topics}
            for name, gap in gaps(progress, self.most).items():
                self._factors[name] += self.rate * gap
                self._context.record(f"{self.kind}/{name}/progress", progress[name])
                self._context.record(f"{self.kind}/{name}/gap", gap)

    def mix(self, weights: Mapping[str, float], step: int) -> Mapping[str, float]:
        """The incoming weights, shared out anew among the topics."""
        if not any(self._factors.values()):
            return weights
        top = max(self._factors.values())  # only ratios count, and none may overflow
        moved = {name: weights[name] * math.exp(self._factors[name] - top) for name in self._topics}
        before, after = sum(weights[name] for name in self._topics), sum(moved.values())
        if after == 0:  # no topic is drawn at the moment (a stage of other domains)
            return weights
        return {**weights, **{name: weight * before / after for name, weight in moved.items()}}

    def state_dict(self) -> dict[str, Any]:
        """Losses of the last measurement, and the log factors."""
        return {"losses": dict(self._losses), "factors": dict(self._factors)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._losses, self._factors = dict(state["losses"]), dict(state["factors"])
        self._topics = tuple(self._factors)


def gaps(progress: Mapping[str, float], most: float) -> dict[str, float]:
    """How far each topic's progress lags behind the mean, over the mean size of progress, within -most and most."""
    mean = math.fsum(progress.values()) / len(progress)
    size = math.fsum(map(abs, progress.values())) / len(progress)
    if size == 0:
        return dict.fromkeys(progress, 0.0)
    return {name: max(-most, min(most, (mean - value) / size)) for name, value in progress.items()}
