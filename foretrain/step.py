"""Problem: what one step decides, frozen, and its gradient.

Decide, then differentiate, then apply: targets and weights are made at today's weights from detached outputs, and are
the same however often, for whichever rows and at whichever weights the gradient is then asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from foretrain.batch import Batch
from foretrain.learner import Learner
from foretrain.objectives.base import Objective, Targets
from foretrain.objectives.outputs import Outputs
from foretrain.steering.base import Gradient, GradientOf, Steering, overrides


@dataclass
class Decisions:
    """Targets and weights for every row of this rank's batch; None where nobody changes them."""

    targets: Targets | None = None
    weights: Tensor | None = None

    def rows(self, index: Tensor) -> Decisions:
        """The decisions of some rows."""
        targets = self.targets and Targets(self.targets.ids[index], self.targets.probabilities[index])
        return Decisions(targets, None if self.weights is None else self.weights[index])


@dataclass
class Problem:
    """The problem of one step on this rank's rows.

    Attributes:
        loss: sum over this rank's loss tokens, in nats, of their unweighted losses where each row is first
            differentiated: at today's weights, unless a part walks through the rows and moves on in between.
        tokens: number of this rank's loss tokens.
    """

    batch: Batch
    objective: Objective
    learner: Learner
    steering: Sequence[Steering]
    micro: int
    """Rows per forward pass."""
    reach: Callable[[str], None] = lambda point: None
    loss: float | Tensor = 0.0
    tokens: Tensor = field(init=False)
    _decided: Decisions | None = None
    _measured: bool = False
    # Rows whose losses are in `loss` already, once gradients of some rows alone were asked for.
    _met: Tensor | None = None

    def __post_init__(self) -> None:
        # Left on the device, as the loss is: a number here would wait for it in every micro-batch.
        self.tokens = self.batch["mask"].sum()
        self._deciders = [part for part in self.steering if overrides(part, "targets") or overrides(part, "weigh")]
        self._whole = self.micro < self.batch.rows and any(
            "batch_losses" in part.facts.needs for part in self._deciders
        )
        if not self._deciders:
            self._decided = Decisions()

    def __call__(self, group: slice | Tensor | None = None, at: Mapping[str, Tensor] | None = None) -> Gradient:
        """The gradient of the mean loss over the loss tokens of `group` on all ranks; see `GradientOf`."""
        learner = self.learner
        rows = torch.arange(self.batch.rows, device=self.batch["mask"].device)
        rows = rows if group is None else rows[group]
        everything = group is None and at is None
        if self._decided is None and (self._whole or not everything):
            self._decide(rows if everything else torch.arange(self.batch.rows, device=rows.device))
        tokens = self.tokens if group is None else self.batch["mask"][rows].sum()
        total, pieces = self._pieces(rows, tokens)
        # FSDP2 averages gradients over ranks where the plain path sums them.
        scale = (learner.group.world if learner.sharded else 1) / max(total, 1.0)
        learner.zero_gradients()
        fresh: list[Decisions] = []
        with learner.at(at):
            for number, index in enumerate(pieces):
                idle = len(index) == 0
                piece = self._uncounted() if idle else self.batch.take(index)
                learner.sum_ranks(number == len(pieces) - 1)
                with learner.autocast():
                    outputs = self.objective.forward(learner.model, piece)
                    if self._decided is None:
                        targets = self._targets(outputs, piece)
                        losses = self.objective.losses(outputs, piece, targets)
                        weights = self._weights(losses.detach(), piece)
                        fresh.append(Decisions(targets, weights))
                    else:
                        known = self._known(index)
                        losses, weights = self.objective.losses(outputs, piece, known.targets), known.weights
                if not (self._measured or idle):
                    new = losses.detach() if self._met is None else losses.detach() * ~self._met[index, None]
                    self.loss = self.loss + new.sum(dtype=torch.float64)
                weighted = losses if weights is None else losses * weights
                (weighted.sum() * scale).backward()
                self.reach("mid-step")
                learner.collect()
        if self._decided is None:
            self._decided = _join(fresh)
        self._measured |= group is None
        if group is not None:
            if self._met is None:
                self._met = torch.zeros(self.batch.rows, dtype=torch.bool, device=rows.device)
            self._met[rows] = True
        return learner.gradient()

    def _pieces(self, rows: Tensor, tokens: Tensor) -> tuple[float, list[Tensor]]:
        """Loss tokens on all ranks, and the rows of each forward pass: as many passes on every rank.

        Ranks gather sharded weights together, and a rank may have fewer of a group's rows than others, or none: it
        then makes passes of no rows.
        """
        group = self.learner.group
        mine = -(-len(rows) // self.micro)
        total, *passes = group.sum(tokens, *(mine if rank == group.rank else 0 for rank in range(group.world)))
        pieces = list(rows.split(self.micro)) if mine else []
        return total, pieces + [rows[:0]] * (max(1, int(max(passes))) - mine)

    def _known(self, index: Tensor) -> Decisions:
        assert self._decided is not None
        if len(index) == 0:
            return Decisions()
        return self._decided if len(index) == self.batch.rows else self._decided.rows(index)

    def _uncounted(self) -> Batch:
        """A row that counts nothing, for a pass of no rows."""
        piece = self.batch.take(slice(0, 1))
        return piece.with_(mask=torch.zeros_like(piece["mask"]))

    @torch.no_grad()
    def _decide(self, rows: Tensor) -> None:
        """Make every decision before any gradient: one pass without gradients, weights from the losses of all rows."""
        targets: list[Targets | None] = []
        losses: list[Tensor] = []
        for index in rows.split(self.micro):
            piece = self.batch.take(index)
            with self.learner.autocast():
                outputs = self.objective.forward(self.learner.model, piece)
                targets.append(self._targets(outputs, piece))
                losses.append(self.objective.losses(outputs, piece, targets[-1]))
        self.learner.settle()
        joined = _join([Decisions(targets=each) for each in targets])
        self._decided = Decisions(joined.targets, self._weights(torch.cat(losses), self.batch))

    def _targets(self, outputs: Outputs, piece: Batch) -> Targets | None:
        targets: Targets | None = None
        for part in self._deciders:
            if overrides(part, "targets"):
                targets = part.targets(outputs, piece) or targets
        return targets

    def _weights(self, losses: Tensor, piece: Batch) -> Tensor | None:
        weights: Tensor | None = None
        for part in self._deciders:
            if overrides(part, "weigh"):
                mine = part.weigh(losses, piece)
                if mine is not None:
                    weights = mine if weights is None else weights * mine
        return None if weights is None else weights.expand_as(losses)


def _join(pieces: list[Decisions]) -> Decisions:
    targets: Targets | None = None
    if pieces and all(piece.targets is not None for piece in pieces):
        targets = Targets(
            torch.cat([piece.targets.ids for piece in pieces if piece.targets]),
            torch.cat([piece.targets.probabilities for piece in pieces if piece.targets]),
        )
    weights = [piece.weights for piece in pieces if piece.weights is not None]
    return Decisions(targets, torch.cat(weights) if weights and len(weights) == len(pieces) else None)


def decide_gradient(problem: GradientOf, steering: Sequence[Steering]) -> Gradient:
    """The gradient for the optimizer: the problem's own, or as the update parts, nested in listed order, make it."""
    of = problem
    for part in reversed(steering):
        if overrides(part, "gradient"):
            of = _nested(part, of)
    return of()


def _nested(part: Steering, inner: GradientOf) -> GradientOf:
    def of(group: slice | Tensor | None = None, at: Mapping[str, Tensor] | None = None) -> Gradient:
        return part.gradient(inner, group, at)

    return of
