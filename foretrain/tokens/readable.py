"""Readable: what the stream and the validation need of a set, whatever it holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


class Readable(Protocol):
    """The items of one domain and split as a ring of tokens (of text, or patches of images), read in windows.

    Attributes:
        tokens: how many there are.
        documents: how many documents (or images) they are from.
        bytes: size of these.
        hash: of its content.
    """

    tokens: int
    documents: int
    bytes: int
    hash: str

    def gathered(self, starts: Ints, length: int, segments: bool = False) -> dict[str, Tensor]:
        """The windows of `length` tokens from each start, as tensors whose rows they are.

        `segments`: whether to give `segments` too, the number of the document of every token within its window.
        """

    def windows(
        self, window: int, stride: int, *, rows: int, limit: int | None = None, segments: bool = False
    ) -> Iterator[dict[str, Tensor]]:
        """The set in order, for judging: each token (up to `limit`) once, in batches of at most `rows` windows."""

    def names(self, start: int, length: int) -> list[str]:
        """Names of the documents that a stretch of tokens touches."""

    def restated(self, loss: float) -> dict[str, float]:
        """A mean loss per token, in nats, in other units by their names; empty where there are none."""
