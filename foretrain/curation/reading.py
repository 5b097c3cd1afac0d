"""Reading: the first stage of a build: from files, built-in corpora and data sets to shards of documents."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from foretrain.corpus.document import Document
from foretrain.corpus.inputs import Input, open_path
from foretrain.corpus.records import Reader, Report
from foretrain.corpus.where import Wanted, Where
from foretrain.curation.stage import Stage, settle
from foretrain.errors import RequestError
from foretrain.hashing import hash_data
from foretrain.section import Count, DataPath, Section
from foretrain.wording import check_template


class Read(Section):
    """Documents that a corpus is built from."""

    path: DataPath | list[DataPath]
    """A file (.txt, .jsonl, .csv, .parquet; .gz and .zst too), a folder, a pattern such as `crawl/*.jsonl.gz`,
    `data:FILE`, `hub:NAME` or `builtin:NAME`; or a list."""
    text: Annotated[str, AfterValidator(check_template)] = "text"
    """The field or column that holds the text, or a template such as `{question} {answer}`."""
    where: dict[str, Wanted] = {}
    """Read only documents whose field has this value, or one of these."""
    limit: Count | None = Field(None, gt=0)
    """Read at most this many documents of each file (or built-in corpus)."""
    invalid: Literal["replace", "error"] = "replace"
    """Invalid UTF-8: replaced and counted, or an error."""
    options: dict[str, Any] = {}
    """Settings of a `builtin:` corpus, or of a `hub:` data set."""

    def inputs(self) -> list[Input]:
        """The files, corpora and data sets behind the paths, in order.

        Raises:
            RequestError: nothing is there, or it cannot be read.
        """
        paths = [self.path] if isinstance(self.path, str) else self.path
        special = any(path.startswith(("builtin:", "hub:")) for path in paths)
        if self.options and not special:
            raise RequestError(
                f"read: 'options' ({', '.join(self.options)}) are for 'builtin:' and 'hub:' only; a file has none."
            )
        return [found for path in paths for one in _matches(path) for found in open_path(one, self.options)]

    def reader(self) -> Reader:
        """What makes documents of records, by these settings."""
        reader = Reader(self.text, None, self.invalid)
        reader.where = Where(self.where) if self.where else None
        return reader

    def content(self) -> Any:
        """Plain data that decides the documents: settings, and hashes of the inputs."""
        limit = None if self.where else self.limit
        inputs = [entry.identity(limit) for entry in self.inputs()]
        return {"inputs": inputs, "settings": self.model_dump(mode="json", exclude={"path"})}


def _matches(path: str) -> list[str]:
    """The paths that a pattern stands for, sorted; any other path is itself."""
    if not any(sign in path for sign in "*?[") or Path(path).exists():
        return [path]
    found = sorted(glob.glob(path, recursive=True))
    if not found:
        raise RequestError(
            f"read: no file matches {path}. Patterns have * (any letters), ? (one) and ** (any folders)."
        )
    return found


def content_hash(reads: list[Read]) -> str:
    """Hash of all that is read."""
    return hash_data([read.content() for read in reads])


@dataclass(frozen=True)
class ReadShard:
    """The task that makes one shard: its share of the inputs, as plain data."""

    reads: list[dict[str, Any]]
    stage: Stage

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        report = Report()
        reads = [Read.model_validate(plain) for plain in self.reads]
        documents = self._documents(reads, rank, report)
        notes = {"without text": "empty", "invalid UTF-8 replaced": "replaced"}
        settle(
            self.stage,
            rank,
            documents,
            lambda: {words: getattr(report, name) for words, name in notes.items() if getattr(report, name)},
        )

    def _documents(self, reads: list[Read], rank: int, total: Report) -> Iterator[Document]:
        inputs = [(read, entry) for read in reads for entry in read.inputs()]
        for number, first, stride in shares(rank, self.stage.shards, len(inputs)):
            read, entry = inputs[number]
            reader = read.reader()
            yield from islice(islice(entry.documents(reader), read.limit), first, None, stride)
            if first == 0:  # an input that several shards share is counted once
                total.empty += reader.report.empty
                total.replaced += reader.report.replaced


def shares(rank: int, shards: int, inputs: int) -> Iterator[tuple[int, int, int]]:
    """What one shard is made of: (number of the input, its first document, and then each how-manieth).

    Where there are as many inputs as shards, each goes to one shard as a whole; where there are fewer, several shards
    share an input, document by document. Every document is in exactly one shard.
    """
    if inputs >= shards:
        yield from ((number, 0, 1) for number in range(rank, inputs, shards))
        return
    mine = rank % inputs
    sharers = range(mine, shards, inputs)
    yield mine, sharers.index(rank), len(sharers)
