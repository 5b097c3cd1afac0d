"""Elastic weight consolidation: weights that earlier stages depend on are held by their Fisher information."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.section import Count, Number
from foretrain.steering._anchored import Anchored
from foretrain.vectors import Vector


class ElasticWeightConsolidation(Anchored):
    """EWC: in later stages the loss is `loss + strength * sum_j sum_i F_ji (w_i - w_ji)^2` over the past stages j.

    w_j are the weights that stage j left, F_j the diagonal of its Fisher information: the mean of squared gradients of
    single windows, drawn by the seed from those the stage trained on, with their own next tokens as labels (the
    empirical Fisher). A window's gradient is of the sum of its losses, and its square is divided by their number: the
    information per token, whatever the context's length. In this unit `strength: 0.5` makes the penalty the rise of an
    old stage's loss per token, to second order and as far as the diagonal knows, so old and new loss count alike;
    implementations that square the gradient of a mean over a batch need values larger by orders of magnitude.

    A run that goes on from another one protects that one's text too, as far as it has the same domains.

    With `anchors: each` every past stage has a penalty of its own, with `last` the importance of all holds the weights
    that the newest one left (online EWC, arXiv 1805.06370). The penalty's gradient is part of what is clipped and of
    what the optimizer sees; `loss` stays the loss alone, and `elastic_weight_consolidation/penalty` is the rest.
    """

    kind: Literal["elastic_weight_consolidation"] = "elastic_weight_consolidation"
    facts: ClassVar[Facts] = Facts(
        paper="Overcoming catastrophic forgetting in neural networks",
        arxiv="1612.00796",
        year=2017,
        answers="update: how do weights that earlier stages depend on stay where they are?",
        overhead="`windows` backward passes of one window each where a stage begins (each rank makes them all); two "
        "copies of the weights",
    )

    strength: Number = Field(0.3, ge=0)
    """Weight of the penalty (lambda); 0.5 lets a past stage count as much as the present one."""
    windows: Count = Field(128, gt=0)
    """Windows of an ended stage that its Fisher information is estimated on (all of them, where there are fewer)."""
    anchors: Literal["each", "last"] = "each"
    """Where past stages hold the weights: `each` where it left them itself, or all of them where the `last` one did."""
    decay: Number = Field(1.0, ge=0, le=1)
    """What remains of the importance of earlier stages whenever another one is added."""

    _began: dict[str, int] = PrivateAttr(default_factory=dict)

    def step_kind(self, step: int) -> str:
        """Steps at which an ended stage is taken in are of their own kind, and the first: an earlier run may be."""
        if step != self._context.timeline.at(step).first:
            return ""
        return "consolidation" if step > 0 else "start"

    def _begin(self, weights: Vector) -> None:
        stream = self._context.stream
        self._began = {name: stream.seen(name) for name in stream.domains}

    def _take_in(self, fresh: Vector, weights: Vector) -> None:
        self._add(fresh, weights, self.decay, self.anchors == "each")

    def _of_stage(self, step: int, weights: Vector) -> Vector | None:
        """The diagonal of the Fisher information per token, float32.

        Raises:
            RequestError: there is one stage, and no earlier run that this one goes on from.
        """
        if not sum(self._read()):
            if not self._context.rehearsal:
                self.refuse_one_stage()
            return None
        learner, objective, group = self._context.learner, self._context.objective, self._context.group
        total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        windows = 0
        for window in self._sample(step):
            windows += 1
            tokens = float(window["mask"].sum())

            def loss(piece: Batch) -> Tensor:
                # All ranks look at the same window, since a sum over ranks must not mix gradients before they are
                # squared; so each gives its share.
                losses: Tensor = objective.losses(objective.forward(learner.model, piece), piece)
                return losses.sum() / group.world

            found, _ = learner.gradient_of(loss, [window], list(weights))
            if tokens > 0:
                for name, tensor in found.items():
                    total[name].addcmul_(tensor, tensor, value=1 / tokens)
        for tensor in total.values():
            tensor /= max(windows, 1)
        return total

    def _read(self) -> list[int]:
        """How many windows of each domain came since the stage began; before the first, in an earlier run."""
        stream = self._context.stream
        return [stream.seen(name) - self._began.get(name, 0) for name in stream.domains]

    def _sample(self, step: int) -> Iterator[Batch]:
        """Prepared windows of the stage that ended, one at a time; the same on every rank."""
        context = self._context
        stream = context.stream
        counts = self._read()
        ends = np.cumsum(counts)
        seed = seed_from(context.seed, self.kind, step)
        draw = np.random.Generator(np.random.Philox(key=seed))
        chosen = draw.choice(int(ends[-1]), min(self.windows, int(ends[-1])), replace=False)
        for place, number in enumerate(np.sort(chosen).tolist()):
            domain = int(np.searchsorted(ends, number, side="right"))
            name = stream.domains[domain]
            window = self._began.get(name, 0) + number - (int(ends[domain]) - counts[domain])
            batch = Batch(
                stream.windows_at(name, np.array([window], np.int64)),
                seed=seed,
                step=step,
                positions=torch.tensor([place]),
                domains=stream.domains,
            )
            yield context.objective.prepare(batch).to(context.device)

    def state_dict(self) -> dict[str, Any]:
        """Importance and anchor of every weight; how many windows of each domain had come when the stage began."""
        return {**super().state_dict(), "began": dict(self._began)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        self._began = dict(state["began"])
