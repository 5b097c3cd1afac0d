"""Every format gives the same records plain and compressed, and says in words what is wrong with a file."""

from __future__ import annotations

import gzip
import io
import json
import random
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from foretrain.corpus.decoding import Decoder
from foretrain.corpus.formats.base import Record, format_of, suffixes
from foretrain.corpus.formats.txt import LONGEST, PIECE
from foretrain.errors import RequestError


def records(path: Path, invalid: str = "replace") -> list[Record]:
    return list(format_of(path).records(path, Decoder(invalid)))  # type: ignore[arg-type]


def write(path: Path, data: bytes | str) -> Path:
    """Write `data`, compressed as the name says."""
    raw = data.encode() if isinstance(data, str) else data
    if path.suffix == ".gz":
        raw = gzip.compress(raw, mtime=0)
    elif path.suffix == ".zst":
        raw = zstandard.ZstdCompressor().compress(raw)
    path.write_bytes(raw)
    return path


PACKINGS = ["", ".gz", ".zst"]


@pytest.mark.parametrize("packing", PACKINGS)
def test_jsonl_gives_objects_with_their_line_numbers(tmp_path: Path, packing: str) -> None:
    path = write(
        tmp_path / f"a.jsonl{packing}",
        '\ufeff{"text": "naïve", "n": 1}\n\n  \n{"text": "b\u2028c"}\r\n{"text": "last"}',
    )
    assert records(path) == [
        Record(1, {"text": "naïve", "n": 1}),
        Record(4, {"text": "b\u2028c"}),
        Record(5, {"text": "last"}),
    ]


@pytest.mark.parametrize("packing", PACKINGS)
def test_csv_keeps_quoted_commas_and_line_ends(tmp_path: Path, packing: str) -> None:
    path = write(tmp_path / f"a.csv{packing}", '\ufeffid,text\n1,"one, two"\n2,"first ""line""\nsecond"\n\n3,plain\n')
    assert records(path) == [
        Record(2, {"id": "1", "text": "one, two"}),
        Record(3, {"id": "2", "text": 'first "line"\nsecond'}),
        Record(6, {"id": "3", "text": "plain"}),
    ]


def test_csv_cells_may_be_long(tmp_path: Path) -> None:
    long = "word " * 100_000
    assert records(write(tmp_path / "a.csv", f"text\n{long}\n"))[0].fields == {"text": long}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("text,label\nonly one\n", ["line 2", "1 cells", "names 2"]),
        ("text,label\na,b\nc,d,e\n", ["line 3", "3 cells"]),
        ("text,text\na,b\n", ["'text' more than once"]),
        ('text\n"never closed\n', ["not valid CSV"]),
    ],
)
def test_malformed_csv_is_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(RequestError) as error:
        records(write(tmp_path / "a.csv", text))
    assert all(word in str(error.value) for word in [*words, "a.csv"])


@pytest.mark.parametrize(
    ("line", "word"),
    [('{"text": "cut', "not valid JSON"), ("[1, 2]", "should be a JSON object"), ('"text"', "should be a JSON object")],
)
def test_malformed_jsonl_names_file_and_line(tmp_path: Path, line: str, word: str) -> None:
    path = write(tmp_path / "bad.jsonl", '{"text": "fine"}\n\n' + line + "\n")
    with pytest.raises(RequestError, match=r"bad\.jsonl, line 3: .*" + word):
        records(path)


def test_parquet_gives_rows_of_all_row_groups(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "n": i, "list": [i]} for i in range(1000)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=300)
    assert records(path) == [Record(i + 1, row) for i, row in enumerate(rows)]


def test_parquet_text_may_be_bytes_and_invalid(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    raw = pa.array([b"good", b"b\xffd", None], pa.binary())
    pq.write_table(pa.table({"raw": raw, "text": pa.Array.from_buffers(pa.string(), 3, raw.buffers())}), path)
    decoder = Decoder("replace")
    found = [record.fields for record in format_of(path).records(path, decoder)]
    assert found == [{"raw": text, "text": text} for text in ("good", "b\ufffdd", None)]
    assert decoder.replaced == 2
    with pytest.raises(RequestError, match=r"a\.parquet, row 2: .*not valid UTF-8"):
        records(path, "error")


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_parquet_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["some text"] * 1000}), path)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"this is no parquet file at all"}[damage])
    with pytest.raises(RequestError, match=r"a\.parquet is not a complete Parquet file, or is damaged"):
        records(path)


@pytest.mark.parametrize("packing", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "wrong", "flipped"])
def test_damaged_compression_is_refused(tmp_path: Path, packing: str, damage: str) -> None:
    noise = random.Random(0)
    lines = "".join(json.dumps({"text": f"{noise.random()}"}) + "\n" for _ in range(20_000))
    compress = gzip.compress if packing == ".gz" else zstandard.ZstdCompressor(write_checksum=True).compress
    whole = bytearray(compress(lines.encode()))
    path = tmp_path / f"a.jsonl{packing}"
    if damage == "flipped":
        whole[len(whole) // 2] ^= 0xFF
    path.write_bytes({"cut": bytes(whole[: len(whole) // 2]), "wrong": lines.encode(), "flipped": bytes(whole)}[damage])
    with pytest.raises(RequestError) as error:
        records(path)
    # A flipped bit may first show as broken JSON; either way the file is named.
    assert f"a.jsonl{packing}" in str(error.value)
    assert damage == "flipped" or "is damaged" in str(error.value)


def test_zst_files_of_several_frames_are_read_to_the_end(tmp_path: Path) -> None:
    one = zstandard.ZstdCompressor().compress(b'{"text": "a"}\n')
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(one * 3)
    assert len(records(path)) == 3
    path.write_bytes(one * 2 + one[:-3])
    with pytest.raises(RequestError, match="is damaged"):
        records(path)


def test_invalid_utf8_is_replaced_and_counted(tmp_path: Path) -> None:
    raw = '{"text": "café \ufffd"}\n'.encode() + b'{"text": "caf\xe9 and \xff"}\n'
    path = write(tmp_path / "a.jsonl", raw)
    decoder = Decoder("replace")
    texts = [record.fields["text"] for record in format_of(path).records(path, decoder)]
    assert texts == ["café \ufffd", "caf\ufffd and \ufffd"]
    assert decoder.replaced == 2  # the one that was in the file is no replacement


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "txt"])
def test_invalid_utf8_may_be_an_error(tmp_path: Path, suffix: str) -> None:
    first = b'{"text": "ok"}' if suffix == "jsonl" else b"text"
    path = write(tmp_path / f"a.{suffix}", first + b'\n{"text": "caf\xe9"}\n')
    with pytest.raises(
        RequestError, match=rf"a\.{suffix}, line 2: .*not valid UTF-8 \(byte \d+ of it, 0xe9\).*invalid: replace"
    ):
        records(path, "error")


def test_utf16_is_recognised(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "some text".encode("utf-16"))
    with pytest.raises(RequestError, match="UTF-16; convert it to UTF-8"):
        records(path)


@pytest.mark.parametrize("name", ["a.pdf", "a.gz", "noname", "a.jsonl.bz2", ".jsonl.txt~"])
def test_unknown_suffix_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError) as error:
        format_of(tmp_path / name)
    assert all(suffix in str(error.value) for suffix in (".txt", ".jsonl.gz", ".jsonl.zst", ".csv.gz", ".parquet"))


def test_suffixes_ignore_case_and_other_dots(tmp_path: Path) -> None:
    assert format_of(tmp_path / "train.v1.2.JSONL.GZ").kind == "jsonl"
    assert ".parquet.gz" not in suffixes()
    with pytest.raises(RequestError, match="compressed inside"):
        format_of(tmp_path / "a.parquet.gz")


# --- plain text -------------------------------------------------------------------------------------------------


def texts(path: Path) -> list[str]:
    return [record.fields["text"] for record in records(path)]


@pytest.mark.parametrize("packing", PACKINGS)
def test_form_feeds_alone_end_documents_where_there_are_any(tmp_path: Path, packing: str) -> None:
    long = "\n\n".join(["a paragraph of some words. " * 20] * 20)
    path = write(tmp_path / f"a.txt{packing}", f"{long}\n\f\nsecond\r\n\f\r\n\f\nthird \f inside")
    assert [record.number for record in records(path)] == [1, 41, 43, 44]
    assert texts(path) == [long, "second", "", "third \f inside"]


def test_long_text_is_cut_between_paragraphs(tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {i}. " + "Some more words follow here. " * (i % 7) for i in range(400)]
    found = texts(write(tmp_path / "a.txt", "\n\n".join(paragraphs) + "\n\n"))
    assert len(found) > 10
    assert "\n\n".join(found) == "\n\n".join(paragraphs)
    assert all(PIECE - 2 <= len(text) < PIECE + 300 for text in found[:-1])


def test_a_short_rest_joins_the_piece_before_it(tmp_path: Path) -> None:
    first, second = "x" * PIECE, "y" * PIECE
    assert texts(write(tmp_path / "a.txt", f"{first}\n\n{second}\n\nend\n")) == [first, f"{second}\n\nend"]
    assert texts(write(tmp_path / "b.txt", f"{first}\n\n{'z' * PIECE}")) == [first, "z" * PIECE]
    assert texts(write(tmp_path / "c.txt", "short\n")) == ["short"]
    assert texts(write(tmp_path / "d.txt", "\n \n")) == []


def test_text_without_empty_lines_is_cut_at_line_ends(tmp_path: Path) -> None:
    lines = [f"line {i} of a poem without a pause" for i in range(2000)]
    found = texts(write(tmp_path / "a.txt", "\n".join(lines)))
    assert "\n".join(found) == "\n".join(lines)
    assert len(found) > 5 and all(LONGEST <= len(text) < LONGEST + 100 for text in found[:-1])


# --- streaming --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("kind", ["jsonl", "csv", "txt"])
def test_reading_holds_one_record_at_a_time(tmp_path: Path, kind: str, packing: str) -> None:
    """24 MB of text are read in a small part of that memory."""
    line = "words that fill a line of the corpus " * 25
    rows = {"jsonl": json.dumps({"text": line}), "csv": f"{line},1", "txt": f"{line}\n"}
    head = {"jsonl": "", "csv": "text,n\n", "txt": ""}[kind]
    data = head.encode() + (rows[kind] + "\n").encode() * 26_000
    path = write(tmp_path / f"a.{kind}{packing}", data)
    size = len(data)
    assert size > 24e6
    del data
    tracemalloc.start()
    try:
        count = sum(1 for _ in format_of(path).records(path, Decoder()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count > 2000
    assert peak < 4e6


def test_parquet_is_read_in_small_batches(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    noise = random.Random(0)
    with pq.ParquetWriter(path, pa.schema({"text": pa.string()})) as writer:
        for _ in range(20):
            rows = [noise.randbytes(500).hex() for _ in range(2000)]
            writer.write_table(pa.table({"text": rows}))
    before = pa.total_allocated_bytes()
    most = 0
    for i, _ in enumerate(format_of(path).records(path, Decoder())):
        if i % 500 == 0:
            most = max(most, pa.total_allocated_bytes() - before)
    assert i + 1 == 40_000
    assert most < 10e6  # of 40 MB


def test_records_come_before_a_later_fault(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a"}\n{"text": "b"}\nbroken\n')
    stream = format_of(path).records(path, Decoder())
    assert [next(stream).fields["text"], next(stream).fields["text"]] == ["a", "b"]
    with pytest.raises(RequestError, match="line 3"):
        next(stream)


def test_zst_reader_asks_for_no_more_than_it_needs(tmp_path: Path) -> None:
    """The unpacked stream behaves like any binary file."""
    from foretrain.corpus.compression import open_data

    data = bytes(range(256)) * 5000
    with open_data(write(tmp_path / "a.zst", data)) as handle:
        assert handle.read(10) == data[:10]
        assert handle.read() == data[10:]
    with open_data(write(tmp_path / "b.gz", data)) as handle:
        assert isinstance(handle, io.BufferedReader)
        assert handle.read() == data
