"""Hugging Face data sets, read offline from a local folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from foretrain.corpus.source import open_domain
from foretrain.errors import RequestError
from foretrain.recipe import Domain


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(RequestError, match=r"hub:some/data needs the extra \[hub\]: pip install 'foretrain\[hub\]'"):
        open_domain(Domain(path="hub:some/data"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("datasets")
    path = tmp_path / "data"
    path.mkdir()
    for split, count in (("train", 6), ("test", 3)):
        rows = [{"text": f"{split} text {i}", "title": f"t{i}", "score_q": i} for i in range(count)]
        (path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_of_a_local_data_set_are_documents(folder: Path) -> None:
    source = open_domain(Domain(path=f"hub:{folder}"))
    found = list(source.documents())
    assert [d.text for d in found] == [f"train text {i}" for i in range(6)]
    assert found[2].id == f"hub:{folder}:3"
    assert (found[2].metadata, found[2].scores) == ({"title": "t2"}, {"q": 2.0})


def test_the_split_is_an_option_or_stands_behind_the_name(folder: Path) -> None:
    by_option = open_domain(Domain(path=f"hub:{folder}", options={"split": "test"}))
    assert [d.text for d in by_option.documents()] == [f"test text {i}" for i in range(3)]
    both = open_domain(Domain(path=f"hub:{folder}", validation=f"hub:{folder}#test"))
    assert [split for _, split in both.splits()] == ["validation"] * 3 + ["train"] * 6
    with pytest.raises(RequestError, match=r"no split 'tset'; did you mean 'test'\?"):
        list(open_domain(Domain(path=f"hub:{folder}#tset")).documents())


def test_the_fingerprint_follows_content_and_split(folder: Path) -> None:
    def fingerprint(**options: str) -> str:
        return open_domain(Domain(path=f"hub:{folder}", options=options)).fingerprint()

    before = fingerprint()
    assert fingerprint(split="train") == before != fingerprint(split="test")
    (folder / "train.jsonl").write_text('{"text": "other"}\n')
    assert fingerprint() != before


def test_the_commit_is_the_identity_of_a_data_set_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    pytest.importorskip("datasets")
    asked = []

    class Api:
        def dataset_info(self, name: str, revision: str | None) -> SimpleNamespace:
            asked.append((name, revision))
            return SimpleNamespace(sha=f"commit of {revision}")

    monkeypatch.setattr(hub, "HfApi", Api)
    prints = {open_domain(Domain(path="hub:a/b", options={"revision": r})).fingerprint() for r in ("v1", "v2")}
    assert len(prints) == 2
    assert asked == [("a/b", "v1"), ("a/b", "v2")]


def test_wrong_options_and_rows_are_refused(folder: Path) -> None:
    with pytest.raises(RequestError, match=r"no option 'splt'; did you mean 'split'\?"):
        open_domain(Domain(path=f"hub:{folder}", options={"splt": "test"}))
    with pytest.raises(RequestError, match=r"options\.split should be text"):
        open_domain(Domain(path=f"hub:{folder}", options={"split": 3}))
    with pytest.raises(RequestError, match="there is no folder"):
        open_domain(Domain(path=f"hub:{folder}/nowhere"))
    with pytest.raises(RequestError, match=r"row 1: there is no field 'body'; the fields here are: text, title"):
        list(open_domain(Domain(path=f"hub:{folder}", text="body")).documents())
    (folder / "train.jsonl").write_text("not json at all\n")
    with pytest.raises(RequestError, match="cannot be read"):
        list(open_domain(Domain(path=f"hub:{folder}")).documents())


def test_a_local_folder_is_relative_to_the_recipe(tmp_path: Path) -> None:
    def path(given: str) -> Any:
        return Domain.model_validate({"path": given}, context={"folder": tmp_path}).path

    assert path("hub:./data#test") == f"hub:{tmp_path.resolve()}/data#test"
    assert path("hub:org/data") == "hub:org/data"
