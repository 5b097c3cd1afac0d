"""Draw from the skills that lower the losses which are still high, along a graph of what helps what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, model_validator

from foretrain.batch import Batch
from foretrain.errors import RequestError, unknown_name
from foretrain.parts import Facts
from foretrain.section import Count, DataPath, Number
from foretrain.spans import Span, interval
from foretrain.steering._skill_graph import (
    FIGURE,
    Graph,
    complete_graph,
    graph_of_run,
    identity_graph,
    learned_graph,
    matrix_graph,
    named_graph,
)
from foretrain.steering.base import Steering

if TYPE_CHECKING:
    from foretrain.context import Context

Strength = Annotated[Number, Field(ge=0)]


class SkillIt(Steering):
    """Skill-It: domains are skills, drawn by p_i ~ exp(eta * sum over skills j of A_ij * the last losses of j).

    The run goes in rounds. Near the end of each, `window` times and `every` steps apart, the loss of every skill is
    measured on its `steer` split; the mixture of the next round is the exponential of their sum (or mean), carried to
    the domains by the graph A, where A_ij says how much training on i lowers the loss of j. The first mixture has 1 in
    the place of the losses. Every round begins anew from the weights that come in, and not from the last mixture: all
    alike (the recipe's `weight` unset), that is the paper's rule, which is online mirror descent with a window; other
    weights are multiplied by it.

    A `graph` is written as edges by name, as a matrix, or as one of two words. `complete`: everything helps everything
    alike, which leaves the mixture as it comes in (stratified sampling). `identity`: each skill helps itself alone, so
    that domains are drawn by their own loss. `learn` finds it in the first step, by as many proxy runs as there are
    domains: A_ij = max(0, (L_j before - L_j after) / L_j before) of a few steps on domain i alone from the weights of
    the moment, after each of which everything is put back. That is paid for inside the run: its FLOPs are in the first
    step, and a study that matches FLOPs gives this arm fewer steps. With `run` the graph is that of another run (of a
    smaller model, or of fewer steps), which was paid for there.

    From random weights a few steps on anything lower every loss, and the learned graph is close to complete: the paper
    learns it from a model that was pre-trained. Summed losses make `eta` depend on `window` and on the size of losses.

    Figures: `graph/TRAINED/EVALUATED`, `loss/NAME` of a measurement; the weights are `domain/NAME/weight`.
    """

    kind: Literal["skill_it"] = "skill_it"
    facts: ClassVar[Facts] = Facts(
        paper="Skill-it! A Data-Driven Skills Framework for Understanding and Training Language Models",
        arxiv="2307.14430",
        year=2023,
        answers="mix: which skills, by what they do for the losses of others?",
        overhead="the loss of every domain, `window` times a round; with `graph: learn` a proxy run for each domain",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"eta": 0.0}

    graph: Literal["learn", "complete", "identity"] | dict[str, dict[str, Strength]] | list[list[Strength]] = "learn"
    """`learn`, `complete`, `identity`, edges such as `{addition: {algebra: 0.5}}` (1 from each domain to itself and 0
    elsewhere, unless told), or a matrix with a row for each domain trained on, in the order of `corpus`, and a column
    for each evaluated, in that order or that of `evaluated`."""
    run: DataPath | None = None
    """With `graph: learn`, the run that learned it (its directory, or the model folder inside; `product:NAME` in a
    study): it has ended, and its domains hold those of this recipe."""
    evaluated: list[str] | None = Field(None, min_length=1)
    """Domains whose losses count; unset: all that are trained on. One of weight 0 is evaluated and never drawn."""
    eta: Number = Field(0.5, ge=0)
    """How far the losses move log weights, per nat."""
    every: Span = Field(0.01, gt=0)
    """Steps between two measurements."""
    per_round: Count = Field(16, gt=0)
    """A round is so many times `every` long; its last `window` measurements are made, others would be of no use."""
    window: Count = Field(3, gt=0)
    """Measurements that count."""
    reduce: Literal["sum", "mean"] = "sum"
    """Whether they are summed, or averaged as the authors' code does where there are `evaluated`."""
    tokens: Count | None = Field(None, gt=0)
    """Tokens of each domain that a measurement looks at, at most; unset: as `evaluation.tokens`."""
    proxy_steps: Span = Field(0.02, gt=0)
    """Length of the proxy run on each domain, for `graph: learn`."""
    proxy_rate: Number = Field(1.0, gt=0)
    """Learning rate of proxy runs, as a factor of the peak."""

    _context: Any = PrivateAttr(None)
    _trained: tuple[str, ...] = PrivateAttr(())
    _evaluated: tuple[str, ...] = PrivateAttr(())
    _steps: dict[str, int] = PrivateAttr(default_factory=dict)
    _graph: Graph | None = PrivateAttr(None)
    _history: list[dict[str, float]] = PrivateAttr(default_factory=list)
    _scores: dict[str, float] | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _run_of_a_learned_one(self) -> SkillIt:
        if self.run is not None and self.graph != "learn":
            raise ValueError("`run` is where a learned graph is read from; leave out `graph`, or `run`")
        return self

    def setup(self, context: Context) -> None:
        """Find the skills, and the graph where it is given.

        Raises:
            RequestError: one that is evaluated is no domain or has no steer split, or the graph does not fit.
        """
        self._context, corpus = context, context.recipe.corpus
        drawn = {name for period in context.timeline.stages for name, weight in period.weights.items() if weight > 0}
        self._trained = tuple(name for name in context.stream.domains if name in drawn)
        for name in self.evaluated or ():
            if name not in corpus:
                raise RequestError(f"steering 'skill_it': evaluated: {unknown_name('domain', name, corpus)}")
        self._evaluated = tuple(self.evaluated or self._trained)
        for name in self._evaluated:
            if not corpus[name].steer:
                raise RequestError(
                    f"steering 'skill_it': domain '{name}' has no steer split to measure its loss on; give it a share "
                    f"of the documents, such as corpus.{name}.steer: 0.05, or name other `evaluated`."
                )
        total = context.total_steps
        self._steps = {"every": interval(self.every, total), "proxy": interval(self.proxy_steps, total)}
        self._graph, self._history, self._scores = self._given(), [], None

    def _given(self) -> Graph | None:
        """The graph that the recipe holds; None for one that is found in the first step."""
        if self.graph == "learn":
            return None
        if self.graph == "complete":
            return complete_graph(self._trained, self._evaluated)
        if self.graph == "identity":
            return identity_graph(self._trained, self._evaluated)
        fits = named_graph if isinstance(self.graph, dict) else matrix_graph
        return fits(self.graph, self._trained, self._evaluated)  # type: ignore[arg-type]

    # When ----------------------------------------------------------------------------------------------------------

    def step_kind(self, step: int) -> str:
        """Steps that learn the graph, that measure losses, and others."""
        if step == 0 and self.graph == "learn" and self.run is None:
            return "graph"
        return "losses" if self._measures(step) else ""

    def _measures(self, step: int) -> bool:
        """Whether losses are measured before this step: in the last `window` of the places of a round."""
        number, between = divmod(step, self._steps["every"])
        return between == 0 and number > 0 and -number % self.per_round < self.window

    def _ends_round(self, step: int) -> bool:
        number, between = divmod(step, self._steps["every"])
        return between == 0 and number > 0 and number % self.per_round == 0

    # What ----------------------------------------------------------------------------------------------------------

    def before_step(self, batch: Batch) -> None:
        """Find the graph before the first step, and measure losses where they are due.

        Raises:
            RequestError: the run that the graph should be read from does not fit.
        """
        if self._scores is None:
            graph = self._graph = self._graph or self._found()
            for name, others in graph.items():
                for other, strength in others.items():
                    self._context.record(f"{FIGURE}/{name}/{other}", strength)
            self._scores = {name: math.fsum(others.values()) for name, others in graph.items()}
        if not self._measures(batch.step):
            return
        found = self._context.evaluate("steer", self.tokens)
        losses = {name: found[name] for name in self._evaluated}
        for name, loss in losses.items():
            self._context.record(f"skill_it/loss/{name}", loss)
        self._history = [*self._history, losses][-self.window :]
        if self._ends_round(batch.step):
            self._scores = scores(self._graph or {}, self._history, self.reduce)

    def _found(self) -> Graph:
        if self.run is not None:
            return graph_of_run(self.run, self._trained, self._evaluated)
        return learned_graph(
            self._context,
            self._trained,
            self._evaluated,
            steps=self._steps["proxy"],
            rate=self.proxy_rate,
            tokens=self.tokens,
        )

    def mix(self, weights: Mapping[str, float], step: int) -> Mapping[str, float]:
        """The incoming weights times exp(eta * score), the largest such factor of a domain that is drawn being 1."""
        drawn = [self.eta * score for name, score in (self._scores or {}).items() if weights[name] > 0]
        if self._scores is None or not drawn:
            return weights
        top = max(drawn)
        factors = {name: math.exp(min(0.0, self.eta * score - top)) for name, score in self._scores.items()}
        return {name: weight * factors.get(name, 1.0) for name, weight in weights.items()}

    def state_dict(self) -> dict[str, Any]:
        """The graph, the last losses and what they came to."""
        return {
            "graph": None if self._graph is None else {name: dict(others) for name, others in self._graph.items()},
            "history": [dict(losses) for losses in self._history],
            "scores": None if self._scores is None else dict(self._scores),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        graph, found = state["graph"], state["scores"]
        self._graph = None if graph is None else {name: dict(others) for name, others in graph.items()}
        self._history = [dict(losses) for losses in state["history"]]
        self._scores = None if found is None else dict(found)


def scores(graph: Graph, history: list[dict[str, float]], reduce: Literal["sum", "mean"]) -> dict[str, float]:
    """What each domain does for the losses: the sum over evaluated domains j of A_ij times the losses of j.

    Args:
        graph: A.
        history: losses by evaluated domain, of each measurement that counts.
        reduce: whether these are summed or averaged.
    """
    share = 1.0 if reduce == "sum" else 1 / max(len(history), 1)
    totals = {name: share * math.fsum(losses[name] for losses in history) for name in (history[0] if history else {})}
    return {
        name: math.fsum(strength * totals[other] for other, strength in others.items())
        for name, others in graph.items()
    }
