"""Steps run on documents in a folder, without a build around them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from foretrain.checks.of_curation import run_passes
from foretrain.corpus.document import Document
from foretrain.curation.shard import read_documents
from foretrain.curation.stage import Counts, Stage, settle, summed
from foretrain.curation.steps.base import CorpusStep


def stage_of(
    folder: Path, shards: Sequence[Sequence[Document]], earlier: tuple[tuple[tuple[str, ...], Path], ...] = ()
) -> Stage:
    """A stage that reads these documents."""
    before = Stage(folder / "before", None, len(shards), 9)
    for rank, documents in enumerate(shards):
        settle(before, rank, documents)
    return Stage(folder / "stage", before.folder, len(shards), 9, earlier or (((), before.folder),))


def run_step(step: CorpusStep, stage: Stage) -> tuple[list[list[Document]], Counts]:
    """What a step leaves of each shard, and its counts."""
    step.check()
    run_passes(step, stage)
    left = [list(read_documents(stage.kept(rank))) for rank in range(stage.shards)]
    return left, summed(stage)


def sifted(step: CorpusStep, folder: Path, *texts: str | Document) -> tuple[list[Document], Counts]:
    """What a step leaves of one shard."""
    documents = [text if isinstance(text, Document) else Document(str(i), text, "test") for i, text in enumerate(texts)]
    left, counts = run_step(step, stage_of(folder, [documents]))
    return left[0], counts
