"""What parts share that put windows from earlier in the run into the place of some of a batch's own."""

from __future__ import annotations

import math
from abc import abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field, PrivateAttr

from foretrain.batch import Batch
from foretrain.errors import RequestError, unknown_name
from foretrain.hashing import seed_from
from foretrain.section import Number
from foretrain.steering._places import stretch
from foretrain.steering.base import Steering

if TYPE_CHECKING:
    from foretrain.context import Context
    from foretrain.stages import Period

Share = Annotated[Number, Field(ge=0, le=1)]

_GOLDEN = (math.sqrt(5) - 1) / 2


class Places:
    """Which of the numbers 0, 1, 2 ... are taken: one, at random, in each stretch of 1 / `share` numbers."""

    def __init__(self, share: float, seed: int) -> None:
        self._share, self._seed = Fraction(share), seed

    def _taken_in(self, nth: int) -> int:
        numbers = stretch(self._share, nth)
        return numbers[seed_from(self._seed, nth) % len(numbers)]

    def taken(self, number: int) -> bool:
        """Whether it is."""
        return self._share > 0 and self._taken_in(int(number * self._share)) == number

    def left(self, number: int) -> int:
        """How many of the numbers below this one are not."""
        if not self._share:
            return number
        nth = int(number * self._share)
        return number - nth - (self._taken_in(nth) < number)

    def nth_left(self, nth: int, below: int) -> int:
        """The nth (from 0) of those below `below` that are not."""
        return bisect_left(range(below), nth + 1, key=lambda number: self.left(number + 1))


class Mark(NamedTuple):
    """Where a stretch of the run with one stage and one share began.

    Attributes:
        stage: its name; empty in a run without stages.
        share: of the windows drawn from here on whose places are taken.
        seen: windows of every domain that had come before.
    """

    stage: str
    share: float
    seen: Mapping[str, int]


class Piece(NamedTuple):
    """The windows of one domain between two marks, less those that were not read since others took their places.

    Attributes:
        stage: in which they came; None for those of an earlier run that this one goes on from.
        first: number of the first one within the domain.
        drawn: how many came.
        places: which of them were not read.
    """

    stage: str | None
    first: int
    drawn: int
    places: Places

    @property
    def size(self) -> int:
        """How many were read."""
        return self.places.left(self.drawn)

    def window(self, nth: int) -> int:
        """The number, within the domain, of the nth one that was read."""
        return self.first + self.places.nth_left(nth, self.drawn)


class Rehearsal(Steering):
    """A share of the windows is replaced by windows that were read earlier in the run.

    Of the windows of each domain, one, at random, in every stretch of 1 / `share` gives up its place. What comes
    instead is drawn from what was really read: windows whose places were taken never come again, as they never came.
    Which ones they are follows from their numbers, so that nothing is kept of them, however long the run.

    A run that goes on from another one on the same text has seen what that one saw. Places that other parts take in the
    batch are not known here.

    Figures: `share` of this step's windows, and `DOMAIN` of all that came again so far, as shares.
    """

    neutral: ClassVar[dict[str, Any] | None] = {"share": 0.0}

    share: Share | dict[str, Share] = 0.25
    """Share of the windows that are ones from earlier; by stage: `{french: 0.25, german: 0.5}`, and none in others.
    While there is nothing to come again, none is."""

    _context: Any = PrivateAttr(None)
    _marks: list[Mark] = PrivateAttr(default_factory=list)
    _counts: dict[str, int] = PrivateAttr(default_factory=dict)

    def setup(self, context: Context) -> None:
        """Check the names of stages.

        Raises:
            RequestError: there is no such stage.
        """
        self._context, self._marks, self._counts = context, [], {}
        if isinstance(self.share, dict):
            self.check_stages("share", self.share)

    def check_stages(self, field: str, names: Iterable[str]) -> None:
        """Refuse names that no stage of the run has."""
        timeline = self._context.timeline
        known = [period.name for period in timeline.stages if timeline.staged]
        for name in names:
            if name not in known:
                fault = unknown_name("stage", name, known) if known else f"the recipe has no stage, so no '{name}'."
                raise RequestError(f"steering '{self.kind}': {field}: {fault}")

    # What may come again -------------------------------------------------------------------------------------------

    @abstractmethod
    def returns(self, domain: str, stage: str | None, now: Period) -> bool:
        """Whether what was read of a domain in a stage (None: in an earlier run) may come again in this period."""

    def chances(self, sizes: Mapping[str, int], step: int) -> Mapping[str, float]:
        """The weight of each domain for what comes again, from how many of its windows may: here, all windows alike."""
        return {name: float(size) for name, size in sizes.items()}

    def presented(self, domains: Collection[str], step: int) -> None:
        """Told at each step which domains it reads, those that come again among them."""

    def _pieces(self, domain: str) -> list[Piece]:
        """All windows of a domain that came so far, by the marks between which they did."""
        numbers = [0, *(mark.seen[domain] for mark in self._marks), self._context.stream.seen(domain)]
        pieces = [Piece(None, 0, numbers[1], Places(0.0, 0))]
        for number, mark in enumerate(self._marks):
            first, end = numbers[number + 1], numbers[number + 2]
            pieces.append(Piece(mark.stage, first, end - first, self._places(domain, number, mark.share)))
        return [piece for piece in pieces if piece.drawn > 0]

    # The step ------------------------------------------------------------------------------------------------------

    def replace(self, batch: Batch) -> Batch:
        """The batch with this rank's share of the step's windows from earlier."""
        context, step = self._context, batch.step
        now, domains = context.timeline.at(step), context.stream.domains
        pools = {
            name: [piece for piece in self._pieces(name) if self.returns(name, piece.stage, now)] for name in domains
        }
        sizes = {name: sum(piece.size for piece in pieces) for name, pieces in pools.items()}
        sizes = {name: size for name, size in sizes.items() if size > 0}
        self._mark(now, bool(sizes))

        drawn, numbers = context.stream.drawn()
        names, mark = [domains[number] for number in drawn.tolist()], self._marks[-1]
        places = {name: self._places(name, len(self._marks) - 1, mark.share) for name in domains}
        taken = [
            row
            for row, (name, number) in enumerate(zip(names, numbers.tolist(), strict=True))
            if places[name].taken(number - mark.seen[name])
        ]
        chosen = dict(zip(taken, self._choose(sizes, step, len(taken)), strict=True))
        self.presented({chosen.get(row, name) for row, name in enumerate(names)}, step)
        self._tell(len(taken) / len(names))
        return self._put(batch, chosen, pools)

    def _share_of(self, stage: str) -> float:
        return self.share.get(stage, 0.0) if isinstance(self.share, dict) else self.share

    def _places(self, domain: str, mark: int, share: float) -> Places:
        return Places(share, seed_from(self._context.seed, self.kind, "places", domain, mark))

    def _mark(self, now: Period, possible: bool) -> None:
        """Put a mark where the stage or the share that is really replaced has changed."""
        share = self._share_of(now.name) if possible else 0.0
        latest = self._marks[-1] if self._marks else None
        if latest is None or (latest.stage, latest.share) != (now.name, share):
            stream = self._context.stream
            self._marks.append(Mark(now.name, share, {name: stream.seen(name) for name in stream.domains}))
        elif not possible and self._share_of(now.name) and not self._context.timeline.staged:
            self._context.warn(
                f"steering '{self.kind}' has nothing to bring back: it asks for what earlier stages read, and the "
                "recipe has no `stages`. Name some, or take the part out."
            )

    def _choose(self, sizes: Mapping[str, int], step: int, count: int) -> list[str]:
        """The domains of the next windows that come again."""
        if not count:
            return []
        chances = self.chances(sizes, step)
        edges = list(accumulate(chances[name] for name in sizes))
        # Points at multiples of the golden ratio lie evenly: realised shares stay within a few windows of the chances.
        origin, turn = seed_from(self._context.seed, self.kind, "domains") * 2.0**-63, sum(self._counts.values())
        points = ((origin + (turn + number) * _GOLDEN) % 1 * edges[-1] for number in range(count))
        chosen = [list(sizes)[min(bisect_right(edges, point), len(edges) - 1)] for point in points]
        for name in chosen:
            self._counts[name] = self._counts.get(name, 0) + 1
        return chosen

    def _put(self, batch: Batch, chosen: Mapping[int, str], pools: Mapping[str, list[Piece]]) -> Batch:
        """The batch with windows of the domains chosen for rows of the step, over all ranks, in these rows' places."""
        rows = (batch.positions - batch.step * self._context.stream.rows).tolist()
        mine = {own: chosen[row] for own, row in enumerate(rows) if row in chosen}
        if not mine:
            return batch
        tensors = {name: tensor.clone() for name, tensor in batch.items()}
        for domain in sorted(set(mine.values())):
            places = [own for own, name in mine.items() if name == domain]
            numbers = [self._window(pools[domain], position) for position in batch.positions[places].tolist()]
            for name, tensor in self._context.stream.windows_at(domain, np.array(numbers)).items():
                tensors[name][places] = tensor
            if "valid" in tensors:  # whatever an earlier part put here, all of these windows counts
                tensors["valid"][places] = True
        return batch.with_(**tensors)

    def _window(self, pieces: list[Piece], position: int) -> int:
        """The number of the window that comes at a position: any of the pieces', equally likely."""
        nth = seed_from(self._context.seed, self.kind, "window", position) % sum(piece.size for piece in pieces)
        for piece in pieces:
            if nth < piece.size:
                return piece.window(nth)
            nth -= piece.size
        raise AssertionError("the pieces of a domain are as many as their sum")

    def _tell(self, share: float) -> None:
        self._context.record(f"{self.kind}/share", share)
        total = sum(self._counts.values())
        for name, count in self._counts.items():
            self._context.record(f"{self.kind}/{name}", count / total)

    # State ---------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where stages and shares changed, and how many windows of each domain came again."""
        marks = [[mark.stage, mark.share, dict(mark.seen)] for mark in self._marks]
        return {"marks": marks, "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._marks = [Mark(str(stage), float(share), dict(seen)) for stage, share, seen in state["marks"]]
        self._counts = dict(state["counts"])
