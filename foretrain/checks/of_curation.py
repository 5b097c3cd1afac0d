"""What the parts of a corpus build promise: steps and executors."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from foretrain.checks.promises import need, title
from foretrain.checks.trial import Figures
from foretrain.corpus.document import Document
from foretrain.curation import needed
from foretrain.curation.shard import read_documents
from foretrain.curation.stage import Pass, Stage, settle, summed
from foretrain.curation.steps.base import CorpusStep
from foretrain.errors import RequestError
from foretrain.hashing import hash_data

_TEXTS = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness.",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of doubt.",
    "Naïve Straße — 東京 🙂",
    "word " * 80,
    "- one\n- two\n\n- three ...\n",
    "1",
)


def check_corpus_step(part: Any, recipe: Figures) -> None:
    """Every document is kept or dropped, in words, the same each time; scores are those it says; settings are data."""
    name = title(part)
    part.check()
    need(hash_data(part.content()) == hash_data(part.content()), f"{name}: `content` changes from call to call")
    with tempfile.TemporaryDirectory() as folder:
        before = _read(Path(folder) / "before", part)
        found = []
        for turn in ("one", "two"):
            stage = Stage(Path(folder) / turn, before, 2, 2, (((), before), (part.needs, before)))
            run_passes(part, stage)
            counts = summed(stage)
            need(counts.documents >= 2 * len(_TEXTS), f"{name} loses documents in silence")
            need(all(reason.strip() for reason in counts.dropped), f"{name}: a document is dropped without a reason")
            found.append([list(read_documents(stage.kept(rank))) for rank in range(2)])
        need(found[0] == found[1], f"{name}: what it leaves changes from one time to the next")
        odd = {
            score for shard in found[0] for document in shard for score in part.gives() if score not in document.scores
        }
        need(not odd, f"{name} says that it gives the scores {', '.join(sorted(odd))}, and documents have none")


def _read(folder: Path, part: CorpusStep) -> Path:
    """A stage of two shards that have what the step needs."""
    scores = dict.fromkeys(part.needs, 1.0)
    stage = Stage(folder, None, 2, 2)
    for rank in range(2):
        documents = [Document(f"{rank}:{i}", text, "check", {"quality": i}, scores) for i, text in enumerate(_TEXTS)]
        settle(stage, rank, documents)
    return folder


def run_passes(part: CorpusStep, stage: Stage) -> None:
    """All passes of a step over a stage, in this process and in order."""
    for work in (*part.passes(stage), Pass("sift", stage.shards, [part.call("sift_shard", stage)])):
        for rank in range(work.tasks):
            data: Any = None
            for block in work.pipeline:
                data = block(data, rank, work.tasks)
            for _ in data or ():
                pass


def check_corpus_executor(part: Any, recipe: Figures) -> None:
    """A missing package is named in words; where it can run, each task is run once and never again."""
    with patch.object(needed, "importlib", SimpleNamespace(import_module=_no_module)):
        try:
            part.check()
            need(False, f"{title(part)}: a missing package goes unnoticed")
        except RequestError as error:
            need("pip install" in str(error), f"{title(part)}: a missing package is not named in words ({error})")
    try:
        part.check()
    except RequestError:
        return
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            part.run(Pass("check", 3, [_Note(folder)]), Path(folder) / "pass")
        notes = [(Path(folder) / str(rank)).read_text() for rank in range(3)]
    need(notes == ["3"] * 3, f"{title(part)}: each task is run once, and told how many there are")


class _Note:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        with open(Path(self.folder) / str(rank), "a") as file:
            file.write(str(world_size))


def _no_module(name: str) -> Any:
    raise ImportError(f"No module named '{name}'", name=name)
