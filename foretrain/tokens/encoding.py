"""Documents to ids, at the speed of the tokenizer: reading and writing overlap with encoding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from foretrain.tokens.tokenizer import TextTokenizer

T = TypeVar("T")

BATCH = 2_000_000
"""Characters of text encoded at once; the engine spreads a batch's texts over all cores."""
PIECE = 1_000_000
"""Characters from which on a text is encoded in pieces, so that memory does not grow with the longest document."""


@dataclass(frozen=True, slots=True)
class Encoded(Generic[T]):
    """One encoded text: what it came with, its ids, and the UTF-8 bytes it had."""

    item: T
    ids: list[int]
    bytes: int


def encode_all(tokenizer: TextTokenizer, texts: Iterable[tuple[T, str]]) -> Iterator[Encoded[T]]:
    """Encode (item, text) pairs, in order; while one batch is encoded, the next is read and the last one used.

    A text of over a million characters is cut after a line end (or a space) and its pieces are encoded each by itself:
    their ids give the same text, though a token that would have crossed a cut comes out as two.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="encode") as worker:
        running: Future[list[Encoded[T]]] | None = None
        for batch in _batches(texts):
            following = worker.submit(_encode, tokenizer, batch)
            if running is not None:
                yield from running.result()
            running = following
        if running is not None:
            yield from running.result()


def _batches(texts: Iterable[tuple[T, str]]) -> Iterator[list[tuple[T, str]]]:
    batch: list[tuple[T, str]] = []
    size = 0
    for item, text in texts:
        batch.append((item, text))
        size += len(text)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encode(tokenizer: TextTokenizer, batch: list[tuple[T, str]]) -> list[Encoded[T]]:
    results: list[Encoded[T]] = []
    short = [text for _, text in batch if len(text) <= PIECE]
    encoded = iter(tokenizer.encode(short))
    for item, text in batch:
        ids = next(encoded) if len(text) <= PIECE else _encode_long(tokenizer, text)
        results.append(Encoded(item, ids, len(text.encode())))
    return results


def _encode_long(tokenizer: TextTokenizer, text: str) -> list[int]:
    ids: list[int] = []
    pieces: list[str] = []
    size = 0
    for piece in cut(text, PIECE):
        pieces.append(piece)
        size += len(piece)
        if size >= BATCH:
            ids += [number for found in tokenizer.encode(pieces) for number in found]
            pieces, size = [], 0
    return ids + [number for found in tokenizer.encode(pieces) for number in found]


def cut(text: str, size: int) -> Iterator[str]:
    """A text in pieces of at most `size` characters, cut after the last line end (else space) where there is one."""
    start = 0
    while len(text) - start > size:
        stop = text.rfind("\n", start, start + size) + 1
        if stop <= start:
            stop = text.rfind(" ", start, start + size) + 1
        if stop <= start:
            stop = start + size
        yield text[start:stop]
        start = stop
    yield text[start:]
