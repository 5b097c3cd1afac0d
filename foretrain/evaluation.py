"""Validation: the loss of every domain on the same held-out windows each time."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import torch

from foretrain.batch import Batch
from foretrain.distributed import Group
from foretrain.learner import Learner
from foretrain.objectives.base import Objective
from foretrain.tokens.readable import Readable

ROWS = 16
"""Windows per forward pass at most; fixed, so that figures do not depend on the training batch."""


class Validation:
    """Losses on the validation split of every domain.

    Windows are read in order and each token of the split is scored once, up to `tokens` per domain. Ranks share the
    windows. The loss is the mean over tokens in nats; for text, bits per byte divide the same sum by the bytes those
    tokens stand for, so they compare across tokenizers.
    """

    def __init__(
        self,
        sets: Mapping[str, Readable],
        *,
        window: int,
        stride: int,
        tokens: int,
        weights: Mapping[str, float],
        separate: bool,
        seed: int,
    ) -> None:
        self.sets = dict(sets)
        self.window, self.stride, self.tokens, self.separate, self.seed = window, stride, tokens, separate, seed
        total = sum(weights[name] for name in self.sets)
        self.shares = {name: weights[name] / total if total > 0 else 1 / len(self.sets) for name in self.sets}

    @torch.no_grad()
    def measure(self, learner: Learner, objective: Objective, group: Group) -> dict[str, float]:
        """`validation/DOMAIN/loss` of every domain (and it in other units), and their mixture as `validation/loss`.

        Of several domains also `validation/mean_loss`, in which each counts alike whatever its weight, and
        `validation/worst_loss`, the highest.
        """
        figures: dict[str, float] = {}
        with learner.evaluating():
            for number, (name, tokens) in enumerate(self.sets.items()):
                total, count = self._domain(number, tokens, learner, objective, group)
                loss = total / max(count, 1.0)
                figures[f"validation/{name}/loss"] = loss
                figures |= {f"validation/{name}/{unit}": value for unit, value in tokens.restated(loss).items()}
        if figures:
            figures["validation/loss"] = sum(
                share * figures[f"validation/{name}/loss"] for name, share in self.shares.items()
            )
        if len(self.sets) > 1:
            losses = [figures[f"validation/{name}/loss"] for name in self.sets]
            figures |= {"validation/mean_loss": sum(losses) / len(losses), "validation/worst_loss": max(losses)}
        return figures

    def _domain(
        self, number: int, tokens: Readable, learner: Learner, objective: Objective, group: Group
    ) -> tuple[float, float]:
        total = count = 0.0
        pieces = enumerate(
            tokens.windows(self.window, self.stride, rows=ROWS, limit=self.tokens, segments=self.separate)
        )
        # All ranks run equally often (sharded weights are gathered together): one with nothing left repeats, uncounted.
        while turn := list(islice(pieces, group.world)):
            mine = group.rank < len(turn)
            place, tensors = turn[group.rank if mine else 0]
            rows = len(next(iter(tensors.values())))
            positions = torch.arange(place * ROWS, place * ROWS + rows)
            domain = torch.full((rows,), number)
            batch = Batch(
                {**tensors, "domain": domain}, seed=self.seed, step=0, positions=positions, domains=tuple(self.sets)
            )
            batch = objective.prepare(batch).to(group.device)
            with learner.autocast():
                losses = objective.losses(objective.forward(learner.model, batch), batch)
            if mine:
                total += float(losses.sum(dtype=torch.float64))
                count += float(batch["mask"].sum())
        total, count = group.sum(total, count)
        return total, count
