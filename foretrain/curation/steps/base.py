"""CorpusStep: one thing done to all documents of a corpus that is built: filter, annotate, deduplicate, repeat."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from foretrain.corpus.document import Document
from foretrain.curation.stage import Pass, Stage, settle
from foretrain.hashing import hash_file
from foretrain.parts import Part, find, load_plugin


@dataclass(frozen=True, slots=True)
class Dropped:
    """A document that a step drops.

    Attributes:
        document: with what earlier steps attached.
        reason: in a few words, the same ones for all documents of that fate: it is what is counted.
        detail: what is particular to this one, for the examples.
    """

    document: Document
    reason: str
    detail: str = ""


class CorpusStep(Part):
    """What is done to the documents of a corpus, shard by shard: `sift` keeps, changes or drops each.

    A step that has to see all documents before it can decide about one says so by `passes`. It keeps nothing in memory
    between shards, which may be on other machines: passes leave files in the stage's folder.
    """

    axis: ClassVar[str] = "corpus step"
    modality: ClassVar[str] = "text"
    needs: ClassVar[tuple[str, ...]] = ()
    """Scores of documents that an earlier step has to give."""

    def gives(self) -> tuple[str, ...]:
        """Names of the scores that it attaches to documents."""
        return ()

    def faults(self, before: Sequence[CorpusStep]) -> Iterator[str]:
        """What is wrong with this step after those before it, a sentence each."""
        return iter(())

    def check(self) -> None:
        """Find what would go wrong later, before anything is computed: files, packages.

        Raises:
            RequestError: something is missing or wrong.
        """

    def content(self) -> Any:
        """Plain data that decides what it does: settings, and hashes of all that it reads."""
        return self.model_dump(mode="json")

    def passes(self, stage: Stage) -> Iterable[Pass]:
        """What has to be done over all documents before the first is sifted, in this order."""
        return ()

    @abstractmethod
    def sift(self, documents: Iterator[Document], stage: Stage, rank: int) -> Iterator[Document | Dropped]:
        """Every document of a shard, in order: as it is to go on, or as dropped.

        Args:
            documents: of the shard, streaming.
            stage: where passes left their files.
            rank: number of the shard.
        """

    def sift_shard(self, stage: Stage, rank: int) -> None:
        """The last pass over a shard: sift its documents and write what became of them."""
        read = 0

        def documents() -> Iterator[Document]:
            nonlocal read
            for read, document in enumerate(stage.documents(rank), 1):  # noqa: B007 (it is counted)
                yield document

        counts = settle(stage, rank, self.sift(documents(), stage, rank))
        # What is dropped is on record: a step that loses documents in silence is at fault.
        assert counts.documents >= read, f"{self.kind} lost {read - counts.documents} of {read} documents"

    def call(self, method: str, stage: Stage) -> Call:
        """A block for a pass: `method(stage, rank)` of this step, wherever it is run."""
        return Call(self.model_dump(mode="json"), _plugin(type(self)), method, stage)


@dataclass(frozen=True)
class Call:
    """A method of a step, as plain data: workers find the step again by its kind."""

    step: dict[str, Any]
    plugin: str
    method: str
    stage: Stage

    def __call__(self, data: Any, rank: int, world_size: int) -> Any:
        if self.plugin:
            load_plugin(self.plugin)
        part = find(CorpusStep, self.step["kind"])  # type: ignore[type-abstract]
        return getattr(part.model_validate(self.step), self.method)(self.stage, rank)


def _plugin(part: type[CorpusStep]) -> str:
    """Where a worker finds a part that is not of this package; empty for those that are."""
    if part.__module__.startswith("foretrain."):
        return ""
    file = inspect.getsourcefile(part)
    return str(Path(file).resolve()) if part.__module__.startswith("foretrain_plugin_") and file else part.__module__


def code_hash(part: CorpusStep) -> str:
    """Hash of the file of a plug-in's step: what it does is not known by its settings alone; empty for our own."""
    file = inspect.getsourcefile(type(part))
    return hash_file(Path(file)) if file and not type(part).__module__.startswith("foretrain.") else ""
