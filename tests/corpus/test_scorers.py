"""Scores of documents: smoothing against plain counting, sums to one, and what cannot be scored."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretrain.corpus.document import Document
from foretrain.corpus.scorers import ngram_perplexity as module
from foretrain.corpus.scorers.field import Field
from foretrain.corpus.scorers.ngram_perplexity import NgramPerplexity, Ngrams
from foretrain.corpus.scorers.random import Random
from foretrain.errors import RequestError

TEXTS = [b"abracadabra", b"abba", b"", b"c", b"cadaver \xc3\xa9"]


class Counted:
    """Interpolated Witten-Bell by dictionaries, one byte at a time."""

    def __init__(self, order: int, texts: list[bytes]) -> None:
        self.order = order
        self.follows: dict[bytes, Counter[int]] = defaultdict(Counter)
        for text in texts:
            for end in range(len(text)):
                for length in range(min(order - 1, end) + 1):
                    self.follows[text[end - length : end]][text[end]] += 1

    def chance(self, context: bytes, byte: int) -> float:
        shorter = self.chance(context[1:], byte) if context else 1 / 256
        counts = self.follows.get(context)
        if not counts:
            return shorter
        kinds, total = len(counts), sum(counts.values())
        return (counts[byte] + kinds * shorter) / (total + kinds)

    def log_probabilities(self, text: bytes) -> list[float]:
        return [math.log(self.chance(text[max(0, end - self.order + 1) : end], text[end])) for end in range(len(text))]


@pytest.mark.parametrize("order", [1, 2, 3, 5, 8])
@given(text=st.binary(max_size=40) | st.text("abcdr", max_size=40).map(str.encode))
def test_probabilities_are_those_of_plain_counting(order: int, text: bytes) -> None:
    found = Ngrams(order, TEXTS).log_probabilities(text)
    assert found.tolist() == pytest.approx(Counted(order, TEXTS).log_probabilities(text), abs=1e-12)


@pytest.mark.parametrize("context", [b"", b"a", b"abra", b"zzzz"])
def test_probabilities_sum_to_one(context: bytes) -> None:
    model = Ngrams(5, TEXTS)
    chances = [math.exp(model.log_probabilities(context + bytes([byte]))[-1]) for byte in range(256)]
    assert sum(chances) == pytest.approx(1, abs=1e-12) and min(chances) > 0


def test_counting_in_pieces_is_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Ngrams(4, TEXTS).log_probabilities(b"abracad")
    monkeypatch.setattr(module, "PIECE", 5)
    assert np.array_equal(Ngrams(4, TEXTS).log_probabilities(b"abracad"), whole)


def _reference(folder: Path, *texts: str) -> str:
    file = folder / "reference.jsonl"
    file.write_text("".join(json.dumps({"text": text, "kind": "good"}) + "\n" for text in texts))
    return str(file)


def test_corrupted_text_is_more_surprising_and_length_does_not_count(tmp_path: Path) -> None:
    sentence = "the quick brown fox jumps over the lazy dog. "
    part = NgramPerplexity(reference=_reference(tmp_path, sentence * 20))
    texts = [sentence * 3, sentence * 30, sentence.replace("o", "q") * 3, "Zwölf Boxkämpfer jagen Viktor " * 3]
    clean, longer, corrupted, other = part.scores(Document(str(n), text, "") for n, text in enumerate(texts))
    assert 1 < longer < clean < corrupted < other and clean / longer < 1.3


def test_its_content_is_that_of_the_reference_and_not_its_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    parts = [NgramPerplexity(reference=_reference(tmp_path / name, "some text")) for name in ("a", "b")]
    assert parts[0].content() == parts[1].content()
    changed = NgramPerplexity(reference=_reference(tmp_path / "b", "some text", "and more"))
    others = [changed, NgramPerplexity(reference=parts[0].reference, order=4)]
    assert len({json.dumps(part.content()) for part in [parts[0], *others]}) == 3


def test_a_reference_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"nowhere\.txt"):
        NgramPerplexity(reference=str(tmp_path / "nowhere.txt")).content()
    part = NgramPerplexity(reference=_reference(tmp_path, "text"), where={"kind": "bad"})
    with pytest.raises(RequestError, match="holds no documents with kind bad"):
        list(part.scores([Document("1", "x", "")]))


@pytest.mark.parametrize(("given_", "number"), [(3, 3.0), ("2.5", 2.5), (-1e-3, -1e-3)])
def test_a_field_is_a_number(given_: Any, number: float) -> None:
    documents = [Document("1", "x", "s", {"quality": given_}), Document("2", "x", "s", {}, {"quality": number})]
    assert list(Field(field="quality").scores(documents)) == [number, number]


@pytest.mark.parametrize("value", [None, "good", True, math.nan, math.inf, [1]])
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises(RequestError, match=r"'quality' of document 7 of s should be a finite number"):
        list(Field(field="quality").scores([Document("7", "x", "s", {"quality": value})]))


def test_scores_of_neighbours_are_their_own(tmp_path: Path) -> None:
    part = NgramPerplexity(reference=_reference(tmp_path, "a b c"))
    documents = [Document(str(n), text, "") for n, text in enumerate(("a b", "zz", "c a b"))]
    alone = [next(iter(part.scores([document]))) for document in documents]
    assert list(part.scores(documents)) == alone and all(a != b for a, b in pairwise(alone))


def test_a_random_score_is_even_and_of_the_text_alone() -> None:
    documents = [Document(str(place), f"text {place}", "") for place in range(2000)]
    scores = np.array(list(Random().scores(documents)))
    assert abs(scores.mean() - 0.5) < 0.03 and abs(scores.std() - 12**-0.5) < 0.02
    assert list(Random().scores([Document("other", "text 3", "elsewhere")])) == [scores[3]]
    assert not set(Random(seed=1).scores(documents)) & set(scores)
