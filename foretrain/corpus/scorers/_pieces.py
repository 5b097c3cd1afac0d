"""Pieces: texts one after the other, some of them at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T", str, bytes)


def grouped(texts: Iterable[T], size: int) -> Iterator[list[T]]:
    """Neighbours in groups that are `size` characters (or bytes) long, or up to a text longer."""
    piece: list[T] = []
    count = 0
    for text in texts:
        piece.append(text)
        count += len(text)
        if count >= size:
            yield piece
            piece, count = [], 0
    if piece:
        yield piece
