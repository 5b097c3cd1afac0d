"""Building: the stages of a build one after the other; what is complete for the same input is not done again.

    corpora/NAME/
        documents-00000.parquet ...   the corpus (`output.py`)
        manifest.json                 what it was made from and how, what became of the documents, what it cost
        card.html                     the same for people, with examples of what was dropped
        .stages/                      what each stage left (`stage.py`); a recipe that reads the folder passes it over

A stage's folder is named by the hash of its step, of all it reads, and of the stages before, so a build that was
killed goes on where it was, and one whose last step was changed begins there. Stages of former settings are removed at
the end.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from foretrain.curation import output
from foretrain.curation.build_file import CorpusBuild
from foretrain.curation.manifest import FORMAT, is_corpus, make_manifest
from foretrain.curation.reading import ReadShard, content_hash
from foretrain.curation.stage import Counts, Pass, Stage, summed
from foretrain.curation.steps.base import CorpusStep, code_hash
from foretrain.errors import RequestError
from foretrain.files import read_json, write_json
from foretrain.hashing import hash_data
from foretrain.lock import RunLock

STAGES = ".stages"


class Saying(Protocol):
    """Who is told what goes on."""

    def say(self, message: str) -> None:
        """One line."""


@dataclass(frozen=True)
class Built:
    """A stage that is complete: `kind` of its step (`read` for the first), scores that it gives, where, and counts."""

    kind: str
    gives: tuple[str, ...]
    stage: Stage
    hash: str
    counts: Counts
    seconds: float
    again: bool


def build(made: CorpusBuild, folder: Path, terminal: Saying, restart: bool = False) -> dict[str, Any]:
    """Build a corpus, or what is missing of it.

    Args:
        made: what is asked for.
        folder: where it goes.
        terminal: is told of each stage.
        restart: forget what an earlier build left there.

    Returns:
        What `manifest.json` says.

    Raises:
        RequestError: something that is read is missing or wrong, nothing is left, or the folder holds other things.
        CorruptFile: what an earlier build left is damaged.
    """
    made.executor.check()
    for step in made.steps:
        step.check()
    _refuse_others(folder)
    keys = stage_keys(made)
    with RunLock(folder):
        if restart:
            _clear(folder)
        manifest = _finished(folder, build_key(made, keys))
        if manifest is not None:
            terminal.say(f"{folder} is complete already.")
            return manifest
        done: list[Built] = []
        for number, key in enumerate(keys):
            done.append(_stage(made, folder, number, key, done))
            terminal.say(_told(done[-1]))
            if not done[-1].counts.kept:
                raise RequestError(_nothing_left(done))
        manifest = _write(made, folder, done, build_key(made, keys))
        _forget_others(folder, done)
    return manifest


def stage_keys(made: CorpusBuild) -> list[str]:
    """The hash of each stage, from reading on: of its step, all that it reads, and the stages before."""
    common = {"format": FORMAT, "shards": made.shards, "examples": made.examples}
    keys = [hash_data({**common, "read": content_hash(made.read)})]
    for step in made.steps:
        keys.append(hash_data({"before": keys[-1], "step": [step.content(), code_hash(step)]}))
    return keys


def build_key(made: CorpusBuild, keys: list[str]) -> str:
    """The hash of what a corpus is made from and how."""
    return hash_data({"name": made.name, "stages": keys})


def _stage(made: CorpusBuild, folder: Path, number: int, key: str, done: list[Built]) -> Built:
    """Do one stage, or find it done."""
    step = made.steps[number - 1] if number else None
    kind = "read" if step is None else step.kind
    stage = Stage(
        folder.resolve() / STAGES / f"{number:02d}-{kind}-{key[:16]}",
        done[-1].stage.folder if done else None,
        made.shards,
        made.examples,
        tuple((each.gives, each.stage.folder) for each in done),
    )
    record = stage.folder / "stage.json"
    again = record.is_file()
    if not again:
        began = time.perf_counter()
        for work in _passes(made, step, stage):
            made.executor.run(work, stage.folder / "passes" / work.name)
        plain = {"kind": kind, "hash": key, **summed(stage).plain(), "wall": time.perf_counter() - began}
        write_json(record, plain)
    found = read_json(record)
    counts = Counts(**{name: found[name] for name in Counts().plain()})
    return Built(kind, () if step is None else step.gives(), stage, key, counts, float(found["wall"]), again)


def _passes(made: CorpusBuild, step: CorpusStep | None, stage: Stage) -> Iterator[Pass]:
    if step is None:
        yield Pass("read", stage.shards, [ReadShard([read.model_dump(mode="json") for read in made.read], stage)])
        return
    yield from step.passes(stage)
    yield Pass("sift", stage.shards, [step.call("sift_shard", stage)])


def _told(built: Built) -> str:
    counts = built.counts
    words = f"{built.kind}: {counts.kept:,} of {counts.documents:,} documents"
    if built.kind == "read":
        words = f"read: {counts.kept:,} documents"
    return f"{words} ({'done before' if built.again else f'{built.seconds:.1f} s'})"


def _nothing_left(done: list[Built]) -> str:
    last = done[-1]
    if last.kind == "read":
        return "read: there is no document with text in what is read, so there is nothing to build a corpus from."
    reasons = ", ".join(f"{reason} ({count})" for reason, count in list(last.counts.dropped.items())[:5])
    advice = "Loosen it, or leave it out" if len(done) > 1 else ""
    return (
        f"steps[{len(done) - 2}]: {last.kind} dropped all {last.counts.documents} documents that were left: {reasons}. "
        f"{advice}; the corpus would be empty."
    )


def _refuse_others(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"--out {folder}: there is a file of that name; name a folder.")
    there = {path.name for path in folder.iterdir()} - {".lock"} if folder.is_dir() else set()
    if there and STAGES not in there and not is_corpus(folder):
        raise RequestError(f"--out {folder}: the folder holds other things; name a new one.")


def _clear(folder: Path) -> None:
    shutil.rmtree(folder / STAGES, ignore_errors=True)
    _clear_output(folder)


def _clear_output(folder: Path) -> None:
    """Take the finished corpus away, its manifest first: what has no manifest is not taken for complete."""
    for path in (folder / "manifest.json", folder / "card.html", *sorted(folder.glob("documents-*.parquet"))):
        path.unlink(missing_ok=True)


def _finished(folder: Path, key: str) -> dict[str, Any] | None:
    """The manifest of this very corpus, where it is complete and all its files are there."""
    if not is_corpus(folder):
        return None
    found: dict[str, Any] = read_json(folder / "manifest.json")
    files = [folder / "card.html", *(folder / shard["file"] for shard in found["shards"])]
    return found if found["build_hash"] == key and all(path.is_file() for path in files) else None


def _write(made: CorpusBuild, folder: Path, done: list[Built], key: str) -> dict[str, Any]:
    from foretrain.reports.data_card import write_card

    _clear_output(folder)
    last = done[-1].stage
    work = last.folder.parent / f"output-{key[:16]}"
    shutil.rmtree(work, ignore_errors=True)
    began = time.perf_counter()
    for each in output.passes(last.folder, work, folder.resolve(), made.shards):
        made.executor.run(each, work / "passes" / each.name)
    seconds = time.perf_counter() - began
    manifest = make_manifest(made, folder, done, output.columns(work, made.shards), key, seconds)
    write_card(folder, manifest)
    write_json(folder / "manifest.json", manifest)
    return manifest


def _forget_others(folder: Path, done: list[Built]) -> None:
    """Remove stages of former settings."""
    mine = {each.stage.folder.name for each in done}
    for path in (folder / STAGES).iterdir():
        if path.name not in mine:
            shutil.rmtree(path, ignore_errors=True)
