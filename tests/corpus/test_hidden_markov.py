"""The hidden Markov process against sums over every path, and its documents against the process."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from pydantic import ValidationError

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin.hidden_markov import HiddenMarkov, _gamma

SMALL = HiddenMarkov(states=3, symbols=4, length=5, at=2, concentration=0.7, count=4000, machine=3)


def _brute(symbols: list[int]) -> float:
    """The chance of a sequence, summed over all paths of states."""
    process, total = SMALL.process(), 0.0
    for path in itertools.product(range(3), repeat=len(symbols)):
        chance = 1 / 3
        for place, (state, symbol) in enumerate(zip(path, symbols, strict=True)):
            chance *= process.shows[state][symbol] / sum(process.shows[state])
            if place + 1 < len(path):
                chance *= process.moves[state][path[place + 1]] / sum(process.moves[state])
        total += chance
    return total


def test_chances_are_those_summed_over_paths() -> None:
    process = SMALL.process()
    rows = np.array([[0, 1, 2, 3, 0], [3, 3, 3, 1, 2], [2, 0, 0, 0, 1]])
    rows = rows[[_brute(row.tolist()) > 0 for row in rows]]
    assert len(rows) >= 2
    for row, nats, predictive in zip(rows, process.nats(rows), process.predictive(rows), strict=True):
        assert nats == pytest.approx(-math.log(_brute(row.tolist())))
        before = row[:3].tolist()
        wanted = [_brute([*before, symbol]) / _brute(before) for symbol in range(4)]
        assert predictive[3] == pytest.approx(wanted)


def test_documents_are_drawn_from_the_process() -> None:
    documents = list(SMALL.documents())
    firsts = [document.text[:2] for document in documents]
    for text in ("ab", "ca", "dd", "bc"):
        wanted = _brute(["abcd".index(letter) for letter in text])
        assert firsts.count(text) / len(firsts) == pytest.approx(wanted, abs=4 * (0.25 / len(firsts)) ** 0.5)
    exact = sum(-p * math.log(p) for row in itertools.product(range(4), repeat=5) if (p := _brute(list(row))) > 0)
    spread = np.std([document.metadata["nats"] for document in documents]) / len(documents) ** 0.5
    assert SMALL.entropy() * 5 == pytest.approx(exact, abs=4 * spread)


def test_metadata_are_of_the_text() -> None:
    process = SMALL.process()
    for document in itertools.islice(SMALL.documents(), 200):
        states, symbols = document.metadata["states"], ["abcd".index(letter) for letter in document.text]
        assert document.metadata["nats"] == pytest.approx(-math.log(_brute(symbols)), abs=1e-4)
        assert all(process.shows[state][symbol] > 0 for state, symbol in zip(states, symbols, strict=True))
        assert document.metadata["prefix"] == document.text[:2] and document.metadata["state"] == f"s{states[1]}"


def test_a_seed_gives_other_documents_of_the_same_process_and_a_machine_another() -> None:
    other = SMALL.model_copy(update={"seed": 1})
    assert other.process() == SMALL.process() != SMALL.model_copy(update={"machine": 4}).process()
    texts = [document.text for document in SMALL.documents()]
    assert texts != [document.text for document in other.documents()]
    assert other.entropy() == pytest.approx(SMALL.entropy(), abs=0.03)
    fewer = SMALL.model_copy(update={"count": 300})
    assert [document.text for document in fewer.documents()] == texts[:300]


@pytest.mark.parametrize("shape", [0.2, 1.0, 2.7])
def test_gamma_variables_have_their_mean_and_variance(shape: float) -> None:
    dice = Dice(0, "test")
    drawn = np.array([_gamma(dice, shape) for _ in range(20_000)])
    assert drawn.mean() == pytest.approx(shape, rel=0.05) and drawn.var() == pytest.approx(shape, rel=0.1)
    assert (drawn > 0).all()


def test_a_place_behind_the_end_is_an_error() -> None:
    with pytest.raises(ValidationError, match=r"at \(9\) should be at most the length of a document \(5\)"):
        HiddenMarkov(length=5, at=9)
