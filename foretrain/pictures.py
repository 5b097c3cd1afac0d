"""Pictures: what a steering part shows of itself in the report: text whose every token has a value and a target.

A part makes one from its own tensors with `token_picture`; the run keeps them in `pictures.json`, and the reports of
the run and of its study draw them (`reports/token_values.py`). Nothing here knows of HTML.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from foretrain.batch import Batch
    from foretrain.objectives.base import Targets
    from foretrain.tokens.tokenizer import TextTokenizer

RAW = 0xEF00
"""A byte that is no character of its own (a part of one, from 0x80 on) stands in a text as the character RAW + byte."""
TOKENS = 160
"""Tokens of a row that a picture shows at most."""
CANDIDATES = 8
"""Candidates of a token's target that a picture names at most."""
_PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTES = {chr(byte): byte for byte in _PRINTED} | {
    chr(0x100 + number): byte for number, byte in enumerate(sorted(set(range(0x100)) - set(_PRINTED)))
}
"""The letters by which byte-level tokenizers (GPT-2's and its kin) name bytes."""
_BYTE_NAME = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, slots=True)
class PictureToken:
    """One token of the text.

    Attributes:
        text: as the tokenizer writes it, spaces and line breaks included; see `RAW` for single bytes.
        value: its colour; above 0 as the picture's `high_label` says. None, or not finite: it has none.
        note: the target that the learner was given in its place: (candidate, probability), the most likely first. What
            their sum lacks of 1 went to others. Empty: the token itself.
        detail: a line of words about it.
    """

    text: str
    value: float | None
    note: tuple[tuple[str, float], ...] = ()
    detail: str = ""

    def plain(self) -> list[Any]:
        """The token as JSON: [text, value or null, note, detail], what is empty at the end left out."""
        value = self.value if self.value is not None and math.isfinite(self.value) else None
        found = [self.text, value, [list(pair) for pair in self.note], self.detail]
        while len(found) > 2 and not found[-1]:
            found.pop()
        return found

    @classmethod
    def from_plain(cls, data: Sequence[Any]) -> PictureToken:
        """What `plain` gave."""
        gaps: tuple[Any, ...] = ("", None, (), "")
        text, value, note, detail = (*data, *gaps[len(data) :])
        pairs = tuple((str(candidate), float(probability)) for candidate, probability in note)
        return cls(str(text), None if value is None else float(value), pairs, str(detail))


@dataclass(frozen=True, slots=True)
class PictureRow:
    """A stretch of text: its title (the domain it is from) and its tokens, in order."""

    title: str
    tokens: tuple[PictureToken, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """Text with a value for every token.

    Attributes:
        title: what is shown, as a heading.
        caption: how to read it, in a sentence or two: what a value is, in which unit.
        low_label, high_label: what values below and above 0 mean.
        rows: the text.
    """

    title: str
    caption: str
    low_label: str
    high_label: str
    rows: tuple[PictureRow, ...]

    def plain(self) -> dict[str, Any]:
        """The picture as JSON; values that are not finite are null."""
        rows = [{"title": row.title, "tokens": [token.plain() for token in row.tokens]} for row in self.rows]
        words = {"title": self.title, "caption": self.caption, "low": self.low_label, "high": self.high_label}
        return {**words, "rows": rows}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Picture:
        """What `plain` gave.

        Raises:
            LookupError, TypeError, ValueError: it is something else.
        """
        rows = [
            PictureRow(str(row["title"]), tuple(PictureToken.from_plain(token) for token in row["tokens"]))
            for row in data["rows"]
        ]
        return cls(str(data["title"]), str(data["caption"]), str(data["low"]), str(data["high"]), tuple(rows))


@dataclass(frozen=True, slots=True)
class Drawn:
    """What came of asking a part for its picture: the picture, or why there is none.

    Attributes:
        part: the part's kind.
        picture: None where drawing failed.
        error: what failed, in words.
    """

    part: str
    picture: Picture | None
    error: str = ""

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        if self.picture is None:
            return {"part": self.part, "error": self.error}
        return {"part": self.part, "picture": self.picture.plain()}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Drawn:
        """What `plain` gave.

        Raises:
            LookupError, TypeError, ValueError: it is something else.
        """
        if "picture" in data:
            return cls(str(data["part"]), Picture.from_plain(data["picture"]))
        return cls(str(data["part"]), None, str(data["error"]))


def token_picture(
    batch: Batch,
    values: Tensor,
    tokenizer: TextTokenizer,
    *,
    title: str,
    caption: str,
    low_label: str,
    high_label: str,
    targets: Targets | None = None,
    details: Sequence[Sequence[str]] | None = None,
) -> Picture:
    """The picture of a prepared batch of text: its labels, coloured.

    Args:
        batch: with `labels` and `mask` [rows, length]; rows are entitled by their domain.
        values: float [rows, length]; shown where the mask is on.
        tokenizer: of the run.
        title: heading of the picture.
        caption: how to read it: what a value is, in which unit.
        low_label: what values below 0 mean.
        high_label: what values above 0 mean.
        targets: what the learner was given in the labels' place, shown where the mask is on.
        details: a line of words for every token, [rows][length].
    """
    labels, mask, worth = batch["labels"].tolist(), batch["mask"].tolist(), values.tolist()
    candidates: list[list[list[int]]] = [] if targets is None else targets.ids.tolist()
    shares: list[list[list[float]]] = [] if targets is None else targets.probabilities.tolist()
    known: dict[int, str] = {}

    def text(token: int) -> str:
        if token not in known:
            known[token] = token_text(tokenizer, token)
        return known[token]

    def note(row: int, place: int) -> tuple[tuple[str, float], ...]:
        if not candidates:
            return ()
        pairs = sorted(zip(shares[row][place], candidates[row][place], strict=True), key=lambda pair: -pair[0])
        return tuple((text(token), _short(share)) for share, token in pairs[:CANDIDATES] if share > 0)

    rows = []
    for row, ids in enumerate(labels):
        tokens = []
        for place, token in enumerate(ids[:TOKENS]):
            on = bool(mask[row][place])
            detail = details[row][place] if details is not None and on else ""
            value = _short(worth[row][place]) if on else None
            tokens.append(PictureToken(text(token), value, note(row, place) if on else (), detail))
        rows.append(PictureRow(batch.domains[int(batch["domain"][row])], tuple(tokens)))
    return Picture(title, caption, low_label, high_label, tuple(rows))


def token_text(tokenizer: TextTokenizer, token: int) -> str:
    """A token as it stands in a text: with its leading space, and bytes that are no character as `RAW` says."""
    alone = tokenizer.decode([token])
    if "\ufffd" not in alone:
        # Some tokenizers drop the space in front of the first token of a text; the second keeps its own.
        return tokenizer.decode([token, token])[len(alone) :]
    name = str(tokenizer.fast.convert_ids_to_tokens(token))
    if found := _BYTE_NAME.fullmatch(name):
        raw = bytes.fromhex(found[1])
    elif all(letter in _BYTES for letter in name):
        raw = bytes(_BYTES[letter] for letter in name)
    else:
        return alone
    text = raw.decode("utf-8", errors="surrogateescape")
    return "".join(chr(ord(letter) - 0xDC00 + RAW) if 0xDC80 <= ord(letter) <= 0xDCFF else letter for letter in text)


def _short(value: float) -> float:
    """Six digits: more than any report shows."""
    return float(f"{value:.6g}")
