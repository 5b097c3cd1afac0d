"""Comma-separated values with a header."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from foretrain.corpus.decoding import Decoder, read_lines
from foretrain.corpus.formats.base import Format, Record
from foretrain.errors import RequestError
from foretrain.parts import Facts


class Csv(Format):
    """Comma-separated values; the first row names the columns; quoted cells may hold commas, quotes and line ends."""

    kind: Literal["csv"] = "csv"
    facts: ClassVar[Facts] = Facts(answers="how are .csv files read?")

    def records(self, path: Path, decoder: Decoder) -> Iterator[Record]:
        """Every row with the number of the line it begins on; all values are text."""
        # The library refuses cells over 128 KiB unless told otherwise, and has no setting for one reader alone.
        csv.field_size_limit(2**31 - 1)
        rows = csv.reader((line + "\n" for _, line in read_lines(path, decoder)), strict=True)
        try:
            header = next((row for row in rows if row), None)
            if header is None:
                return
            _check_header(header, path)
            begin = rows.line_num + 1
            for row in rows:
                if row:
                    if len(row) != len(header):
                        raise RequestError(
                            f"{path}, line {begin}: this row has {len(row)} cells, but the header names "
                            f"{len(header)} ({', '.join(header)}). A cell that holds a comma needs double quotes."
                        )
                    yield Record(begin, dict(zip(header, row, strict=True)))
                begin = rows.line_num + 1
        except csv.Error as error:
            raise RequestError(f"{path}, line {rows.line_num}: not valid CSV ({error}).") from error


def _check_header(header: list[str], path: Path) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise RequestError(f"{path}: its first row, which names the columns, names {twice[0]!r} more than once.")
