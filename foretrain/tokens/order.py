"""Order: in which order the windows of a domain come, and the shuffled one that is the default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from foretrain.hashing import seed_from
from foretrain.tokens.permutation import Permutation

if TYPE_CHECKING:
    from foretrain.tokens.readable import Readable

Ints = NDArray[np.int64]


class Order(Protocol):
    """Where the windows of one domain begin: a pure function of how many came before.

    Attributes:
        windows: windows per epoch (one pass over the domain).
    """

    windows: int

    def starts(self, counters: Ints) -> Ints:
        """The first token of the windows with these numbers (0, 1, 2 ... without end), int64, same shape."""


class MakeOrder(Protocol):
    """What makes an order for one domain; `ShuffledWindows` is one."""

    def __call__(self, tokens: Readable, stride: int, key: int) -> Order:
        """The order of a domain's windows, which bring `stride` new tokens each; `key` decides what is random."""


class Limited:
    """The first windows of another order alone, gone through again and again.

    The first epoch is that of the other order, up to where it ends here; later ones shuffle the same windows anew. So
    the windows of a smaller limit are among those of a larger one, and a run with a limit reads what a run without one
    reads until its windows are spent.

    Args:
        order: whose first windows these are.
        windows: how many, at most an epoch of `order`.
        key: decides what is random.
    """

    def __init__(self, order: Order, windows: int, key: int) -> None:
        self.windows = windows
        self._order, self._key = order, key
        self._latest: tuple[int, Permutation] | None = None

    def _shuffle(self, epoch: int) -> Permutation:
        if self._latest is None or self._latest[0] != epoch:
            self._latest = epoch, Permutation(self.windows, seed_from(self._key, epoch))
        return self._latest[1]

    def starts(self, counters: Ints) -> Ints:
        epochs, places = np.divmod(counters, self.windows)
        for epoch in np.unique(epochs[epochs > 0]).tolist():
            chosen = epochs == epoch
            places[chosen] = self._shuffle(epoch)(places[chosen])
        return self._order.starts(places)


class ShuffledWindows:
    """Every window once per epoch, in an order that is new in each epoch.

    The grid of windows, too, begins at another place of the ring in each epoch: cuts fall elsewhere, and the fewer
    than `stride` tokens that an epoch leaves out are others each time.
    """

    def __init__(self, tokens: Readable, stride: int, key: int) -> None:
        self.windows = tokens.tokens // stride
        self._tokens, self._stride, self._key = tokens.tokens, stride, key
        self._latest: tuple[int, Permutation, int] | None = None

    def _epoch(self, epoch: int) -> tuple[Permutation, int]:
        latest = self._latest
        if latest is None or latest[0] != epoch:
            shift = seed_from(self._key, epoch, "shift") % self._tokens
            latest = self._latest = epoch, Permutation(self.windows, seed_from(self._key, epoch)), shift
        return latest[1:]

    def starts(self, counters: Ints) -> Ints:
        epochs, places = np.divmod(counters, self.windows)
        starts = np.empty_like(counters)
        for epoch in np.unique(epochs).tolist():
            permutation, shift = self._epoch(epoch)
            chosen = epochs == epoch
            starts[chosen] = (shift + permutation(places[chosen]) * self._stride) % self._tokens
        return starts
