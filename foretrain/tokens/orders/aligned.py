"""Begin every window at the beginning of a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from foretrain.errors import RequestError
from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.tokens.order import Order
from foretrain.tokens.orders.base import DocumentOrder
from foretrain.tokens.permutation import Permutation
from foretrain.tokens.selection import Ints

if TYPE_CHECKING:
    from foretrain.tokens.readable import Readable


class Aligned(DocumentOrder):
    """Windows that begin with a document: documents fill one up, and what of the last one does not fit is dropped.

    The next window begins with the document after it. So no window shows the end of a document whose beginning it does
    not show, as it must be where what stands in front of a document (`metadata`) is to be read with all of it; say
    `documents: separate` beside it where the documents of a window should not see one another. Documents longer than a
    window lose their ends. Windows are the same in each epoch and come in a new order.
    """

    kind: Literal["aligned"] = "aligned"
    facts: ClassVar[Facts] = Facts(
        paper="Metadata Conditioning Accelerates Language Model Pre-training",
        arxiv="2501.01956",
        year=2025,
        answers="in which order does text come? any, in windows that begin with a document",
        overhead="the ends of documents that do not fit are not read",
    )
    limits: ClassVar[bool] = True
    covers: ClassVar[bool] = False
    aligned: ClassVar[bool] = True

    def windows(self, tokens: Readable, stride: int, key: int) -> Order:
        ends = getattr(tokens, "document_ends", None)
        if ends is None:
            raise RequestError("order 'aligned' is for documents of text.")
        return AlignedWindows(ends()[0], stride, key)


class AlignedWindows:
    """The windows of one domain, each once an epoch.

    Args:
        ends: where each document ends, int64 [documents].
        stride: tokens that a window has room for.
        key: decides what is random.
    """

    def __init__(self, ends: Ints, stride: int, key: int) -> None:
        begins = np.append(0, ends[:-1])
        # The document that the next window begins with, by the one that this window begins with.
        following = np.searchsorted(begins, begins + stride, "left").tolist()
        chosen, document = [], 0
        while document < len(begins):
            chosen.append(document)
            document = following[document]
        self._begins, self._key, self.windows = begins[chosen], key, len(chosen)
        self._latest: tuple[int, Permutation] | None = None

    def _order(self, epoch: int) -> Permutation:
        if self._latest is None or self._latest[0] != epoch:
            self._latest = epoch, Permutation(self.windows, seed_from(self._key, epoch))
        return self._latest[1]

    def starts(self, counters: Ints) -> Ints:
        epochs, places = np.divmod(counters, self.windows)
        starts = np.empty_like(counters)
        for epoch in np.unique(epochs).tolist():
            chosen = epochs == epoch
            starts[chosen] = self._begins[self._order(epoch)(places[chosen])]
        return starts
