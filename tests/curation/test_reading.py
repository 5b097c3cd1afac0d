"""Reading: every document in exactly one shard; patterns, damaged files and missing fields in words."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretrain.curation.build_file import make_build
from foretrain.curation.building import build
from foretrain.curation.reading import Read, shares
from foretrain.errors import RequestError
from tests.curation.builds import SILENT, texts_of, write_lines


@given(st.integers(1, 12), st.integers(1, 12), st.lists(st.integers(0, 9), min_size=12, max_size=12))
def test_every_document_is_in_one_shard(shards: int, inputs: int, sizes: list[int]) -> None:
    found = [
        (number, place)
        for rank in range(shards)
        for number, first, stride in shares(rank, shards, inputs)
        for place in range(first, sizes[number], stride)
    ]
    assert sorted(found) == [(number, place) for number in range(inputs) for place in range(sizes[number])]


def test_patterns_and_settings(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write_lines(
            tmp_path / f"part-{name}.jsonl", [{"body": f"{name}{i}", "lang": "de" if i else "en"} for i in range(4)]
        )
    (tmp_path / "other.txt").write_text("not this one")
    read = {"path": "part-[ab].jsonl", "text": "body", "where": {"lang": "de"}, "limit": 2}
    made = make_build({"read": read, "shards": 2}, tmp_path)
    build(made, tmp_path / "out", SILENT)
    assert texts_of(tmp_path / "out") == ["a1", "a2", "b1", "b2"]
    with pytest.raises(RequestError, match=r"no file matches .*nothing-\*"):
        Read(path=str(tmp_path / "nothing-*.jsonl")).inputs()


def _broken_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(b'{"text": "one"}\n' * 5000)[:-40])


def _broken_parquet(path: Path) -> None:
    pq.write_table(pa.table({"text": ["one", "two"] * 500}), path)
    path.write_bytes(path.read_bytes()[:-20])


def _without_field(path: Path) -> None:
    path.write_text('{"text": "one"}\n{"txet": "two"}\n')


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("x.jsonl.gz", _broken_gzip, "is damaged: its compressed data cannot be read to the end"),
        ("x.parquet", _broken_parquet, "is not a complete Parquet file"),
        ("x.jsonl", _without_field, "line 2: there is no field 'text'.*Did you mean 'txet'"),
    ],
)
def test_what_cannot_be_read_is_named_and_nothing_is_written(name: str, make: Any, words: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    made = make_build({"read": name}, tmp_path)
    with pytest.raises(RequestError, match=words) as caught:
        build(made, tmp_path / "out", SILENT)
    assert name in str(caught.value)
    assert not (tmp_path / "out" / "manifest.json").exists()
    # Mended, the same build goes through.
    mended = tmp_path / name.replace(".gz", "").replace(".parquet", ".jsonl")
    mended.write_text(json.dumps({"text": "whole"}) + "\n")
    made = make_build({"read": mended.name}, tmp_path)
    assert build(made, tmp_path / "out", SILENT)["documents"] == 1


def test_options_of_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("text")
    with pytest.raises(RequestError, match=r"'options' \(count\) are for"):
        Read(path=str(tmp_path / "x.txt"), options={"count": 3}).inputs()
