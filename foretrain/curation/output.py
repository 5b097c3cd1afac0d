"""Output: the shards of a finished corpus, with a column for each field and score, as any reader of Parquet takes them.

    documents-00000.parquet     id, text, source, a column for each field of the records, score_NAME for each score

A field has the type that its values have in all shards; values of several types, lists and mappings are JSON text. A
field of the records that is called `id`, `text` or `source` itself becomes `record_id` and so on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretrain.corpus.document import Document
from foretrain.curation.shard import TableWriter, read_documents
from foretrain.curation.stage import Pass, shard_file
from foretrain.files import read_json, write_json

OWN = ("id", "text", "source")
"""Columns of every corpus."""
_TYPES = {bool: "true or false", int: "whole number", float: "number", str: "text"}
_LARGEST = 1 << 63


def passes(stage: Path, work: Path, folder: Path, shards: int) -> Iterator[Pass]:
    """The two passes that write the documents of the last stage: their columns are known only after all are seen."""
    yield Pass("columns", shards, [FindColumns(stage, work)])
    yield Pass("documents", shards, [WriteShard(stage, work, folder, shards)])


@dataclass(frozen=True)
class FindColumns:
    """Leaves the columns of one shard and the types of their values."""

    stage: Path
    work: Path

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        found: dict[str, set[str]] = {}
        for document in read_documents(shard_file(self.stage, rank)):
            for name, value in _fields(document).items():
                types = found.setdefault(name, set())
                if value is not None:
                    types.add(_type(value))
        columns = {name: sorted(types) for name, types in found.items()}
        write_json(self.work / "columns" / f"{rank:05d}.json", columns)


@dataclass(frozen=True)
class WriteShard:
    """Writes one shard; one without a document is left out."""

    stage: Path
    work: Path
    folder: Path
    shards: int

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        documents = read_documents(shard_file(self.stage, rank))
        first = next(documents, None)
        if first is None:
            return
        types = columns(self.work, self.shards)
        with TableWriter(self.folder / shard_name(rank), _schema(types)) as writer:
            for document in _with(first, documents):
                fields = {name: _cell(value, types[name]) for name, value in _fields(document).items()}
                writer.append({**fields, **_own(document)}, len(document.text))


def shard_name(rank: int) -> str:
    """The file of a shard."""
    return f"documents-{rank:05d}.parquet"


def columns(work: Path, shards: int) -> dict[str, str]:
    """The type of each column besides `id`, `text` and `source`, over all shards."""
    found: dict[str, set[str]] = {}
    for rank in range(shards):
        for name, types in read_json(work / "columns" / f"{rank:05d}.json").items():
            found.setdefault(name, set()).update(types)
    return {name: _joined(found[name]) for name in sorted(found)}


def _joined(types: set[str]) -> str:
    if types <= {"whole number", "number"} and types:
        return "number" if "number" in types else "whole number"
    return next(iter(types)) if len(types) == 1 else "text" if not types else "JSON"


def _type(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and not -_LARGEST <= value < _LARGEST:
        return "JSON"
    return _TYPES.get(type(value), "JSON")


def _schema(types: Mapping[str, str]) -> Any:
    import pyarrow as pa

    kinds = {"true or false": pa.bool_(), "whole number": pa.int64(), "number": pa.float64()}
    own = [(name, pa.large_string()) for name in OWN]
    return pa.schema([*own, *((name, kinds.get(kind, pa.large_string())) for name, kind in types.items())])


def _own(document: Document) -> dict[str, str]:
    return {"id": document.id, "text": document.text, "source": document.source}


def _fields(document: Document) -> dict[str, Any]:
    """The fields and scores of a document, by column."""
    fields = {f"record_{name}" if name in OWN else name: value for name, value in document.metadata.items()}
    return {**fields, **{f"score_{name}": float(value) for name, value in document.scores.items()}}


def _cell(value: Any, kind: str) -> Any:
    if value is None or kind != "JSON":
        return float(value) if kind == "number" and value is not None else value
    return json.dumps(value, ensure_ascii=False)


def _with(first: Document, rest: Iterator[Document]) -> Iterator[Document]:
    yield first
    yield from rest
