"""Assignment to splits: by content, uniform, stable, and whole for groups and duplicates."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretrain.corpus.document import Document
from foretrain.corpus.splits import Split, assign, position, settle, split_key
from foretrain.errors import RequestError
from foretrain.recipe import Domain

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def document(text: str, name: str = "d", **metadata: Any) -> Document:
    return Document(name, text, "s", metadata)


def shares(validation: float, steer: float, group: str | None = None) -> Domain:
    return Domain(path="unused", validation=validation, steer=steer, group=group)


def test_the_assignment_is_the_same_on_every_machine() -> None:
    """The key is a published function of the text: BLAKE2b over its words, personalised."""
    text = "Some  text\nof a document."
    digest = hashlib.blake2b(b"Some text of a document.", digest_size=16, person=b"text").digest()
    assert split_key(document(text)) == int.from_bytes(digest, "big")
    assert position(split_key(document(text))) == int.from_bytes(digest[:7], "big") // 8 / 2**53
    first = [assign(document(f"document {i}"), shares(0.2, 0.2))[0] for i in range(12)]
    assert "".join(first) == "tttttsssttvv"


@given(TEXT, st.sampled_from([" ", "\n", "\t \r\n", "\u00a0"]))
def test_white_space_and_names_do_not_matter(text: str, space: str) -> None:
    other = document(space + space.join(text.split()) + space, "another name", title="other")
    assert split_key(other) == split_key(document(text))


@given(TEXT, TEXT)
def test_other_words_are_another_key(one: str, two: str) -> None:
    assert (split_key(document(one)) == split_key(document(two))) == (one.split() == two.split())


@given(TEXT, TEXT, st.one_of(TEXT, st.integers(), st.lists(st.integers())))
def test_a_group_stays_together(one: str, two: str, group: Any) -> None:
    first, second = document(one, title=group), document(two, title=group)
    assert split_key(first, "title") == split_key(second, "title")
    domain = shares(0.3, 0.3, "title")
    assert assign(first, domain) == assign(second, domain)


def test_a_document_without_a_group_stands_for_itself() -> None:
    assert split_key(document("x", title=None), "title") == split_key(document("x"))
    assert split_key(document("x", title="x"), "title") != split_key(document("x"))


def test_the_shares_are_met() -> None:
    domain, count = shares(0.05, 0.1), 20_000
    splits = [assign(document(f"document number {i}"), domain) for i in range(count)]
    expected: dict[Split, float] = {"validation": 0.05, "steer": 0.1, "train": 0.85}
    for split, share in expected.items():
        assert abs(splits.count(split) - share * count) < 4 * math.sqrt(share * (1 - share) * count)  # 4 sigma


@given(st.integers(0, 2**128 - 1), st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_larger_share_only_adds(key: int, small: float, large: float) -> None:
    small, large = sorted((small, large))
    place = position(key)
    assert 0 <= place < 1
    if place < small:
        assert place < large


def test_validation_does_not_move_when_steer_is_added() -> None:
    documents = [document(f"{i}") for i in range(500)]
    without = [assign(d, shares(0.2, 0)) == "validation" for d in documents]
    assert without == [assign(d, shares(0.2, 0.3)) == "validation" for d in documents]
    assert any(without)


@given(st.sets(st.integers(0, 2**128 - 1), min_size=3, max_size=50), st.floats(0.001, 0.49), st.floats(0.001, 0.49))
def test_settling_moves_only_what_an_empty_split_needs(keys: set[int], validation: float, steer: float) -> None:
    domain = shares(validation, steer)
    settled = settle(keys, domain)
    assert settled.keys() == keys
    assert set(settled.values()) == {"train", "steer", "validation"}
    assert settle(reversed(sorted(keys)), domain) == settled
    order = {"validation": 0, "steer": 1, "train": 2}
    sides = [order[settled[key]] for key in sorted(keys)]
    assert sides == sorted(sides)  # three stretches, by place
    plain = {key: _plain(key, validation, steer) for key in keys}
    if len(set(plain.values())) == 3:
        assert settled == plain


def _plain(key: int, validation: float, steer: float) -> str:
    place = position(key)
    return "validation" if place < validation else "steer" if place < validation + steer else "train"


def test_settling_needs_as_many_keys_as_splits() -> None:
    assert sorted(settle([1, 2], shares(0.1, 0)).values()) == ["train", "validation"]
    assert settle([1], shares(0, 0)) == {1: "train"}
    with pytest.raises(RequestError, match="too little for the splits train, validation, steer: 2 distinct documents"):
        settle([1, 2], shares(0.1, 0.1))
