"""A reference for what feedback can do: train on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.feedback.text import TextSet
from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.section import Number
from foretrain.steering._places import Reshuffled, stretch
from foretrain.steering.base import Steering

if TYPE_CHECKING:
    from foretrain.context import Context


class MixFeedback(Steering):
    """A reference and not a method: feedback items stand in the place of a share of the run's own windows.

    Everything else that reads feedback only asks it for a direction and never trains on its labels. This part does so
    on purpose: it is direct supervision, the first thing that anyone would try, and an upper reference for what
    steering by the same items may be expected to reach. Report it beside methods, never among them.

    The windows that are replaced lie evenly: one, at random, in each stretch of 1 / `share` windows, so that the share
    holds over any part of the run. Items come pass by pass, each time shuffled anew. A window holds one item, and only
    the tokens of its completion count; what it does not fill is padding, which is paid for like any token. Replaced
    rows keep the domain of the row that was there.
    """

    modality: ClassVar[str] = "text"
    kind: Literal["mix_feedback"] = "mix_feedback"
    facts: ClassVar[Facts] = Facts(
        answers="mix: upper reference, what does training on the feedback items themselves do?",
        overhead="none; the windows it takes are missing elsewhere",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"share": 0.0}

    feedback: str
    """The feedback set, of text."""
    share: Number = Field(0.125, ge=0, le=1)
    """Share of the run's windows that are feedback items."""

    _context: Any = PrivateAttr(None)
    _set: Any = PrivateAttr(None)
    _order: Any = PrivateAttr(None)

    def setup(self, context: Context) -> None:
        """Read the feedback.

        Raises:
            RequestError: no such feedback, or it is not text.
        """
        found = context.feedback(self.feedback)
        if not isinstance(found, TextSet):
            raise RequestError(
                f"steering 'mix_feedback' puts texts in the place of others, but the feedback '{self.feedback}' is "
                f"'{context.recipe.feedback[self.feedback].kind}'; name one of kind 'text'."
            )
        self._context, self._set = context, found
        self._order = Reshuffled(found.items, context.seed, "mix_feedback", self.feedback)

    def replace(self, batch: Batch) -> Batch:
        """The batch with this rank's share of the step's items, and what of every row counts (`valid`)."""
        rows = self._context.stream.rows
        step = dict(self._items(range(batch.step * rows, (batch.step + 1) * rows)))
        counted = self._set.valid[list(step.values())].sum()
        self._context.record("mix_feedback/tokens", float(counted))
        places = [row for row, position in enumerate(batch.positions.tolist()) if position in step]
        items = [step[position] for position in batch.positions[places].tolist()]

        changed = {"tokens": batch["tokens"].clone(), "valid": self._valid(batch)}
        changed["tokens"][places] = self._set.tokens[items]
        changed["valid"][places] = self._set.valid[items]
        if "segments" in batch:
            changed["segments"] = batch["segments"].clone()
            changed["segments"][places] = 0
        return batch.with_(**changed)

    def _valid(self, batch: Batch) -> Tensor:
        if "valid" in batch:
            return batch["valid"].clone()
        return torch.ones_like(batch["tokens"], dtype=torch.bool)

    def _items(self, positions: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Which of these positions (consecutive ones) are replaced, and by which items."""
        share, seed = Fraction(self.share), self._context.seed
        # The nth stretch is all positions whose product with the share begins with n.
        numbers = range(int(positions[0] * share), int(positions[-1] * share) + 1) if share else ()
        for number in numbers:
            places = stretch(share, number)
            position = places[seed_from(seed, "mix_feedback", self.feedback, "place", number) % len(places)]
            if position in positions:
                yield position, self._order[number]
