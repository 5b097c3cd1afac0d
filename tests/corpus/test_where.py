"""Filters: which documents of a file a domain keeps, in every split, and what is said where none are left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foretrain.corpus.items import read_items
from foretrain.corpus.source import open_domain
from foretrain.errors import RequestError
from foretrain.hashing import hash_data
from foretrain.recipe import Domain

ROWS = [
    {"text": f"{kind} text {i}", "kind": kind, "year": 2000 + i % 2, "clean": i % 3 == 0}
    for i in range(6)
    for kind in ("code", "prose", "maths")
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def texts(file: Path, **settings: Any) -> list[str]:
    return [document.text for document in open_domain(Domain(path=str(file), **settings)).documents()]


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ({"kind": "code"}, lambda row: row["kind"] == "code"),
        ({"kind": ["code", "maths"]}, lambda row: row["kind"] != "prose"),
        ({"kind": "prose", "year": 2001}, lambda row: row["kind"] == "prose" and row["year"] == 2001),
        ({"clean": True}, lambda row: row["clean"]),
    ],
)
def test_only_documents_with_the_values_are_kept(file: Path, where: dict[str, Any], kept: Any) -> None:
    wanted = [row["text"] for row in ROWS if kept(row)]
    assert texts(file, where=where) == wanted
    assert [item["text"] for item in read_items(file, where=where)] == wanted
    # The limit counts what is kept.
    assert texts(file, where=where, limit=2) == wanted[:2]
    assert [item["text"] for item in read_items(file, where=where, limit=2)] == wanted[:2]


def test_values_of_a_csv_are_compared_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,year\nold,1999\nnew,2001\n")
    assert texts(tmp_path / "a.csv", where={"year": 2001}) == ["new"]


def test_builtins_are_filtered_by_their_metadata() -> None:
    domain = Domain(path="builtin:lego", options={"count": 40}, where={"skill": 3}, limit=5)
    assert [document.metadata["skill"] for document in open_domain(domain).documents()] == [3] * 5


def test_every_split_is_filtered(file: Path, tmp_path: Path) -> None:
    judge = tmp_path / "judge.jsonl"
    judge.write_text("".join(json.dumps({**row, "text": "judged " + str(row["text"])}) + "\n" for row in ROWS))
    source = open_domain(Domain(path=str(file), where={"kind": "code"}, validation=str(judge)))
    found = [(split, document.metadata["kind"]) for document, split in source.splits()]
    assert found == [("validation", "code")] * 6 + [("train", "code")] * 6
    assert source.report.documents == 12


def test_records_that_are_passed_over_need_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"kind": "image"}\n{"kind": "text", "text": "words"}\n')
    assert texts(tmp_path / "a.jsonl", where={"kind": "text"}) == ["words"]


def test_an_unknown_field_names_the_nearest(file: Path) -> None:
    with pytest.raises(RequestError, match=r"line 1: there is no field 'kin'.*Did you mean 'kind'\?.*'where'"):
        texts(file, where={"kin": "code"})
    with pytest.raises(RequestError, match="Did you mean 'kind'"):
        read_items(file, where={"kin": "code"})


def test_nothing_left_lists_the_values_there_are(file: Path, tmp_path: Path) -> None:
    told = r"with kind cod or 7 \(the values of 'kind' there are code \(6\), prose \(6\), maths \(6\)\)"
    with pytest.raises(RequestError, match=told):
        texts(file, where={"kind": ["cod", 7]})
    with pytest.raises(RequestError, match=told):
        read_items(file, where={"kind": ["cod", 7]})
    # What lies in one split's files is not told of another's.
    (tmp_path / "judge.jsonl").write_text('{"text": "x", "kind": "other"}\n')
    domain = Domain(path=str(file), where={"kind": "code"}, validation=str(tmp_path / "judge.jsonl"))
    with pytest.raises(RequestError, match=r"judge.jsonl .*'kind' there are other \(1\)\).*for 'validation'"):
        list(open_domain(domain).splits())


def test_without_a_filter_hashes_are_what_they_were(file: Path) -> None:
    plain = Domain(path=str(file))
    assert "where" not in plain.model_dump(mode="json")
    content = {"train": [entry.identity(None) for entry in open_domain(plain)._inputs["train"]]}
    settings = {"text": "text", "group": None, "invalid": "replace", "limit": None}
    before = hash_data({"format": 1, "content": content, "settings": settings, "shares": [0.02, 0.0]})
    assert open_domain(plain).fingerprint() == before
    prints = {
        open_domain(Domain(path=str(file), where=where)).fingerprint()
        for where in ({}, {"kind": "code"}, {"kind": "prose"}, {"kind": ["code", "prose"]})
    }
    assert len(prints) == 4 and before in prints
    filtered = Domain(path=str(file), where={"kind": "code"})
    assert Domain.model_validate(filtered.model_dump(mode="json")) == filtered


def test_a_limit_reaches_past_what_is_left_out() -> None:
    """The hash of the first documents of a generator is not enough where the kept ones lie behind them."""
    domains = [Domain(path="builtin:lego", options={"count": n}, where={"skill": 5}, limit=8) for n in (10, 400)]
    assert len({open_domain(domain).fingerprint() for domain in domains}) == 2


def test_a_text_may_be_a_template(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "How many?", "answer": 7}\n')
    domain = Domain(path=str(tmp_path / "a.jsonl"), text="Q: {question} A: {answer}.")
    (document,) = open_domain(domain).documents()
    assert document.text == "Q: How many? A: 7." and document.metadata == {"question": "How many?", "answer": 7}
    with pytest.raises(RequestError, match=r"line 1: .*'questoin'.*did you mean 'question'"):
        texts(tmp_path / "a.jsonl", text="{questoin}")
    with pytest.raises(ValueError, match="braces"):
        Domain(path="a.jsonl", text="{question")
