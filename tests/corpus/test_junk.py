"""Junk: its share, what it is made of, and parts that share no document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foretrain.corpus.builtin.junk import BOILERPLATE, Junk

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "and", "naps"]


@pytest.fixture
def text(tmp_path: Path) -> str:
    rows = [{"text": " ".join([*WORDS, f"number {n}."] * 3), "topic": n % 2} for n in range(2000)]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "text.jsonl")


def _documents(text: str, **settings: Any) -> list[Any]:
    return list(Junk(of=text, **settings).documents())


def test_a_share_is_junk_of_two_kinds(text: str) -> None:
    found = _documents(text, share=0.4)
    kinds = [document.metadata["junk"] for document in found]
    for kind in ("shuffled", "boilerplate"):
        assert kinds.count(kind) / len(found) == pytest.approx(0.2, abs=0.04)
    assert set(kinds) == {"none", "shuffled", "boilerplate"} and "topic" in found[0].metadata
    assert {document.metadata["junk"] for document in _documents(text, share=0)} == {"none"}


def test_shuffled_documents_have_their_words_and_boilerplate_its_sentences(text: str) -> None:
    plain = {document.id: document.text for document in _documents(text, share=0)}
    for document in _documents(text, share=0.4):
        was, kind = plain[document.id], document.metadata["junk"]
        if kind == "none":
            assert document.text == was
        elif kind == "shuffled":
            assert document.text != was and sorted(document.text.split()) == sorted(was.split())
        else:
            rest = document.text
            for sentence in BOILERPLATE:
                rest = rest.replace(sentence, "")
            assert not rest.strip() and len(was) <= len(document.text) < len(was) + 70


def test_parts_share_nothing_and_make_up_the_text(text: str) -> None:
    parts: dict[str, list[Any]] = {part: _documents(text, part=part) for part in ("mixed", "slice", "clean")}
    ids = [{document.id for document in documents} for documents in parts.values()]
    assert sum(map(len, ids)) == len(set.union(*ids)) == 2000
    assert len(parts["clean"]) / 2000 == pytest.approx(0.1, abs=0.03)
    assert len(parts["slice"]) / 2000 == pytest.approx(0.05, abs=0.02)
    assert {document.metadata["junk"] for document in parts["clean"]} == {"none"}
    assert {document.metadata["junk"] for document in parts["slice"]} == {"none", "shuffled", "boilerplate"}
    other = _documents(text, seed=1)
    assert [document.id for document in other] == [document.id for document in parts["mixed"]]
    assert [document.text for document in other] != [document.text for document in parts["mixed"]]
