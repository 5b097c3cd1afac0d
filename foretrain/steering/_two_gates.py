"""What a selection by teacher and learner shares with its control: two gates, their thresholds, and weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.section import Number
from foretrain.spans import Span, lead
from foretrain.steering._class_thresholds import ClassThresholds
from foretrain.steering._weights import Unit
from foretrain.steering._whole_batch import WholeBatch

if TYPE_CHECKING:
    from foretrain.context import Context


class TwoGates(WholeBatch):
    """What a teacher is sure of and the learner is not counts, by the product of both; the rest does not."""

    modality: ClassVar[str] = "text"

    model: str
    """The teacher: a name under `models:` of the recipe."""
    level: Unit = "token"
    """What is selected: a `token`, or a `row` of the batch by the means over its loss tokens."""
    confidence: Number = Field(1.0, ge=0)
    """Power of the teacher's confidence in selection and weights; 0 leaves the teacher out of both."""
    uncertainty: Number = Field(1.0, ge=0)
    """Power of the learner's uncertainty in selection and weights; 0 leaves it out of both."""
    confidence_threshold: Number | None = Field(None, ge=0, le=1)
    """The confidence that is asked of every class, all along; unset: it follows the run."""
    uncertainty_threshold: Number | None = Field(None, ge=0, le=1)
    """The uncertainty that is asked of every class, all along; unset: it follows the run."""
    momentum: Number = Field(0.99, ge=0, lt=1)
    """Share of the running means, which thresholds are made of, that is kept at each step."""
    burn_in: Span = Field(0.05, ge=0)
    """Steps at the start in which everything counts and thresholds are learned: a share of the run, or steps."""

    _teacher: Any = PrivateAttr(None)
    _sure: Any = PrivateAttr(None)
    _unsure: Any = PrivateAttr(None)
    _start: int = PrivateAttr(0)
    _used: float = PrivateAttr(0.0)

    def setup(self, context: Context) -> None:
        """Open the teacher.

        Raises:
            RequestError: the recipe has no such model, or it does not fit the run.
        """
        super().setup(context)
        self._teacher = context.named(self.model)
        self._sure, self._unsure = (
            ClassThresholds(self.momentum, None if constant is None else constant**power)
            for constant, power in (
                (self.confidence_threshold, self.confidence),
                (self.uncertainty_threshold, self.uncertainty),
            )
        )
        self._start, self._used = lead(self.burn_in, context.total_steps), 0.0

    @torch.no_grad()
    def weigh(self, losses: Tensor, batch: Batch) -> Tensor | None:
        """The weights of these rows, 0 for what is not selected; None in the burn-in."""
        sure, unsure, counts = self._signals(losses, batch)
        believed = self._passes(sure, counts, batch, self._sure)
        # Over everything the mean would soon be that of what is never selected, and so never learned.
        passed = believed & self._passes(unsure, counts * believed, batch, self._unsure)
        self.record("confidence", self._sure.mean or 0.0)
        self.record("uncertainty", self._unsure.mean or 0.0)
        if batch.step < self._start:
            return None
        return self._normalised(self.placed(sure * unsure * passed, counts, batch), counts, batch)

    def placed(self, weights: Tensor, counts: Tensor, batch: Batch) -> Tensor:
        """Weights [rows, units in a row] where they act, before they are normalised.

        Args:
            weights: products of the two signals, 0 for what is not selected.
            counts: [rows, units in a row], how many loss tokens each stands for.
            batch: the rows of this rank.
        """
        return weights

    def _signals(self, losses: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Confidence and uncertainty, float64 [rows, units in a row], and how many loss tokens each unit stands for."""
        mask = batch["mask"].double()
        learnt, told = (torch.exp(-each.double()).clamp(max=1) for each in (losses, self._teacher_losses(batch)))
        signals, counts = [told.nan_to_num(0.0), (1 - learnt).nan_to_num(0.0)], mask
        if self.level == "row":
            counts = mask.sum(1, keepdim=True)
            signals = [(signal * mask).sum(1, keepdim=True) / counts.clamp_min(1) for signal in signals]
        return signals[0] ** self.confidence, signals[1] ** self.uncertainty, counts

    def _teacher_losses(self, batch: Batch) -> Tensor:
        """The teacher's cross-entropy with the labels [rows, length]."""
        objective, teacher, pieces = self._context.objective, self._teacher, batch.micro(self._context.micro)
        with self._context.learner.autocast():
            return torch.cat([objective.losses(teacher.outputs(piece), piece) for piece in pieces])

    def _passes(self, signal: Tensor, counts: Tensor, batch: Batch, thresholds: ClassThresholds) -> Tensor:
        """Where a signal reaches its class's threshold, which has followed it over all that counts by now."""
        sums, whole = self._by_class(torch.stack([signal * counts, counts]), batch)
        thresholds.follow(sums, whole, batch.domains)
        return signal >= thresholds.of(batch.domains).to(signal.device)[batch["domain"], None]

    def _by_class(self, tensor: Tensor, batch: Batch) -> Tensor:
        """Sums float64 [n, classes] of [n, rows, units in a row], over all ranks."""
        rows = torch.nn.functional.one_hot(batch["domain"].long(), len(batch.domains)).double()
        sums = tensor.sum(2) @ rows.to(tensor.device)
        self._context.group.sum_tensors([sums])
        return sums

    def _normalised(self, weights: Tensor, counts: Tensor, batch: Batch) -> Tensor | None:
        """Weights with mean 1 over the loss tokens of all ranks, and what was selected as figures."""
        sums = self._by_class(
            torch.stack([weights, weights.square(), (weights > 0).double(), torch.ones_like(weights)]) * counts, batch
        )
        total, squares, used, tokens = sums.sum(1).tolist()
        if not tokens:
            return None
        self._used += used
        self.record("used", used / tokens)
        self.record("tokens", self._used)
        self.record("ess", total**2 / (tokens * squares) if squares else 0.0)
        for name, part, whole in zip(batch.domains, *sums[2:].tolist(), strict=True):
            if whole:
                self.record(f"{name}/used", part / whole)
        if not total:
            self._context.warn(
                f"steering '{self.kind}': in a step nothing passed both gates. Such a step has a gradient of 0: only "
                f"what the optimizer remembers, and weight decay, move the weights. `{self.kind}/used` tells which."
            )
            return torch.zeros_like(weights).float()
        return (weights * (tokens / total)).float()

    def state_dict(self) -> dict[str, Any]:
        """The means that thresholds are made of, where selection begins, and how many tokens were used."""
        return {
            "confidence": self._sure.state_dict(),
            "uncertainty": self._unsure.state_dict(),
            "start": self._start,
            "used": self._used,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._sure.load_state_dict(state["confidence"])
        self._unsure.load_state_dict(state["uncertainty"])
        self._start, self._used = state["start"], state["used"]
