"""Named tokens and sentinels: from both ends of the reserved ids, the same ones ever after, refused where they meet."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from foretrain.errors import RequestError
from foretrain.tokens.reserved import named_id, reserved_ids, sentinel_ids, with_named
from foretrain.tokens.tokenizer import TextTokenizer
from tests.tasks.subjects import byte_tokenizer, word_tokenizer


def test_names_have_the_first_ids_and_keep_them(tmp_path: Path) -> None:
    plain = byte_tokenizer()
    assert reserved_ids(plain) == list(range(3, 128)) and plain.named == {}
    named = with_named(plain, ["S", "R", "S"])
    assert named.named == {"S": 3, "R": 4} and plain.named == {}
    assert with_named(named, ["R"]) is named
    # Also on disk, and for a later part that asks for more.
    named.save(tmp_path)
    loaded = TextTokenizer.load(tmp_path)
    assert with_named(loaded, ["good", "R"]).named == {"S": 3, "R": 4, "good": 5}
    # It is the same tokenizer: for text, for hashes, and for `transformers`.
    assert loaded.hash == plain.hash and loaded.encode(["<|reserved_3|>S"]) == plain.encode(["<|reserved_3|>S"])
    assert AutoTokenizer.from_pretrained(tmp_path)("ab")["input_ids"] == plain.encode(["ab"])[0]
    assert named_id(named, "R") == 4
    with pytest.raises(RequestError, match=r"'Rs'.*did you mean 'R'"):
        named_id(named, "Rs")
    with pytest.raises(RequestError, match="has none, so there is no 'R'"):
        named_id(plain, "R")


def test_sentinels_have_the_last_ids_downwards() -> None:
    assert sentinel_ids(word_tokenizer(), 3) == [127, 126, 125]
    assert sentinel_ids(with_named(word_tokenizer(), ["S"]), 124) == list(range(127, 3, -1))


def test_they_are_refused_where_they_run_out() -> None:
    with pytest.raises(RequestError, match=r"126 spans .* has 125 reserved ids left"):
        sentinel_ids(byte_tokenizer(), 126)
    with pytest.raises(RequestError, match=r"124 reserved ids left \(1 have names\)"):
        sentinel_ids(with_named(byte_tokenizer(), ["S"]), 125)
    with pytest.raises(RequestError, match="has only 125 reserved ids"):
        with_named(byte_tokenizer(), [f"mode {number}" for number in range(126)])
