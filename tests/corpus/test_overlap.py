"""Overlap of items and documents, against an explicit comparison of word sequences."""

from __future__ import annotations

import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.corpus import overlap
from foretrain.corpus.document import Document
from foretrain.corpus.overlap import (
    FEWEST,
    SHARE,
    WORDS,
    OverlapIndex,
    SharedItem,
    check_overlap,
    describe_overlaps,
    describe_shared,
    shared_items,
    words,
)


def document(text: str, name: str = "d") -> Document:
    return Document(name, text, "s")


def plain_share(item: str, text: str) -> float | None:
    """What the index computes, said plainly: the share of the item's distinct sequences that the text has."""
    listed, document = words(item), words(text)
    if len(listed) < FEWEST:
        return None
    size = min(WORDS, len(listed))
    wanted = {tuple(listed[i : i + size]) for i in range(len(listed) - size + 1)}
    there = {tuple(document[i : i + size]) for i in range(len(document) - size + 1)}
    return len(wanted & there) / len(wanted)


def sentence(dice: random.Random, count: int, vocabulary: int = 2000) -> str:
    return " ".join(f"w{dice.randrange(vocabulary)}" for _ in range(count))


def test_words_ignore_case_and_punctuation_alike_in_any_script() -> None:
    assert words("Don't -- STOP_me, 3.5%!\n") == ["don", "t", "stop", "me", "3", "5"]
    assert words("Don’t — STOP_me, 3.5%!\n") == ["don", "t", "stop", "me", "3", "5"]
    assert words("Straße ÜBER") == ["strasse", "über"]


@given(st.text(st.characters(max_codepoint=127)))
def test_both_ways_to_find_words_agree(text: str) -> None:
    assert words(text) == words(text + " ü")[:-1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_the_index_agrees_with_an_explicit_comparison(seed: int) -> None:
    dice = random.Random(seed)
    vocabulary = dice.choice([2, 30, 1000])
    items = {name: [sentence(dice, dice.randrange(60), vocabulary) for _ in range(8)] for name in ("a", "b")}
    pieces = [sentence(dice, dice.randrange(80), vocabulary)]
    for _ in range(4):
        copied = dice.choice(items[dice.choice("ab")]).split()
        pieces.append(" ".join(copied[: dice.randrange(len(copied) + 1)]))
        pieces.append(sentence(dice, dice.randrange(4), vocabulary))
    text = ". ".join(pieces).upper()
    index = OverlapIndex(items)
    found = {(o.items, o.number): o.share for o in index.check("domain", document(text))}
    shares = {(name, i): plain_share(item, text) for name in items for i, item in enumerate(items[name])}
    assert found == {key: share for key, share in shares.items() if share is not None and share >= SHARE}
    assert {n: sum(shares[key] is None for key in shares if key[0] == n) for n in items} == index.unjudged
    assert {n: 8 - index.unjudged[n] for n in items} == index.judged


def test_half_of_the_sequences_decide() -> None:
    dice = random.Random(0)
    item = sentence(dice, 32)  # 20 sequences of 13 words
    index = OverlapIndex({"set": ["other words here, and not one more than these", item]})
    around = sentence(dice, 50)
    assert index.check("d", document(f"{around} {' '.join(item.split()[:21])} {around}")) == []
    (found,) = index.check("general", document(f"{around} {' '.join(item.split()[:22])} {around}", "doc 7"))
    assert found == overlap.Overlap("set", 1, "general", "doc 7", 0.5)


def test_short_items_count_as_a_whole_or_not_at_all() -> None:
    index = OverlapIndex({"set": ["What is the capital of France?", "Two plus two is four", "", "!?"]})
    assert (index.judged, index.unjudged) == ({"set": 1}, {"set": 3})
    assert [o.number for o in index.check("d", document("he asked, what is THE capital of france and left"))] == [0]
    assert index.check("d", document("what is the big capital of france; two plus two is four")) == []


def test_long_documents_are_seen_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy is found wherever a chunk ends inside it, and so are items longer than a chunk."""
    dice = random.Random(1)
    monkeypatch.setattr(overlap, "_CHUNK", 16)
    items = [sentence(dice, length) for length in (6, 9, 12, 13, 14, 20, 40, 100)]
    index = OverlapIndex({"set": items})
    for start in range(0, 40):
        text = " ".join([sentence(dice, start), *items, sentence(dice, 3)])
        assert [(o.number, o.share) for o in index.check("d", document(text))] == [(i, 1.0) for i in range(8)]


def test_an_index_survives_pickling() -> None:
    dice = random.Random(2)
    item = sentence(dice, 30)
    index = pickle.loads(pickle.dumps(OverlapIndex({"set": [item]})))
    assert len(index.check("d", document(f"before {item} after"))) == 1
    assert index.check("d", document("")) == []
    assert OverlapIndex({}).check("d", document(item)) == []
    assert OverlapIndex({"set": ["short"]}).check("d", document(item)) == []


def test_the_same_item_may_stand_in_several_sets_and_documents() -> None:
    item = "the quick brown fox jumps over the lazy dog"
    documents = {"one": [document(item, "a"), document("nothing", "b")], "two": [document(f"x {item}", "c")]}
    found = check_overlap({"task t": [item], "feedback f": ["-", item]}, documents)
    assert {(o.items, o.number, o.domain, o.document) for o in found} == {
        ("task t", 0, "one", "a"),
        ("feedback f", 1, "one", "a"),
        ("task t", 0, "two", "c"),
        ("feedback f", 1, "two", "c"),
    }
    text = describe_overlaps(found)
    assert "1 item of task t: item 1 in document a of 'one' (100%)" in text
    assert "1 item of feedback f: item 2" in text
    assert "\n" not in text
    assert describe_overlaps([]) == ""


def test_long_lists_of_overlaps_are_shortened() -> None:
    dice = random.Random(3)
    items = [sentence(dice, 20) for _ in range(9)]
    found = check_overlap({"task t": items}, {"d": [document(item, f"doc {i}") for i, item in enumerate(items)]})
    text = describe_overlaps(found)
    assert "9 items of task t" in text and "and 6 more" in text and "doc 2" in text and "doc 3" not in text


def test_items_that_feedback_and_tasks_share() -> None:
    feedback = {"feedback f": ["Two plus two?", "unique", ""]}
    tasks = {"task t": ["other", "two PLUS two", "", "..."], "task u": ["Two, plus two"]}
    shared = shared_items(feedback, tasks)
    assert shared == [SharedItem("feedback f", 0, "task t", 1), SharedItem("feedback f", 0, "task u", 0)]
    assert "share 2 items" in describe_shared(shared)
    assert "item 1 of feedback f is item 2 of task t" in describe_shared(shared)
    assert describe_shared([]) == ""
