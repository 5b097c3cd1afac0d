"""Ring: what every set of tokenized documents can do, however its documents lie: windows for training and judging."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


class Ring(ABC):
    """Documents one after the other, and after the last comes the first again; each ends with its end-of-document id.

    Attributes:
        tokens, documents: how many there are.
        bytes: UTF-8 bytes of the documents' text.
        hash: of its content.
    """

    tokens: int
    documents: int
    bytes: int
    hash: str

    @abstractmethod
    def gather(self, starts: Ints, length: int) -> Ints:
        """Windows of `length` tokens from each start, int64 [starts, length]."""

    @abstractmethod
    def segments(self, starts: Ints, length: int) -> NDArray[np.int32]:
        """Number of the document within its window of every token, int32 [starts, length]; each row starts at 0."""

    @abstractmethod
    def document_ends(self) -> tuple[Ints, Ints]:
        """Where each document ends in the ring, and the bytes of text up to and with it; int64 [documents] both."""

    def given(self, starts: Ints, length: int) -> NDArray[np.bool_] | None:
        """Which tokens are given and not to be learned (metadata), bool [starts, length]; None where none ever is."""
        return None

    @abstractmethod
    def names(self, start: int, length: int) -> list[str]:
        """Names (source ids) of the documents that a stretch of tokens touches, in order."""

    def read(self, start: int, length: int) -> Ints:
        """Tokens `start` to `start + length`, int64; what lies behind the end is the beginning."""
        return self.gather(np.array([start]), length)[0]

    def gathered(self, starts: Ints, length: int, segments: bool = False) -> dict[str, Tensor]:
        """Windows from each start as a batch's rows: `tokens` int64 and, if asked, `segments` int32 [rows, length].

        Where documents have metadata in front, also `given` bool [rows, length].
        """
        tensors = {"tokens": torch.from_numpy(self.gather(starts, length))}
        given = self.given(starts, length)
        if given is not None:
            tensors["given"] = torch.from_numpy(given)
        return {**tensors, "segments": torch.from_numpy(self.segments(starts, length))} if segments else tensors

    def restated(self, loss: float) -> dict[str, float]:
        """A mean loss per token (in nats) in other units: `bits_per_byte`, which compares across tokenizers."""
        return {"bits_per_byte": loss / math.log(2) * self.tokens / max(self.bytes, 1)}

    def windows(
        self, window: int, stride: int, *, rows: int, limit: int | None = None, segments: bool = False
    ) -> Iterator[dict[str, Tensor]]:
        """The set in order, for judging: every token up to `limit` is valid in exactly one window.

        A window is `window - stride` tokens of context and then `stride` tokens to be judged. The context of the first
        is the end of the ring, which is the end of a document.

        Args:
            window: tokens per row.
            stride: tokens per row that no other row judges.
            rows: rows per batch; the last batch may have fewer.
            limit: judge at most this many tokens.
            segments: whether to give document numbers.

        Yields:
            `tokens` int64 [rows, window]; `valid` bool [rows, window]: whether the token is to be judged; if asked
            for, `segments` int32 [rows, window].
        """
        total = self.tokens if limit is None else min(limit, self.tokens)
        count = -(-total // stride)
        context = window - stride
        for begin in range(0, count, rows):
            starts = np.arange(begin, min(begin + rows, count), dtype=np.int64) * stride - context
            places = starts[:, None] + np.arange(window)
            valid = (np.arange(window) >= context) & (places < total)
            batch = {"tokens": torch.from_numpy(self.gather(starts, window)), "valid": torch.from_numpy(valid)}
            if segments:
                batch["segments"] = torch.from_numpy(self.segments(starts, window))
            yield batch
