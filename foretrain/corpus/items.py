"""Items: the small sets of records that feedback and tasks read, with the same care as a corpus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from foretrain.corpus.decoding import Decoder, Invalid
from foretrain.corpus.formats.base import format_of
from foretrain.corpus.inputs import open_path
from foretrain.corpus.paths import list_files, locate
from foretrain.corpus.records import Place, Reader, keeps, need_field
from foretrain.corpus.where import Value, Where
from foretrain.errors import RequestError


def read_items(
    path: str | Path,
    fields: Sequence[str] = (),
    limit: int | None = None,
    invalid: Invalid = "error",
    options: Mapping[str, Any] | None = None,
    where: Mapping[str, Value | list[Value]] | None = None,
) -> list[dict[str, Any]]:
    """The items of a .jsonl, .csv or .parquet file (or .gz, .zst), a folder of these, `builtin:NAME` or `hub:NAME`.

    Items of a file are its records, all fields included; items of a built-in corpus or data set are its documents: the
    metadata, and `id` and `text`.

    Args:
        path: where the items are.
        fields: fields that every item must have, with a value (not null).
        limit: read at most this many.
        invalid: what happens to invalid UTF-8.
        options: settings of a built-in corpus or a data set.
        where: keep only items whose field has this value, or one of these.

    Raises:
        RequestError: nothing is there, a record cannot be read, a field is missing (names file, line, and the nearest
            field there is), or there is no item at all.
    """
    items: list[dict[str, Any]] = []
    kept = Where(where) if where else None
    for place, item in islice(_filtered(_records(str(path), invalid, options or {}), kept), limit):
        for name in fields:
            if need_field(item, name, place) is None:
                raise RequestError(f"{place}: the field '{name}' is null; every item needs a value there.")
        items.append(item)
    if not items:
        raise RequestError(f"{path} holds no items{f' {kept.describe()}' if kept is not None else ''}.")
    return items


def _filtered(
    records: Iterator[tuple[Place, dict[str, Any]]], where: Where | None
) -> Iterator[tuple[Place, dict[str, Any]]]:
    return ((place, item) for place, item in records if keeps(where, item, place))


def _records(path: str, invalid: Invalid, options: Mapping[str, Any]) -> Iterator[tuple[Place, dict[str, Any]]]:
    if path.startswith(("builtin:", "hub:")):
        reader = Reader(invalid=invalid)
        for source in open_path(path, options):
            for number, document in enumerate(source.documents(reader), 1):
                yield Place(path, "document", number), {**document.metadata, "id": document.id, "text": document.text}
        return
    decoder = Decoder(invalid)
    for _, file in list_files(locate(path)):
        form = format_of(file)
        for number, found in form.records(file, decoder):
            yield Place(str(file), form.unit, number), found
