"""Stage: one step over all documents, as plain data that any worker can take up; and the passes that it is made of.

    .stages/02-near_duplicates-HASH/     HASH is of the step, and of all before it
        documents/00000.parquet          what is left of shard 0
        dropped/00000.parquet            what is not, without its text, and why
        counts/00000.json                how many, why, examples, cost
        passes/NAME/                     the executor's own records: which tasks of a pass are done
        work/                            what earlier passes leave for later ones
        stage.json                       the sums: it is there when the stage is complete

A stage reads the documents of the one before it. Whatever has to look at all documents before it can decide about one
(duplicates, statistics) does so in passes of its own that come before, and leaves files in `work`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretrain.corpus.document import Document
from foretrain.curation.shard import (
    DOCUMENT,
    DROPPED,
    TableWriter,
    document_row,
    read_documents,
    text_schema,
)
from foretrain.files import read_json, write_json

if TYPE_CHECKING:
    from foretrain.curation.steps.base import Dropped

SHOWN = 400
"""Characters of an example's text."""
Task = Callable[[Any, int, int], Any]
"""What an executor runs for each task of a pass: `task(data, rank, world_size)`; blocks of datatrove are such."""


def shard_file(folder: Path, rank: int, what: str = "documents") -> Path:
    """The file of a shard in a stage's folder: of its `documents`, or of those `dropped`."""
    return folder / what / f"{rank:05d}.parquet"


@dataclass(frozen=True)
class Pass:
    """Something done once for each task, wherever there is room; tasks know nothing of each other.

    Attributes:
        name: of its folder.
        tasks: how many there are.
        pipeline: blocks, each of which is given what the one before it yields.
    """

    name: str
    tasks: int
    pipeline: Sequence[Task]


@dataclass(frozen=True)
class Stage:
    """Where a stage keeps its files and what it reads.

    Attributes:
        folder: its own.
        before: folder of the stage that it reads.
        shards: how many shards the documents are in; it is the same in all stages.
        examples: how many examples of dropped documents are kept for each reason, in each shard.
        earlier: every stage before this one: the scores that its step gives, and its folder.
    """

    folder: Path
    before: Path | None
    shards: int
    examples: int
    earlier: tuple[tuple[tuple[str, ...], Path], ...] = ()

    def documents(self, rank: int) -> Iterator[Document]:
        """The documents of a shard, as the stage before left them."""
        assert self.before is not None
        return read_documents(shard_file(self.before, rank))

    def kept(self, rank: int) -> Path:
        """The file of what is left of a shard."""
        return shard_file(self.folder, rank)

    def work(self, name: str, rank: int | None = None) -> Path:
        """A file (or, with `rank`, that of one shard) that a pass leaves for later ones; its folder is made."""
        path = self.folder / "work" / (name if rank is None else f"{name}/{rank:05d}")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@dataclass
class Counts:
    """What became of the documents of a stage (or of one shard of it).

    Attributes:
        documents, bytes: what came in.
        kept, kept_bytes: what is left.
        dropped: documents by reason.
        examples: some of those: `reason`, `id`, `source`, `text` (its beginning), `detail`.
        seconds: of one processor.
        notes: what the step counted beside (records without text, copies made), summed over shards.
    """

    documents: int = 0
    bytes: int = 0
    kept: int = 0
    kept_bytes: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    examples: list[dict[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    notes: dict[str, int] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return dict(vars(self))

    @classmethod
    def sum(cls, all_: Iterable[Counts], examples: int) -> Counts:
        """Of several shards; at most `examples` for each reason."""
        total = cls()
        shown: Counter[str] = Counter()
        for each in all_:
            for name in ("documents", "bytes", "kept", "kept_bytes", "seconds"):
                setattr(total, name, getattr(total, name) + getattr(each, name))
            total.dropped = dict(Counter(total.dropped) + Counter(each.dropped))
            total.notes = dict(Counter(total.notes) + Counter(each.notes))
            for example in each.examples:
                shown[example["reason"]] += 1
                if shown[example["reason"]] <= examples:
                    total.examples.append(example)
        total.dropped = dict(sorted(total.dropped.items(), key=lambda item: (-item[1], item[0])))
        return total


def settle(
    stage: Stage, rank: int, found: Iterable[Document | Dropped], notes: Callable[[], dict[str, int]] = dict
) -> Counts:
    """Write what a step gave for the documents of one shard: those that are left, those dropped, and the counts.

    `notes` is asked for what else was counted, at the end.
    """
    counts, began = Counts(), time.process_time()
    shown: Counter[str] = Counter()
    kept = TableWriter(stage.kept(rank), text_schema(DOCUMENT))
    dropped = TableWriter(shard_file(stage.folder, rank, "dropped"), text_schema(DROPPED))
    with kept, dropped:
        for each in found:
            document = each if isinstance(each, Document) else each.document
            size = len(document.text.encode())
            counts.documents += 1
            counts.bytes += size
            row = document_row(document)
            if isinstance(each, Document):
                counts.kept += 1
                counts.kept_bytes += size
                kept.append(row, size)
                continue
            counts.dropped[each.reason] = counts.dropped.get(each.reason, 0) + 1
            dropped.append({"id": document.id, "reason": each.reason, "bytes": size, "scores": row["scores"]})
            if shown[each.reason] < stage.examples:
                shown[each.reason] += 1
                counts.examples.append(_example(each))
    counts.seconds, counts.notes = time.process_time() - began, notes()
    write_json(stage.folder / "counts" / f"{rank:05d}.json", counts.plain())
    return counts


def _example(dropped: Dropped) -> dict[str, str]:
    document = dropped.document
    text = document.text[:SHOWN] + ("…" if len(document.text) > SHOWN else "")
    return {
        "reason": dropped.reason,
        "id": document.id,
        "source": document.source,
        "text": text,
        "detail": dropped.detail,
    }


def summed(stage: Stage) -> Counts:
    """The counts of all shards of a stage whose last pass is done."""
    files = [stage.folder / "counts" / f"{rank:05d}.json" for rank in range(stage.shards)]
    return Counts.sum((Counts(**read_json(file)) for file in files), stage.examples)
