"""Let a small model choose what a larger one begins with: hard for it, and not beyond it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.parts import Facts
from foretrain.section import Count
from foretrain.spans import Span, lead
from foretrain.steering.base import Steering

if TYPE_CHECKING:
    from foretrain.context import Context
    from foretrain.objectives.outputs import Outputs


class SaltSelection(Steering):
    """SALT_DS: stage 1 reads the windows that are challenging yet learnable for a small model.

    A window's score is the median of the small model's losses over those of its tokens that are among the model's `top`
    likeliest; what it has no idea of counts as not learnable, and a window with nothing else is never chosen before
    another. The paper scores a corpus once, by an early checkpoint of the small model, and takes the highest. Here it
    is done as the run goes (ours): in stage 1, every row of a step is the best of a pool of `pool` windows of its
    domain, so the mixture stays as it is. One of them is the row's own, the others are windows that the run would
    read in stage 2, each looked at once. So selection brings no text into a run that it would not have read, as long as
    `until` times `pool` is less than the run; what is chosen is read again when its turn comes, and own windows that
    are passed over are not read.

    Rows that parts before it have put in the place of the stream's stay as they are; parts after it put theirs in the
    place of what was chosen.

    Figures: `score` (mean median loss of what was chosen), `changed` (share of the rows that are not their own).
    """

    modality: ClassVar[str] = "text"
    kind: Literal["salt_selection"] = "salt_selection"
    facts: ClassVar[Facts] = Facts(
        paper="A Little Help Goes a Long Way: Efficient LLM Training by Leveraging Small LMs",
        arxiv="2410.18779",
        year=2024,
        answers="mix: which windows are hard for a small model, and not beyond it?",
        overhead="in stage 1: `pool` forward passes of the small model for each of the run's own",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"pool": 1}

    model: str
    """The small model that scores: a name of the recipe's `models`; the paper takes an early checkpoint of the
    teacher."""
    until: Span = Field(0.17, gt=0)
    """Where stage 1 ends: a share of the run, or a step."""
    pool: Count = Field(4, gt=0)
    """Windows of which each row is the best."""
    top: Count = Field(10, gt=0)
    """A token counts if it is among this many likeliest ones."""

    _context: Any = PrivateAttr(None)
    _scorer: Any = PrivateAttr(None)
    _end: int = PrivateAttr(0)
    _shares: dict[str, float] = PrivateAttr(default_factory=dict)
    _first: dict[str, int] = PrivateAttr(default_factory=dict)

    def setup(self, context: Context) -> None:
        """Read the model.

        Raises:
            RequestError: the recipe has no such model, or it has another or too small a vocabulary.
        """
        self._context, self._scorer = context, context.named(self.model)
        self._shares = dict(context.timeline.at(0).weights)
        known = self._scorer.vocabulary
        if self.top >= known:
            raise RequestError(
                f"steering 'salt_selection': all {known} ids of the vocabulary are among the {self.top} likeliest, so "
                "that every token would count; lower `top`."
            )
        self._plan(lead(self.until, context.total_steps))

    def _plan(self, end: int) -> None:
        """Stage 1 ends here; the windows of a domain that come after it there are the others to choose from."""
        stream = self._context.stream
        self._end = end
        self._first = {name: math.ceil(end * stream.rows * share) for name, share in self._shares.items()}

    def step_kind(self, step: int) -> str:
        return "selecting" if step < self._end else ""

    def replace(self, batch: Batch) -> Batch:
        """In stage 1: of every row's pool, the window with the highest score."""
        if batch.step >= self._end:
            return batch
        first = self._numbers(batch)
        pools = [batch, *(self._windows(batch, first + other) for other in range(self.pool - 1))]
        scores = torch.stack([self._scores(each) for each in pools])
        chosen = torch.where(self._own(batch), scores.argmax(0), 0)
        places = torch.arange(batch.rows)
        best = scores[chosen, places]
        finite = best.isfinite()
        total, counted, changed, rows = self._context.group.sum(
            best[finite].double().sum(), finite.sum(), (chosen > 0).sum(), batch.rows
        )
        self._context.record("salt_selection/score", total / max(counted, 1.0))
        self._context.record("salt_selection/changed", changed / rows)
        return batch.with_(**{name: torch.stack([each[name] for each in pools])[chosen, places] for name in batch})

    def _numbers(self, batch: Batch) -> Tensor:
        """Int64 [rows]: the first of the `pool - 1` windows of its domain that a row may have in place of its own."""
        stream = self._context.stream
        _, numbers = stream.drawn()
        before = torch.from_numpy(numbers)[batch.positions - batch.step * stream.rows]
        first = torch.tensor([self._first[name] for name in batch.domains])
        return first[batch["domain"]] + (self.pool - 1) * before

    def _windows(self, batch: Batch, numbers: Tensor) -> Batch:
        """For every row the window of its domain with this number."""
        tensors = {name: batch[name].clone() for name in batch}
        for domain in batch["domain"].unique().tolist():
            rows = batch["domain"] == domain
            for name, values in self._context.stream.windows_at(batch.domains[domain], numbers[rows].numpy()).items():
                tensors[name][rows] = values
        return batch.with_(**tensors)

    def _own(self, batch: Batch) -> Tensor:
        """Bool [rows]: whether a row is what stands at its place, or other parts have put something else there."""
        own = torch.zeros(batch.rows, dtype=torch.bool)
        for domain in batch["domain"].unique().tolist():
            rows = batch["domain"] == domain
            tokens = self._context.stream.sets[batch.domains[domain]]
            found = tokens.gathered(batch["start"][rows].numpy(), batch["tokens"].shape[1])["tokens"]
            own[rows] = (found == batch["tokens"][rows]).all(1)
        return own

    def _scores(self, batch: Batch) -> Tensor:
        context = self._context
        prepared = context.objective.prepare(batch).to(context.device)
        found = [
            learnable_median(self._scorer.outputs(piece), piece, self.top) for piece in prepared.micro(context.micro)
        ]
        return torch.cat(found).cpu()

    def state_dict(self) -> dict[str, Any]:
        """Where stage 1 ends."""
        return {"end": self._end}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._plan(state["end"])


def learnable_median(outputs: Outputs, batch: Batch, top: int) -> Tensor:
    """The median loss of each row's tokens that are among the `top` likeliest, float32 [rows]; -inf where none is.

    Of an even number it is the lower of the middle two.
    """
    _, known = outputs.candidates(batch["labels"], top + 1)
    # The true token comes first and the others by their rank: fewer than `top` of them are likelier than it.
    learnable = (known[..., 0] >= known[..., top]) & batch["mask"]
    losses = torch.where(learnable, -known[..., 0], torch.nan)
    median: Tensor = losses.nanmedian(1).values
    return torch.where(median.isnan(), -torch.inf, median)
