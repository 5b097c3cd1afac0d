"""Items of feedback and tasks: read like a corpus, with the same messages."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foretrain.corpus.items import read_items
from foretrain.errors import RequestError

ROWS = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(5)]


def test_items_are_the_same_from_every_format(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "a.csv").write_text("question,answer\n" + "".join(f"q{i},a{i}\n" for i in range(5)))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet"):
        assert read_items(tmp_path / name, ["question", "answer"]) == ROWS
    assert read_items(tmp_path / "a.jsonl", limit=2) == ROWS[:2]
    assert len(read_items(tmp_path)) == 20


def test_a_missing_field_names_file_line_and_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "q", "answer": "a"}\n\n{"question": "q", "anwser": "a"}\n')
    with pytest.raises(RequestError, match=r"a\.jsonl, line 3: .*'answer'.*question, anwser.*Did you mean 'anwser'\?"):
        read_items(tmp_path / "a.jsonl", ["question", "answer"])
    (tmp_path / "b.jsonl").write_text('{"answer": null}\n')
    with pytest.raises(RequestError, match=r"b\.jsonl, line 1: the field 'answer' is null"):
        read_items(tmp_path / "b.jsonl", ["answer"])


def test_bad_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(RequestError, match=r"empty\.jsonl holds no items"):
        read_items(tmp_path / "empty.jsonl")
    with pytest.raises(RequestError, match=r"did you mean 'empty\.jsonl'"):
        read_items(tmp_path / "emty.jsonl")
    (tmp_path / "bad.jsonl").write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(RequestError, match=r"bad\.jsonl, line 1: the text is not valid UTF-8"):
        read_items(tmp_path / "bad.jsonl")
    assert read_items(tmp_path / "bad.jsonl", invalid="replace") == [{"a": "\ufffd"}]


def test_items_may_come_from_a_builtin() -> None:
    items = read_items("builtin:arithmetic", ["question", "answer", "text", "id"], limit=3)
    assert [item["id"] for item in items] == ["arithmetic:0", "arithmetic:1", "arithmetic:2"]
    with pytest.raises(RequestError, match=r"builtin:arithmetic, document 1: there is no field 'anwser'.*'answer'"):
        read_items("builtin:arithmetic", ["anwser"])
