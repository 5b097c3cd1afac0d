from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretrain.tokens import encoding
from foretrain.tokens.encoding import cut, encode_all
from foretrain.tokens.tokenizers.byte import Byte

TOKENIZER = Byte().build(lambda: iter(()))


@given(st.text(alphabet="ab \n", max_size=200), st.integers(1, 20))
def test_pieces_join_to_the_text(text: str, size: int) -> None:
    pieces = list(cut(text, size))
    assert "".join(pieces) == text and all(len(piece) <= size for piece in pieces)


def test_cuts_fall_behind_line_ends_then_spaces() -> None:
    assert list(cut("one two\nthree four", 12)) == ["one two\n", "three four"]
    assert list(cut("one two three", 9)) == ["one two ", "three"]
    assert list(cut("abcdefgh", 3)) == ["abc", "def", "gh"]


def test_long_and_short_texts_come_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "PIECE", 7)
    monkeypatch.setattr(encoding, "BATCH", 20)
    texts = ["é" * 3, "", "a long text\nof two lines, and é more " * 3, "x", "y" * 50, "end"]
    found = list(encode_all(TOKENIZER, enumerate(texts)))
    assert [encoded.item for encoded in found] == list(range(6))
    assert [encoded.ids for encoded in found] == TOKENIZER.encode(texts)
    assert [encoded.bytes for encoded in found] == [len(text.encode()) for text in texts]
    assert list(encode_all(TOKENIZER, [])) == []


def test_faults_of_the_reader_come_through() -> None:
    def texts() -> Iterator[tuple[int, str]]:
        yield 0, "fine"
        raise ValueError("line 2")

    with pytest.raises(ValueError, match="line 2"):
        list(encode_all(TOKENIZER, texts()))
