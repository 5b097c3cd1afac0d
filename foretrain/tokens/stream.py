"""Stream: the endless sequence of training batches, a pure function of (seed, position, weights, counters).

Which domain a window comes from depends on its position in the stream and the weights in force alone: position p is
given the point `u + p * phi` modulo 1 (phi the golden ratio, u from the seed), and the domains share out the interval
from 0 to 1 by weight. These points lie more evenly than random ones, at every scale: realised shares stay within a few
windows of the weights over any stretch, within a batch, on each rank and after each change of weights, where random
draws would stray by the square root of the number of windows. They are computed in 64-bit integers, exactly.

Which window of the domain it is depends on how many of that domain came before, and its order (`order.py`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretrain.batch import Batch
from foretrain.errors import RequestError, unknown_name
from foretrain.hashing import seed_from
from foretrain.tokens.order import Limited, MakeOrder, Order, ShuffledWindows
from foretrain.tokens.readable import Readable

LAG = 2
"""Steps from setting weights to their first use; whoever fetches batches ahead stays within it."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, made odd
_BLOCK = 1 << 20

Ints = NDArray[np.int64]
Weights = dict[str, float]


class Stream:
    """Training batches from the sets of several domains.

    Args:
        sets: the training tokens of each domain; their order numbers the domains.
        weights: relative weight of each domain.
        window: tokens per row.
        stride: new tokens per row (a causal language model reads one more than it has new ones).
        rows: rows per step, over all ranks.
        seed: decides everything that is random.
        lag: after how many steps new weights act.
        segments: whether batches number the documents within their windows.
        orders: what makes the order in which the windows of a domain come, where it is not the usual one.
        unique: tokens that some domains are limited to, which they go through again and again (`order.Limited`).

    Attributes:
        step: the step whose batch is next, from 0.
        domains: names of the domains, in the order that the `domain` tensor numbers them.
        weights: shares in force at this step, summing to 1.
        unique: windows of the domains that are limited.

    Raises:
        RequestError: weights that do not fit, a domain with a weight and too little text for one window, or a limit
            that a domain cannot have.
    """

    def __init__(
        self,
        sets: Mapping[str, Readable],
        weights: Mapping[str, float],
        *,
        window: int,
        stride: int,
        rows: int,
        seed: int,
        lag: int = LAG,
        segments: bool = False,
        orders: Mapping[str, MakeOrder] | None = None,
        unique: Mapping[str, int] | None = None,
    ) -> None:
        self.sets, self.domains = dict(sets), tuple(sets)
        self.window, self.stride, self.rows = window, stride, rows
        self.seed, self.lag, self.segments = seed, lag, segments
        self._orders: dict[str, Order] = {
            name: (orders or {}).get(name, ShuffledWindows)(tokens, stride, seed_from(seed, "order", name))
            for name, tokens in self.sets.items()
            if tokens.tokens >= max(window, stride)
        }
        self._epochs = {name: order.windows for name, order in self._orders.items()}
        self.unique = {
            name: min(self._epochs[name], limited_windows(name, limit, self.sets[name].tokens, stride))
            for name, limit in (unique or {}).items()
            if name in self._orders
        }
        for name, windows in self.unique.items():
            self._orders[name] = Limited(self._orders[name], windows, seed_from(seed, "again", name))
        self._origin = np.uint64(seed_from(seed, "mixture") * 2)
        self.step = 0
        self._counters = dict.fromkeys(self.domains, 0)
        self._pending: list[tuple[int, Weights]] = []
        self.weights = self._shares(weights)

    # Weights -------------------------------------------------------------------------------------------------------

    def _shares(self, weights: Mapping[str, float]) -> Weights:
        """Weights as shares of every domain that sum to 1; what cannot be is an error."""
        for name, weight in weights.items():
            if not math.isfinite(weight) or weight < 0:
                raise RequestError(f"The weight of domain '{name}' is {weight}; it should be a number from 0 on.")
            if name not in self.sets and weight > 0:
                raise RequestError(unknown_name("domain", name, self.domains))
            if weight > 0 and name not in self._orders:
                found = self.sets[name]
                raise RequestError(
                    f"The training split of domain '{name}' has {found.tokens} tokens in {found.documents} documents, "
                    f"fewer than one window of {self.window}. Give it more text, a smaller model.context, or weight 0."
                )
        missing = [name for name in self.domains if name not in weights]
        if missing:
            raise RequestError(
                f"There is no weight for domain '{missing[0]}'; every domain needs one (0: never drawn)."
            )
        total = math.fsum(weights[name] for name in self.domains)
        if total <= 0:
            raise RequestError("The weights of all domains sum to zero; at least one needs a weight above 0.")
        return {name: float(weights[name]) / total for name in self.domains}

    def set_weights(self, weights: Mapping[str, float], at: int | None = None) -> None:
        """New weights, which act from `lag` steps after this one on; they replace any set for that same step.

        Args:
            weights: relative weight of every domain.
            at: act from this step on instead; for weights that are known before the first batch is fetched.
        """
        at = self.step + self.lag if at is None else at
        pending = [(step, other) for step, other in self._pending if step != at]
        self._pending = sorted([*pending, (at, self._shares(weights))], key=lambda item: item[0])
        self._put_in_force()

    def _put_in_force(self) -> None:
        while self._pending and self._pending[0][0] <= self.step:
            self.weights = self._pending.pop(0)[1]

    # The batch -----------------------------------------------------------------------------------------------------

    def _draw(self, first: int, count: int) -> Ints:
        """Numbers of the domains at positions `first` on, under the weights in force."""
        positions = np.arange(first, first + count, dtype=np.uint64)
        points = ((self._origin + positions * _GOLDEN) >> np.uint64(11)) * 2.0**-53
        edges = np.cumsum([self.weights[name] for name in self.domains])
        edges[edges >= edges[-1]] = 1.0  # the last domain with a weight reaches to the end, whatever was rounded
        return np.searchsorted(edges, points, side="right").astype(np.int64)

    def drawn(self) -> tuple[Ints, Ints]:
        """The domain of every row of this step, over all ranks, and which window of the domain it is, by numbers."""
        domains = self._draw(self.step * self.rows, self.rows)
        numbers = np.zeros(self.rows, np.int64)
        for number in np.unique(domains).tolist():
            rows = np.flatnonzero(domains == number)
            numbers[rows] = self._counters[self.domains[number]] + np.arange(len(rows), dtype=np.int64)
        return domains, numbers

    def _places(self, rank: int, world: int) -> tuple[Ints, Ints, Ints]:
        """Positions, domain numbers and first tokens of the rows of one rank in this step."""
        mine = slice(rank * self.rows // world, (rank + 1) * self.rows // world)
        positions = np.arange(self.step * self.rows, (self.step + 1) * self.rows, dtype=np.int64)[mine]
        domains, numbers = (values[mine] for values in self.drawn())
        starts = np.zeros(len(positions), np.int64)
        for number in np.unique(domains).tolist():
            rows = np.flatnonzero(domains == number)
            starts[rows] = self._orders[self.domains[number]].starts(numbers[rows])
        return positions, domains, starts

    def batch(self, rank: int = 0, world: int = 1) -> Batch:
        """This step's batch, or the contiguous slice of its rows that one of `world` ranks takes.

        What the sets give, for text `tokens` int64 [rows, window]; `domain` int64 [rows]; `start` int64 [rows]: the
        place in its set of the row's first token, as the stream read it; where asked for, `segments` int32
        [rows, window]: the number of the document within the window; where a domain has metadata, `given` bool [rows,
        window]: tokens that are read and not learned.
        """
        positions, domains, starts = self._places(rank, world)
        tensors = self._read(domains, starts)
        return Batch(
            tensors, seed=self.seed, step=self.step, positions=torch.from_numpy(positions), domains=self.domains
        )

    def _read(self, domains: Ints, starts: Ints) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for number in np.unique(domains).tolist() or [0]:
            rows = torch.from_numpy(np.flatnonzero(domains == number))
            found = self.sets[self.domains[number]].gathered(starts[rows.numpy()], self.window, self.segments)
            for name, values in found.items():
                if name not in tensors:
                    # Zeros are what a domain without such a tensor means by it: `given`, where one has metadata.
                    tensors[name] = values.new_zeros((len(starts), *values.shape[1:]))
                tensors[name][rows] = values
        return {**tensors, "domain": torch.from_numpy(domains), "start": torch.from_numpy(starts)}

    def sources(self, row: int) -> list[str]:
        """Names of the documents that a row of this step's batch (over all ranks) reads from."""
        _, domains, starts = self._places(0, 1)
        return self.sets[self.domains[domains[row]]].names(int(starts[row]), self.window)

    def advance(self, steps: int = 1) -> None:
        """Go on to the next step, or by several; nothing is read."""
        target = self.step + steps
        while self.step < target:
            until = min([target, *(at for at, _ in self._pending)])
            self._count(self.step * self.rows, until * self.rows)
            self.step = until
            self._put_in_force()

    def _count(self, first: int, last: int) -> None:
        for begin in range(first, last, _BLOCK):
            drawn = np.bincount(self._draw(begin, min(_BLOCK, last - begin)), minlength=len(self.domains))
            for name, count in zip(self.domains, drawn.tolist(), strict=True):
                self._counters[name] += count

    # What was seen -------------------------------------------------------------------------------------------------

    def seen(self, domain: str) -> int:
        """How many windows of a domain came in earlier steps; they are its windows 0 to `seen - 1`."""
        return self._counters[self._known(domain)]

    def epoch(self, domain: str) -> float:
        """How often a domain was gone through so far: 1.5 is halfway through its second epoch."""
        seen = self.seen(domain)
        return seen / self._orders[domain].windows if seen else 0.0

    def windows_at(self, domain: str, numbers: Ints) -> dict[str, Tensor]:
        """Windows of a domain by their numbers: with `numbers < seen(domain)`, a replay of what was trained on.

        The tensors are those of a batch.
        """
        order = self._orders.get(self._known(domain))
        if order is None:
            raise RequestError(f"Domain '{domain}' has too little text for one window of {self.window} tokens.")
        starts = order.starts(np.asarray(numbers, np.int64))
        return self._read(np.full(len(starts), self.domains.index(domain), np.int64), starts)

    def _known(self, domain: str) -> str:
        if domain not in self.sets:
            raise RequestError(unknown_name("domain", domain, self.domains))
        return domain

    # State ---------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The step, a counter per domain (and the windows it is limited to), the weights in force and those to come."""
        return {
            "step": self.step,
            "counters": dict(self._counters),
            "unique": dict(self.unique),
            "weights": dict(self.weights),
            "pending": [[step, dict(weights)] for step, weights in self._pending],
        }

    def continue_from(self, state: Mapping[str, Any], domains: Collection[str]) -> None:
        """Start some domains after the windows that another run has seen (a branch), on the same text and seed.

        Args:
            state: what the other run's stream gave as its `state_dict`.
            domains: those that go on. Where the other run was limited to fewer or more windows, the domain begins
                after the first ones of both, so that its windows 0 to `seen - 1` have been seen all the same.
        """
        for name in domains:
            count = int(state["counters"][self._known(name)])
            theirs, mine = state.get("unique", {}).get(name), self.unique.get(name)
            if theirs != mine:
                epoch = self._epochs[name]
                count = min(count, theirs or epoch, mine or epoch)
            self._counters[name] = count

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            RequestError: it is the state of a stream of other domains.
        """
        if set(state["counters"]) != set(self.domains):
            raise RequestError(
                f"The saved stream has the domains {', '.join(sorted(state['counters']))}, and this run "
                f"{', '.join(sorted(self.domains))}; a run can only be resumed with the domains it began with."
            )
        self.step = int(state["step"])
        self._counters = {name: int(state["counters"][name]) for name in self.domains}
        self.weights = {name: float(state["weights"][name]) for name in self.domains}
        self._pending = [
            (int(step), {name: float(weights[name]) for name in self.domains}) for step, weights in state["pending"]
        ]


def limited_windows(domain: str, unique: int, tokens: int, stride: int) -> int:
    """How many windows `unique` of the `tokens` of a domain are, rounded to whole ones.

    Raises:
        RequestError: the domain has fewer tokens, or they are less than one window.
    """
    if unique > tokens:
        raise RequestError(
            f"corpus.{domain}.unique: the training split of domain '{domain}' has {tokens} tokens, fewer than the "
            f"{unique} asked for. Ask for at most {tokens}, give it more text, or leave `unique` out to use all of it."
        )
    if unique < stride:
        raise RequestError(
            f"corpus.{domain}.unique: {unique} tokens are less than one window of {stride} (model.context); raise one "
            "or lower the other."
        )
    return (2 * unique + stride) // (2 * stride)
