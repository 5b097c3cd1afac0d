"""Token values: pictures as the page draws them: text with coloured tokens, a scale, and a card for every token."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretrain.pictures import RAW, Drawn, Picture, PictureRow, PictureToken

_QUANTILE = 0.98
"""Of the sizes of all values, the one that gets the full colour."""
_BINS = 41
_BARS = 6
_LEAST = 1e-3
"""Candidates with less than this share of a target stand among the others."""
_LONGEST = 160
"""Letters of a token that are shown; no honest token has more."""
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories of what has no shape of its own, or turns the text around it: shown as a code."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a token: letters as they are, or a code in their place; after a line break, the break itself."""

    text: str
    code: bool = False
    after: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A candidate of a target: its letters, its share in percent and in words, whether it is the token itself."""

    pieces: list[Piece]
    percent: float
    words: str
    own: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """A token as drawn.

    Attributes:
        pieces: in the text; `named`: in its card, where a space is seen.
        side: `up`, `down` or empty (0, or no value); `strength`: of its colour, 0 to 100.
        value: in words; empty where it has none.
        bars: its target; `rest`: the share of what the bars leave out, in words, or empty.
        spoken: the token in a sentence.
    """

    pieces: list[Piece]
    named: list[Piece]
    side: str
    strength: int
    value: str
    detail: str
    bars: list[Bar]
    rest: str
    spoken: str


def shown(drawn: Sequence[Drawn], rows: int | None = None) -> list[dict[str, Any]]:
    """Pictures for the page's `token_values`; of each at most `rows` rows.

    What could not be drawn is told; a picture without text is left out.
    """
    views = []
    for each in drawn:
        if each.picture is None:
            views.append({"part": each.part, "error": each.error})
        elif any(row.tokens for row in each.picture.rows):
            views.append({"part": each.part, "error": "", **_picture(each.picture, rows)})
    return views


def limit(values: Sequence[float]) -> float:
    """The size of a value that gets the full colour: a high quantile of all, in two digits; 1 where all are 0."""
    sizes = np.abs(np.array([value for value in values if math.isfinite(value)], dtype=np.float64))
    if not sizes.any():
        return 1.0
    found = float(np.quantile(sizes, _QUANTILE)) or float(sizes.max())
    return float(f"{found:.1e}")


def signed(value: float) -> str:
    """A value with its sign, in three digits: `+0.0123`, `−4.10e−6`, `0`."""
    if value == 0:
        return "0"
    return _sign(value) + _short(value, "#.3g")


def _sign(value: float) -> str:
    return "+" if value > 0 else "−"


def _short(value: float, form: str = "g") -> str:
    """The size of a value, its exponent without idle zeros."""
    mantissa, _, exponent = f"{abs(value):{form}}".partition("e")
    return mantissa.rstrip(".") + (f"e{int(exponent)}".replace("-", "−") if exponent else "")


def pieces(text: str, named: bool = False) -> list[Piece]:
    """The letters of a token; what cannot be seen becomes a code.

    Args:
        text: the token.
        named: for a card: spaces are codes too, and lines do not break.
    """
    found: list[Piece] = []
    plain = ""
    for letter in text[:_LONGEST]:
        code = _code(letter, named)
        if code is None:
            plain += letter
            continue
        if plain:
            found.append(Piece(plain))
            plain = ""
        found.append(Piece(code, True, letter if letter in "\n\t" and not named else ""))
    if plain or not found:
        found.append(Piece(plain))
    return [*found, Piece("…", True)] if len(text) > _LONGEST else found


def _code(letter: str, named: bool) -> str | None:
    if letter == "\n":
        return "↵"
    if letter == "\t":
        return "⇥"
    if letter == " ":
        return "␣" if named else None
    number = ord(letter)
    if RAW + 0x80 <= number <= RAW + 0xFF:
        return f"{number - RAW:02X}"
    if unicodedata.category(letter) in _UNSEEN:
        return f"{number:02X}" if number < 0x100 else f"U+{number:04X}"
    return None


def _picture(picture: Picture, most: int | None) -> dict[str, Any]:
    rows = [row for row in picture.rows if row.tokens][:most]
    values = [value for row in rows for value in _values(row)]
    full = limit(values)
    beyond = sum(abs(value) > full for value in values)
    return {
        "title": picture.title,
        "caption": picture.caption,
        "low": picture.low_label,
        "high": picture.high_label,
        "ticks": [_sign(-1) + _short(full), "0", _sign(1) + _short(full)],
        "bins": _histogram(values, full),
        "note": _note(len(values), beyond, full),
        "targets": any(token.note for row in rows for token in row.tokens),
        "rows": [_row(row, full) for row in rows],
    }


def _note(tokens: int, beyond: int, full: float) -> str:
    if not tokens:
        return "No token here has a value."
    text = f"{tokens:,} tokens"
    return f"{text}; {beyond:,} beyond ±{_short(full)} have the full colour too." if beyond else f"{text}."


def _histogram(values: Sequence[float], full: float) -> list[dict[str, Any]]:
    """Bars from the lowest colour to the highest: height in percent of the highest bar, side and strength."""
    if not values:
        return []
    counts, edges = np.histogram(np.clip(values, -full, full), bins=_BINS, range=(-full, full))
    middles = (edges[:-1] + edges[1:]) / 2 / full
    return [
        {
            "height": round(100 * count / counts.max(), 1),
            "side": "" if number == _BINS // 2 else "up" if middle > 0 else "down",
            "strength": round(100 * abs(middle)),
        }
        for number, (count, middle) in enumerate(zip(counts.tolist(), middles.tolist(), strict=True))
    ]


def _row(row: PictureRow, full: float) -> dict[str, Any]:
    values = _values(row)
    facts = []
    if values:
        up = sum(value > 0 for value in values)
        facts = [
            ("mean value", signed(float(np.mean(values)))),
            ("above 0", f"{100 * up / len(values):.0f} % of tokens"),
        ]
    moved = [1 - _own(token) for token in row.tokens if token.note]
    if moved:
        facts.append(("target moved by", f"{100 * float(np.mean(moved)):.0f} %"))
    strongest = sorted(
        (token for token in row.tokens if _value(token) is not None), key=lambda token: token.value or 0.0
    )
    ends = [*reversed(strongest[-2:]), *reversed(strongest[:2])] if len(strongest) >= 8 else []
    return {
        "title": row.title,
        "facts": facts,
        "ends": [_shown(token, full) for token in ends],
        "tokens": [_shown(token, full) for token in row.tokens],
    }


def _shown(token: PictureToken, full: float) -> Shown:
    value = _value(token)
    named = pieces(token.text, named=True)
    bars = list(_bars(token))
    rest = 1 - sum(share for _, share in _candidates(token))
    words = "" if value is None else signed(value)
    spoken = f"{''.join(piece.text for piece in named)}, {f'value {words}' if words else 'no value'}"
    return Shown(
        pieces=pieces(token.text),
        named=named,
        side="" if not value else "up" if value > 0 else "down",
        strength=0 if value is None else min(100, round(100 * abs(value) / full)),
        value=words,
        detail=token.detail,
        bars=bars,
        rest=_percent(rest) if bars and rest > 5e-4 else "",
        spoken=spoken,
    )


def _bars(token: PictureToken) -> Iterator[Bar]:
    for text, share in _candidates(token):
        yield Bar(pieces(text, named=True), round(100 * min(1.0, share), 1), _percent(share), text == token.text)


def _candidates(token: PictureToken) -> list[tuple[str, float]]:
    """The candidates of its target that its card names."""
    return [(text, share) for text, share in token.note if math.isfinite(share) and share >= _LEAST][:_BARS]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"


def _own(token: PictureToken) -> float:
    """The share of its target that a token keeps."""
    return sum(share for text, share in token.note if text == token.text and math.isfinite(share))


def _value(token: PictureToken) -> float | None:
    return token.value if token.value is not None and math.isfinite(token.value) else None


def _values(row: PictureRow) -> list[float]:
    return [value for token in row.tokens if (value := _value(token)) is not None]
