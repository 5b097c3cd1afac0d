"""Zipf words: frequencies that hold exactly, an entropy that is right, text that follows both, one token a word."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from foretrain.corpus.builtin.zipf_words import ZipfWords
from foretrain.tokens.tokenizers.bpe import Bpe

SMALL = ZipfWords(words=12, classes=3, length=50, count=400)


@given(
    words=st.integers(4, 60),
    classes=st.integers(1, 4),
    exponent=st.floats(0, 2),
    memory=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_frequencies_hold_in_the_long_run(words: int, classes: int, exponent: float, memory: float, seed: int) -> None:
    chain = ZipfWords(words=words, classes=classes, exponent=exponent, memory=memory, seed=seed).chain()
    assert chain.moves.min() >= 0 and np.allclose(chain.moves.sum(1), 1)
    following = chain.following()
    assert np.allclose(following.sum(1), 1)
    assert np.allclose(chain.frequencies @ following[chain.classes], chain.frequencies)
    ranks = np.arange(1, words + 1)
    assert np.allclose(chain.frequencies * ranks**exponent, chain.frequencies[0])
    assert np.linalg.matrix_rank(following) <= classes


def test_text_follows_the_chain() -> None:
    chain, spelled = SMALL.chain(), SMALL.spelling()
    texts = [[spelled.index(word) for word in document.text.split()] for document in SMALL.documents()]
    assert all(len(text) == 50 for text in texts) and len(set(spelled)) == 12
    total = sum(map(len, texts))
    for word, count in Counter(word for text in texts for word in text).items():
        # Words of one class come together, so counts spread more than independent ones.
        assert count / total == pytest.approx(chain.frequencies[word], rel=0.15)
    pairs = Counter((chain.classes[a], b) for text in texts for a, b in pairwise(text))
    following = chain.following()
    for before in range(3):
        seen = sum(count for (kind, _), count in pairs.items() if kind == before)
        for word in range(12):
            chance = following[before, word]
            assert pairs[before, word] / seen == pytest.approx(chance, abs=5 * math.sqrt(chance / seen) + 1e-4)


def test_the_entropy_is_that_of_the_text() -> None:
    chain, spelled = SMALL.chain(), SMALL.spelling()
    following, total, count = chain.following(), 0.0, 0
    for document in SMALL.documents():
        words = [spelled.index(word) for word in document.text.split()]
        total -= sum(math.log(following[chain.classes[a], b]) for a, b in pairwise(words))
        count += len(words) - 1
        assert document.metadata == {"entropy": chain.entropy()}
    assert total / count == pytest.approx(chain.entropy(), rel=0.02)
    # Without a memory it is the entropy of the frequencies; of words all alike, that of a die.
    alone = ZipfWords(words=12, classes=3, memory=0).chain()
    assert alone.entropy() == pytest.approx(-(alone.frequencies @ np.log(alone.frequencies)))
    assert ZipfWords(words=12, classes=3, memory=0, exponent=0).chain().entropy() == pytest.approx(math.log(12))
    assert chain.entropy() < alone.entropy()


def test_a_word_is_a_token() -> None:
    part = ZipfWords(words=64, classes=4, count=200)
    made = Bpe(vocabulary=1024).build(lambda: (document.text for document in part.documents()))
    assert made.vocabulary <= 384 + 26 + 64 + 26
    ids = made.encode([f" {word}" for word in part.spelling()])
    assert all(len(tokens) == 1 for tokens in ids) and len({tokens[0] for tokens in ids}) == 64


def test_more_classes_than_words_are_refused() -> None:
    with pytest.raises(ValidationError, match="have fewer classes"):
        ZipfWords(words=4, classes=5)
