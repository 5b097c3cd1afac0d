"""Domains: what is read, in which order, what is counted, and what bad input is told."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foretrain.corpus.source import SMALL, Source, open_domain, split_documents
from foretrain.corpus.splits import assign
from foretrain.errors import RequestError
from foretrain.recipe import Domain


def domain(path: Any, **settings: Any) -> Domain:
    return Domain.model_validate({"path": [str(p) for p in path] if isinstance(path, list) else str(path), **settings})


def jsonl(path: Path, rows: list[Any]) -> Path:
    text = "".join(json.dumps(row if isinstance(row, dict) else {"text": row}) + "\n" for row in rows)
    data = gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def texts(source: Source) -> list[str]:
    return [document.text for document in source.documents()]


def refused(path: Any, **settings: Any) -> str:
    """The message that reading this domain to the end is refused with."""
    with pytest.raises(RequestError) as error:
        list(open_domain(domain(path, **settings)).splits())
    return str(error.value)


# --- records become documents ----------------------------------------------------------------------------------


def test_fields_become_ids_scores_and_metadata(tmp_path: Path) -> None:
    rows = [
        {"text": "one", "id": 7, "topic": "a", "score_quality": 0.5, "scores": {"gap": 2}},
        {"text": "two", "id": None, "source": "elsewhere", "score_quality": None, "scores": "not a mapping"},
    ]
    first, second = open_domain(domain(jsonl(tmp_path / "a.jsonl", rows))).documents()
    assert (first.id, first.text, first.source) == ("7", "one", "a.jsonl")
    assert (first.metadata, first.scores) == ({"topic": "a"}, {"quality": 0.5, "gap": 2.0})
    assert second.id == "a.jsonl:2"
    assert (second.metadata, second.scores) == ({"source": "elsewhere", "scores": "not a mapping"}, {})


def test_csv_scores_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("body,score_difficulty\nsome text,0.25\nmore text,\n")
    first, second = open_domain(domain(path, text="body")).documents()
    assert (first.text, first.scores, second.scores) == ("some text", {"difficulty": 0.25}, {})


@pytest.mark.parametrize("score", ["high", [1], float("inf")])
def test_a_score_that_is_no_number_is_refused(tmp_path: Path, score: Any) -> None:
    path = jsonl(tmp_path / "a.jsonl", ["fine", {"text": "x", "score_q": score}])
    assert "a.jsonl, line 2: the score 'score_q' should be a" in refused(path)


def test_a_missing_text_field_names_file_line_and_the_nearest(tmp_path: Path) -> None:
    message = refused(jsonl(tmp_path / "a.jsonl", ["fine", {"body": "x", "txt": "y"}]))
    assert "a.jsonl, line 2: there is no field 'text'" in message
    assert "body, txt" in message and "Did you mean 'txt'?" in message and "'text: FIELD'" in message


@pytest.mark.parametrize(("value", "what"), [(3, "a number"), (None, "null"), (["x"], "a list"), ({}, "an object")])
def test_text_that_is_no_text_is_refused(tmp_path: Path, value: Any, what: str) -> None:
    message = refused(jsonl(tmp_path / "a.jsonl", ["fine", {"text": value}]))
    assert "a.jsonl, line 2" in message and what in message


def test_a_missing_parquet_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"content": ["x"]}), path)
    assert "a.parquet, row 1: there is no field 'text'; the fields here are: content." in refused(path)
    assert texts(open_domain(domain(path, text="content"))) == ["x"]


def test_empty_texts_are_passed_over_and_counted(tmp_path: Path) -> None:
    source = open_domain(domain(jsonl(tmp_path / "a.jsonl", ["one", "", " \n\t", "zwei ü"])))
    assert texts(source) == ["one", "zwei ü"]
    assert (source.report.documents, source.report.empty, source.report.bytes) == (2, 2, 3 + 7)


def test_invalid_utf8_is_counted_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "caf\xe9"}\n{"text": "lone \\ud800 surrogate"}\n')
    source = open_domain(domain(path))
    assert texts(source) == ["caf\ufffd", "lone \ufffd surrogate"]
    assert source.report.replaced == 2
    assert "line 1" in refused(path, invalid="error")
    path.write_bytes(b'{"text": "fine"}\n{"text": "lone \\ud800 surrogate"}\n')
    assert "a.jsonl, line 2: the text is not valid UTF-8 (the lone surrogate U+D800)" in refused(path, invalid="error")


def test_a_plain_text_has_no_field_names(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some words")
    (found,) = open_domain(domain(tmp_path / "a.txt", text="body")).documents()
    assert (found.text, found.metadata) == ("some words", {"file": "a.txt"})


# --- paths -----------------------------------------------------------------------------------------------------


def test_a_folder_is_read_in_order_without_hidden_and_other_files(tmp_path: Path) -> None:
    jsonl(tmp_path / "b" / "z.jsonl", ["bz"])
    jsonl(tmp_path / "b" / "a.jsonl.gz", ["ba"])
    jsonl(tmp_path / "a.jsonl", ["a"])
    jsonl(tmp_path / ".hidden.jsonl", ["no"])
    jsonl(tmp_path / ".cache" / "x.jsonl", ["no"])
    (tmp_path / "README.md").write_text("no")
    found = list(open_domain(domain(tmp_path)).documents())
    assert [(d.source, d.text) for d in found] == [("a.jsonl", "a"), ("b/a.jsonl.gz", "ba"), ("b/z.jsonl", "bz")]


def test_a_list_is_read_in_its_own_order_and_limited_as_a_whole(tmp_path: Path) -> None:
    paths = [jsonl(tmp_path / "b.jsonl", ["b1", "", "b2"]), jsonl(tmp_path / "a.jsonl", ["a1", "a2"])]
    assert texts(open_domain(domain(paths))) == ["b1", "b2", "a1", "a2"]
    source = open_domain(domain(paths, limit=3))
    assert texts(source) == texts(source) == ["b1", "b2", "a1"]
    assert source.report.documents == 3


def test_reading_is_lazy(tmp_path: Path) -> None:
    """Documents arrive before a later file, which is broken, was ever opened."""
    (tmp_path / "b.jsonl").write_text("broken")
    stream = open_domain(domain([jsonl(tmp_path / "a.jsonl", ["one", "two"]), tmp_path / "b.jsonl"])).documents()
    assert [next(stream).text, next(stream).text] == ["one", "two"]
    with pytest.raises(RequestError, match=r"b\.jsonl, line 1"):
        next(stream)


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    jsonl(tmp_path / "corpus.jsonl", ["x"])
    with pytest.raises(RequestError, match=r"There is no file .*corpsu\.jsonl; did you mean 'corpus\.jsonl'\?"):
        open_domain(domain(tmp_path / "corpsu.jsonl"))
    with pytest.raises(RequestError, match=r"its folder does not exist \(there is .*\)"):
        open_domain(domain(tmp_path / "no" / "where" / "a.jsonl"))


def test_unknown_kinds_of_source_and_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(RequestError, match=r"a\.pdf: files of this kind cannot be read.*\.jsonl"):
        open_domain(domain(tmp_path / "a.pdf"))
    with pytest.raises(RequestError, match=r"no file in|only files of other kinds \(\.pdf\)"):
        open_domain(domain(tmp_path))
    with pytest.raises(RequestError, match=r"'hubs:'; did you mean 'hub:'\?"):
        open_domain(domain("hubs:some/data"))


def test_an_empty_folder_and_an_empty_corpus_are_refused(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(RequestError, match="none holds no file at all"):
        open_domain(domain(tmp_path / "none"))
    (tmp_path / "a.jsonl").write_text("\n")
    assert "a.jsonl holds no documents" in refused(tmp_path / "a.jsonl")
    jsonl(tmp_path / "b.jsonl", ["", " "])
    assert "holds no documents (2 without text were passed over)" in refused(tmp_path / "b.jsonl")
    with pytest.raises(RequestError, match="holds no documents"):
        list(open_domain(domain(tmp_path / "b.jsonl")).documents())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", ["x"])
    path.chmod(0)
    assert "a.jsonl cannot be read: Permission denied" in refused(path)


def test_options_are_for_sources_that_have_some(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", ["x"])
    with pytest.raises(RequestError, match="'options' \\(split\\) are for 'builtin:' and 'hub:' only"):
        open_domain(domain(path, options={"split": "train"}))


def test_a_builtin_takes_its_options_and_refuses_others() -> None:
    assert len(texts(open_domain(domain("builtin:lego", options={"count": 12})))) == 12
    with pytest.raises(RequestError, match="did you mean 'lego'"):
        open_domain(domain("builtin:legos"))
    with pytest.raises(RequestError, match=r"builtin:lego: .*no key 'cuont'; did you mean 'count'\?"):
        open_domain(domain("builtin:lego", options={"cuont": 12}))
    with pytest.raises(RequestError, match=r"builtin:lego: options\.length: .*\(given: 99\)"):
        open_domain(domain("builtin:lego", options={"length": 99}))


# --- splits ----------------------------------------------------------------------------------------------------


def test_shares_follow_the_content_hash(tmp_path: Path) -> None:
    settings = {"validation": 0.2, "steer": 0.1}
    path = jsonl(tmp_path / "a.jsonl", [f"document {i}" for i in range(3 * SMALL)])
    source = open_domain(domain(path, **settings))
    found = list(source.splits())
    assert [document.text for document, _ in found] == [f"document {i}" for i in range(3 * SMALL)]
    assert all(split == assign(document, source.domain) for document, split in found)
    assert source.report.splits == {
        split: sum(other == split for _, other in found) for split in ("train", "steer", "validation")
    }


def test_splits_do_not_depend_on_files_or_order(tmp_path: Path) -> None:
    rows = [f"document {i}" for i in range(200)]
    one = dict((d.text, s) for d, s in split_documents(domain(jsonl(tmp_path / "a.jsonl", rows), validation=0.3)))
    parts = [jsonl(tmp_path / "b" / f"{i}.jsonl", rows[::-1][i::3]) for i in range(3)]
    assert dict((d.text, s) for d, s in split_documents(domain(parts, validation=0.3))) == one


def test_a_small_corpus_has_something_in_every_split(tmp_path: Path) -> None:
    for count in range(3, 40):
        path = jsonl(tmp_path / "a.jsonl", [f"{count} {i}" for i in range(count)])
        source = open_domain(domain(path, validation=0.02, steer=0.02))
        assert len(list(source.splits())) == count
        assert min(source.report.splits[split] for split in ("train", "steer", "validation")) >= 1
        assert source.report.splits["train"] >= count - 6


def test_too_few_documents_for_the_splits_are_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", ["the only text", "the  only text"])
    assert "holds too little for the splits train, validation: 1 distinct document." in refused(path)
    assert len(list(split_documents(domain(path, validation=0)))) == 2
    path = jsonl(tmp_path / "b.jsonl", [{"text": f"{i}", "article": "same"} for i in range(9)])
    assert "1 value of 'article'" in refused(path, group="article")


def test_a_share_that_catches_nothing_is_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [f"{i}" for i in range(SMALL)])
    assert "The share of 'validation', 1e-07 of" in refused(path, validation=1e-7)


def test_explicit_validation_and_steer_come_first_and_leave_train(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "train.jsonl", ["a", "b", "the same  text", "s", "c"])
    validation = jsonl(tmp_path / "valid.jsonl", ["v", "the same text\n"])
    steer = jsonl(tmp_path / "steer.jsonl", ["s", "v", "s2"])
    source = open_domain(domain(train, validation=str(validation), steer=str(steer)))
    assert [(document.text, split) for document, split in source.splits()] == [
        ("v", "validation"),
        ("the same text\n", "validation"),
        ("s", "steer"),
        ("s2", "steer"),
        ("a", "train"),
        ("b", "train"),
        ("c", "train"),
    ]
    assert source.report.dropped == 3
    assert source.report.documents == 7
    assert source.report.bytes == 5 + len("the same text\n") + 2 - 0
    assert [document.text for document in source.documents()] == ["a", "b", "the same  text", "s", "c"]


def test_explicit_validation_keeps_groups_whole(tmp_path: Path) -> None:
    def row(text: str, article: int | None) -> dict[str, Any]:
        return {"text": text, "article": article}

    train = jsonl(tmp_path / "train.jsonl", [row("a", 1), row("b", 2), row("c", None), row("v", None)])
    validation = jsonl(tmp_path / "valid.jsonl", [row("v", 2), row("c", None)])
    source = open_domain(domain(train, validation=str(validation), group="article"))
    assert [d.text for d, split in source.splits() if split == "train"] == ["a", "v"]


def test_a_steer_share_beside_an_explicit_validation(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "train.jsonl", [f"{i}" for i in range(50)])
    validation = jsonl(tmp_path / "valid.jsonl", ["7", "8", "x"])
    source = open_domain(domain(train, validation=str(validation), steer=0.2))
    splits = dict((document.text, split) for document, split in source.splits())
    assert [text for text, split in splits.items() if split == "validation"] == ["7", "8", "x"]
    assert set(splits.values()) == {"train", "steer", "validation"} and len(splits) == 51


def test_explicit_paths_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "train.jsonl", ["a", "b"])
    (tmp_path / "empty.jsonl").write_text("")
    message = refused(train, validation=str(train))
    assert "train.jsonl holds no documents (2 that a validation or steer path holds too were left out)" in message
    assert [split for _, split in split_documents(domain(train, validation=str(train), weight=0))] == ["validation"] * 2
    message = refused(train, validation=str(tmp_path / "empty.jsonl"))
    assert "empty.jsonl holds no documents, so there is nothing for 'validation'" in message
    assert "did you mean 'train.jsonl'" in _missing(train, tmp_path / "trian.jsonl")


def _missing(train: Path, validation: Path) -> str:
    with pytest.raises(RequestError) as error:
        open_domain(domain(train, validation=str(validation)))
    return str(error.value)


def test_a_missing_group_field_is_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"text": "x", "titel": "t"}])
    message = refused(path, group="title")
    assert "a.jsonl, line 1: there is no field 'title'" in message and "'titel'" in message and "'group'" in message


# --- fingerprints ----------------------------------------------------------------------------------------------


def fingerprint(path: Any, **settings: Any) -> str:
    return open_domain(domain(path, **settings)).fingerprint()


def test_the_fingerprint_is_of_content_not_of_place(tmp_path: Path) -> None:
    one, two = jsonl(tmp_path / "one" / "a.jsonl", ["x", "y"]), jsonl(tmp_path / "two" / "a.jsonl", ["x", "y"])
    assert fingerprint(one) == fingerprint(two)
    before = fingerprint(one)
    state = one.stat()
    jsonl(one, ["x", "z"])
    os.utime(one, ns=(state.st_atime_ns, state.st_mtime_ns))  # same path, size and date; other content
    assert fingerprint(one) != before
    jsonl(one, ["x", "y"])
    assert fingerprint(one) == before


def test_the_fingerprint_covers_every_setting_that_changes_documents_or_splits(tmp_path: Path) -> None:
    path, other = jsonl(tmp_path / "a.jsonl", ["x", "y"]), jsonl(tmp_path / "b.jsonl", ["z"])
    variants: list[dict[str, Any]] = [
        {},
        {"text": "body"},
        {"group": "title"},
        {"limit": 1},
        {"invalid": "error"},
        {"validation": 0.1},
        {"steer": 0.1},
        {"validation": str(other)},
        {"steer": str(other)},
    ]
    found = [fingerprint(path, **variant) for variant in variants]
    found += [fingerprint([path, other]), fingerprint([other, path]), fingerprint(other)]
    assert len(set(found)) == len(found)
    assert fingerprint(path, weight=3.0) == found[0]


def test_the_fingerprint_of_a_builtin_is_of_its_text() -> None:
    two, three = ({"count": count} for count in (20, 30))
    assert fingerprint("builtin:lego", options=two) == fingerprint("builtin:lego", options=two)
    assert fingerprint("builtin:lego", options=two) != fingerprint("builtin:lego", options=three)
    assert fingerprint("builtin:lego", options=two) != fingerprint("builtin:lego", options={**two, "seed": 1})
