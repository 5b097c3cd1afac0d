"""Plain text, cut into documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from foretrain.corpus.compression import open_data
from foretrain.corpus.decoding import Decoder, read_lines
from foretrain.corpus.formats.base import Format, Record
from foretrain.parts import Facts

PIECE = 2_000
"""Characters from which on a document of a file without form feeds may end at an empty line."""
LONGEST = 4 * PIECE
"""Characters from which on it ends at the end of any line."""


class Txt(Format):
    r"""Plain text.

    A line that holds just a form feed (`\f`) ends a document, and where a file has such lines nothing else does.
    A file without them would be one document, of which no validation split could be made: it is cut into pieces of
    at least 2,000 characters, each ending at an empty line (where none comes for 8,000 characters, at the end of a
    line). A short rest joins the piece before it. In a corpus, the metadata of every
    document name its `file`, so that `group: file` keeps the pieces of one file in one split.
    """

    kind: Literal["txt"] = "txt"
    facts: ClassVar[Facts] = Facts(answers="how are .txt files read?")
    plain_text: ClassVar[bool] = True

    def records(self, path: Path, decoder: Decoder) -> Iterator[Record]:
        """Every document as a record with `text` alone, numbered by the line it begins on."""
        pieces = _between_form_feeds if _has_form_feeds(path) else _paragraph_groups
        for number, text in pieces(read_lines(path, decoder)):
            yield Record(number, {"text": text})


def _is_form_feed(line: str) -> bool:
    return line.strip(" \t\r\n") == "\f"


def _has_form_feeds(path: Path) -> bool:
    with open_data(path) as handle:
        return any(b"\f" in line and line.strip(b" \t\r\n") == b"\f" for line in handle)


def _between_form_feeds(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    begin = 1
    held: list[str] = []
    for number, line in lines:
        if _is_form_feed(line):
            yield begin, "\n".join(held).strip("\n")
            begin, held = number + 1, []
        else:
            held.append(line)
    if held:
        yield begin, "\n".join(held).strip("\n")


def _paragraph_groups(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Pieces that end where they are long enough; the last one waits, in case it is short and joins the one before."""
    waiting: tuple[int, str] | None = None
    begin, size = 1, 0
    held: list[str] = []
    for number, line in lines:
        empty = not line or line.isspace()
        if empty and not held:
            continue
        if not held:
            begin = number
        held.append(line)
        size += len(line) + 1
        if size >= (PIECE if empty else LONGEST):
            if waiting is not None:
                yield waiting
            waiting = begin, "\n".join(held).strip("\n")
            size, held = 0, []
    rest = "\n".join(held).strip("\n")
    if waiting is not None and rest and len(rest) < PIECE // 2:
        waiting, rest = (waiting[0], f"{waiting[1]}\n\n{rest}"), ""
    if waiting is not None:
        yield waiting
    if rest:
        yield begin, rest
