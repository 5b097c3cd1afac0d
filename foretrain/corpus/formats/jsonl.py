"""One JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from foretrain.corpus.decoding import Decoder, read_lines
from foretrain.corpus.formats.base import Format, Record
from foretrain.errors import RequestError
from foretrain.parts import Facts


class Jsonl(Format):
    """One JSON object a line; empty lines are passed over."""

    kind: Literal["jsonl"] = "jsonl"
    facts: ClassVar[Facts] = Facts(answers="how are .jsonl files read?")

    def records(self, path: Path, decoder: Decoder) -> Iterator[Record]:
        """Every object, with the number of its line."""
        parse = json.JSONDecoder().decode
        for number, line in read_lines(path, decoder):
            if not line or line.isspace():
                continue
            try:
                fields = parse(line)
            except (ValueError, RecursionError) as error:
                raise RequestError(
                    f"{path}, line {number}: not valid JSON ({error}). Each line should be one complete JSON object, "
                    f'such as {{"text": "..."}}; this one begins with {line[:40]!r}.'
                ) from error
            if not isinstance(fields, dict):
                raise RequestError(
                    f'{path}, line {number}: should be a JSON object such as {{"text": "..."}}, but is {line[:40]!r}.'
                )
            yield Record(number, fields)
