"""Building: a folder that a recipe reads, a manifest and a card; resumed by content, the same wherever it is done."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from foretrain.curation.build_file import load_build, make_build
from foretrain.curation.building import build
from foretrain.curation.manifest import read_manifest
from foretrain.errors import CorruptFile, RequestError
from foretrain.plan import make_plan
from foretrain.recipe import make_recipe
from tests.curation.builds import SILENT, documents_of, texts_of, write_lines
from tests.curation.planted import documents

STEPS: list[Any] = [
    "exact_duplicates",
    "near_duplicates",
    {"kind": "gopher_quality", "fewest_words": 90, "stop_words": None, "alphabetic": None},
    {"kind": "rehydrate", "fewest": 5},
    {"kind": "score", "column": "luck", "scorer": "random"},
]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of planted duplicates, some of them exact, of which each original that was copied has `good`."""
    folder = tmp_path_factory.mktemp("raw")
    texts = documents(30, 3, (0.05, 0.1), 4, words=(50, 120))
    rows = [{"text": text, "of": of, "good": bool(of % 2), "source": "crawl"} for text, of in texts]
    rows += rows[:5]
    for part in range(2):
        write_lines(folder / f"part-{part}.jsonl", rows[part::2])
    return folder


def made(raw: Path, **changes: Any) -> Any:
    return make_build({"name": "planted", "read": "part-*.jsonl", "shards": 3, "steps": STEPS, **changes}, raw)


@pytest.fixture(scope="module")
def corpus(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora") / "planted"
    build(made(raw), folder, SILENT)
    return folder


def test_every_document_is_counted_at_every_stage(raw: Path, corpus: Path) -> None:
    manifest = read_manifest(corpus)
    stages = manifest["stages"]
    assert [each["kind"] for each in stages] == ["read", *(s if isinstance(s, str) else s["kind"] for s in STEPS)]
    lines = sum(len(path.read_text().splitlines()) for path in raw.glob("*.jsonl"))
    assert stages[0]["documents"] == lines
    for before, each in pairwise(stages):
        assert each["documents"] == before["kept"] and each["bytes"] == before["kept_bytes"]
        assert each["documents"] - each["kept"] == sum(each["dropped"].values())
    assert manifest["documents"] == stages[-1]["kept"] == len(documents_of(corpus))
    assert manifest["bytes"] == sum(len(document.text.encode()) for document in documents_of(corpus))
    assert stages[1]["dropped"] == {"the same text": 5}


def test_a_recipe_reads_it_with_its_scores(corpus: Path) -> None:
    found = documents_of(corpus)
    assert len({document.metadata["of"] for document in found}) == len(found), "one of each cluster"
    for document in found:
        assert set(document.scores) == {"copies", "cluster_size", "repeats", "luck"}
        assert set(document.metadata) == {"of", "good", "source", "record_source"}
        assert document.metadata["record_source"] == "crawl" and document.metadata["source"].startswith("part-")
        assert document.metadata["good"] is bool(document.metadata["of"] % 2)
        assert (document.scores["cluster_size"] >= 4) == document.metadata["good"]
    domain = {"path": str(corpus), "where": {"good": True}, "validation": 0.1}
    domain |= {"score": {"kind": "field", "field": "cluster_size"}, "keep": {"share": 0.5, "best": "highest"}}
    recipe: dict[str, Any] = {
        "budget": {"steps": 1},
        "tokenizer": "byte",
        "model": {"kind": "llama", "layers": 1, "width": 16, "heads": 1, "context": 32},
        "corpus": {
            "best": domain,
            "all": {"path": str(corpus), "score": {"kind": "field", "field": "repeats"}, "order": "repeated"},
        },
    }
    plan = make_plan(make_recipe(recipe))
    assert plan.prepared.reports["best"]["kept scores"]["lowest"] >= plan.prepared.reports["best"]["scores"]["median"]


def test_the_card_opens_offline_and_shows_what_was_dropped(corpus: Path) -> None:
    page = (corpus / "card.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["']https?://""", page), "nothing is loaded from anywhere"
    for words in ("nearly the same text", "the same text", "short doc", "near_duplicates", "one of "):
        assert words in page
    example = read_manifest(corpus)["stages"][2]["examples"][0]
    assert example["text"][:80] in page and example["id"] in page


def test_markup_in_documents_is_text(tmp_path: Path) -> None:
    write_lines(tmp_path / "x.jsonl", [{"text": "<script>alert(1)</script>"}, {"text": "enough words to stay in it"}])
    step = {"kind": "gopher_quality", "fewest_words": 6, "stop_words": None, "alphabetic": None}
    build(make_build({"read": "x.jsonl", "steps": [step]}, tmp_path), tmp_path / "out", SILENT)
    page = (tmp_path / "out" / "card.html").read_text()
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)" in page


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("documents-*.parquet"))}


@pytest.mark.slow
def test_the_same_whatever_the_workers(raw: Path, corpus: Path, tmp_path: Path) -> None:
    two = build(made(raw, executor={"kind": "local", "workers": 2}), tmp_path / "two", SILENT)
    one = read_manifest(corpus)
    assert content(corpus) == content(tmp_path / "two") != {}
    assert (one["hash"], one["build_hash"]) == (two["hash"], two["build_hash"])


def stages(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in (folder / ".stages").glob("*/stage.json")}


def test_a_complete_stage_is_not_done_again(raw: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    build(made(raw, steps=STEPS[:1]), folder, SILENT)
    first, at = stages(folder), (folder / "manifest.json").stat().st_mtime_ns
    build(made(raw, steps=STEPS[:1]), folder, SILENT)
    assert stages(folder) == first and (folder / "manifest.json").stat().st_mtime_ns == at, "nothing was to be done"
    assert set(content(folder)) == {"documents-00000.parquet", "documents-00001.parquet", "documents-00002.parquet"}
    changed = build(made(raw, steps=[*STEPS[:1], STEPS[2]]), folder, SILENT)
    assert {name: stages(folder)[name] for name in first} == first, "stages before the change stay"
    assert len(stages(folder)) == 3 and changed["documents"] == len(documents_of(folder))
    again = build(made(raw, steps=[STEPS[2]]), folder, SILENT)
    assert len(stages(folder)) == 2, "stages of former settings are removed"
    assert again["build_hash"] != changed["build_hash"]


def test_a_finished_corpus_needs_its_stages_no_more(raw: Path, tmp_path: Path) -> None:
    once = build(made(raw, steps=[]), tmp_path / "out", SILENT)
    shutil.rmtree(tmp_path / "out" / ".stages")
    assert build(made(raw, steps=[]), tmp_path / "out", SILENT) == once
    assert not (tmp_path / "out" / ".stages").exists()
    (tmp_path / "out" / "documents-00001.parquet").unlink()
    assert build(made(raw, steps=[]), tmp_path / "out", SILENT)["hash"] == once["hash"], "what is gone is made again"


def test_another_input_is_another_build(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [{"text": "one"}])
    once = make_build({"read": "x.jsonl"}, tmp_path)
    build(once, tmp_path / "out", SILENT)
    path.write_text('{"text": "two"}\n')
    build(once, tmp_path / "out", SILENT)
    assert texts_of(tmp_path / "out") == ["two"]


PLUGIN = '''
"""Fails the first time it gets to the second shard."""
from pathlib import Path
from typing import ClassVar, Literal
from foretrain.curation.steps.base import CorpusStep
from foretrain.errors import RunError
from foretrain.parts import Facts

class Stumble(CorpusStep):
    """Stumbles once."""
    kind: Literal["stumble"] = "stumble"
    facts: ClassVar[Facts] = Facts(answers="does a build go on?")
    flag: str
    """A file that is there once it has stumbled."""

    def sift(self, documents, stage, rank):
        if rank == 1 and not Path(self.flag).exists():
            Path(self.flag).touch()
            raise RunError("stumbled")
        yield from documents
'''


def test_a_build_that_failed_goes_on_where_it_was(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "stumble.py").write_text(PLUGIN)
    stumble = {"kind": "stumble", "flag": str(tmp_path / "flag")}
    plugins = [str(tmp_path / "stumble.py")]
    once = made(raw, steps=[*STEPS[:1], stumble], plugins=plugins)
    with pytest.raises(Exception, match="stumbled"):
        build(once, tmp_path / "out", SILENT)
    assert not (tmp_path / "out" / "manifest.json").exists()
    done, shard = stages(tmp_path / "out"), next((tmp_path / "out" / ".stages").glob("02-*/documents/00000.parquet"))
    at = shard.stat().st_mtime_ns
    build(once, tmp_path / "out", SILENT)
    assert {name: stages(tmp_path / "out")[name] for name in done} == done
    assert shard.stat().st_mtime_ns == at, "not even the shard that was done is done again"
    build(made(raw, steps=STEPS[:1]), tmp_path / "plain", SILENT)
    assert content(tmp_path / "out") == content(tmp_path / "plain")
    # A step of a plug-in is known by its code as well: edited, it is another one.
    before = read_manifest(tmp_path / "out")["build_hash"]
    (tmp_path / "stumble.py").write_text(PLUGIN + "\n# edited\n")
    build(made(raw, steps=[*STEPS[:1], stumble], plugins=plugins), tmp_path / "out", SILENT)
    assert read_manifest(tmp_path / "out")["build_hash"] != before


@pytest.mark.slow
@pytest.mark.parametrize("write", [3, 9, 14])
def test_a_build_that_was_killed_goes_on(write: int, raw: Path, tmp_path: Path) -> None:
    plan = {"name": "killed", "read": str(raw), "shards": 2, "steps": STEPS[:1]}
    (tmp_path / "build.yaml").write_text(json.dumps(plan))
    words = [sys.executable, "-m", "foretrain", "corpus", "build", "build.yaml", "--out", "out"]
    killed = subprocess.run(words, cwd=tmp_path, env={**os.environ, "FORETRAIN_FAULT": f"write:{write}"}, check=False)
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "out" / "manifest.json").exists()
    subprocess.run(words, cwd=tmp_path, check=True)
    build(load_build(tmp_path / "build.yaml"), tmp_path / "whole", SILENT)
    assert content(tmp_path / "out") == content(tmp_path / "whole") != {}


def test_an_empty_result_is_refused(raw: Path, tmp_path: Path) -> None:
    step = {"kind": "gopher_quality", "fewest_words": 100_000, "most_words": None}
    with pytest.raises(RequestError, match=r"steps\[1\]: gopher_quality dropped all .* short doc") as caught:
        build(made(raw, steps=["exact_duplicates", step]), tmp_path / "out", SILENT)
    assert "the corpus would be empty" in str(caught.value)
    (tmp_path / "x.jsonl").write_text('{"text": "  "}\n')
    with pytest.raises(RequestError, match="no document with text"):
        build(make_build({"read": "x.jsonl"}, tmp_path), tmp_path / "none", SILENT)


def test_a_folder_of_other_things_is_left_alone(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RequestError, match="the folder holds other things"):
        build(made(raw), tmp_path, SILENT)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(RequestError, match="there is a file of that name"):
        build(made(raw), tmp_path / "notes.txt", SILENT)
    with pytest.raises(RequestError, match="no finished corpus"):
        read_manifest(tmp_path)


def test_a_damaged_stage_is_named(raw: Path, tmp_path: Path) -> None:
    build(made(raw, steps=STEPS[:1]), tmp_path / "out", SILENT)
    shard = next((tmp_path / "out" / ".stages").glob("01-*/documents/00001.parquet"))
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(CorruptFile, match=r"01-exact_duplicates.*the same command makes it again"):
        build(made(raw, steps=[*STEPS[:1], STEPS[2]]), tmp_path / "out", SILENT)


def test_fields_of_any_kind_survive(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "n": 1, "mixed": 1, "list": [1, "x"], "id": "first", "huge": 2**70, "scores": {"s": 0.5}},
        {"text": "b", "n": 2.5, "mixed": "x", "list": None, "id": "second", "only": True, "score_t": 3},
    ]
    write_lines(tmp_path / "x.jsonl", rows)
    build(make_build({"read": "x.jsonl", "shards": 2}, tmp_path), tmp_path / "out", SILENT)
    a, b = sorted(documents_of(tmp_path / "out"), key=lambda document: document.text)
    assert (a.id, b.id) == ("first", "second")
    assert (a.metadata["n"], b.metadata["n"]) == (1.0, 2.5)
    assert (a.metadata["mixed"], b.metadata["mixed"]) == ("1", '"x"'), "values of several types are JSON"
    assert json.loads(a.metadata["list"]) == [1, "x"] and b.metadata["list"] is None
    assert json.loads(a.metadata["huge"]) == 2**70 and b.metadata["only"] is True
    assert (a.scores, b.scores) == ({"s": 0.5}, {"t": 3.0})
