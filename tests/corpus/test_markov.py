"""Markov chains: tables of the right distribution, text that follows them, an entropy that is right."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import special, stats

from foretrain.corpus.builtin.markov import SYMBOLS, Markov, _dirichlet, stationary


def test_rows_are_from_the_dirichlet_distribution() -> None:
    for concentration in (0.1, 0.5, 1.0):
        rows = _dirichlet(24, concentration, 3).reshape(-1, 24)
        assert np.allclose(rows.sum(1), 1)
        # One component is Beta(c, 23 c), and the mean entropy of a row is known in closed form.
        assert stats.kstest(rows[:, 5], stats.beta(concentration, 23 * concentration).cdf).pvalue > 0.01
        expected = special.digamma(24 * concentration + 1) - special.digamma(concentration + 1)
        assert special.entr(rows).sum(1).mean() == pytest.approx(expected, rel=0.04)


def test_tables_are_a_promise() -> None:
    """Texts and hashes of results rest on them."""
    assert _dirichlet(3, 0.1, 0).round(6).tolist()[0] == [
        [0.0, 0.999564, 0.000436],
        [0.761638, 0.237731, 0.000631],
        [0.0, 0.999999, 1e-06],
    ]
    assert next(Markov(symbols=8, length=24).documents()).text == "fbdehhghchgfghcafgdfeehh"


def test_members_share_their_cluster() -> None:
    base = Markov(symbols=8, own=0).table()
    one, other, far = (Markov(symbols=8, cluster=c, member=m).table() for c, m in ((0, 0), (0, 1), (1, 0)))
    assert np.allclose((one - 0.6 * base).sum(-1), 0.4) and (one - 0.6 * base).min() > -1e-12
    assert np.abs(one - other).sum(-1).mean() < 0.6 * np.abs(one - far).sum(-1).mean()
    assert np.array_equal(Markov(symbols=8, own=0, member=3).table(), base)
    assert not np.array_equal(Markov(symbols=8, own=0, seed=1).table(), base)
    assert np.array_equal(Markov(symbols=8, own=1, member=1).table() * 0.4 + 0.6 * base, other)


def test_text_follows_the_table() -> None:
    part = Markov(symbols=4, length=400, count=300)
    table, text = part.table(), [[SYMBOLS.index(letter) for letter in d.text] for d in part.documents()]
    assert all(len(symbols) == 400 for symbols in text)
    triples = Counter(triple for s in text for triple in zip(s, s[1:], s[2:], strict=False))
    for first in range(4):
        for second in range(4):
            seen = np.array([triples[first, second, third] for third in range(4)], float)
            expected = table[first, second] * seen.sum()
            likely = expected >= 5
            rest = seen[~likely].sum(), expected[~likely].sum()
            assert rest[0] <= rest[1] + 5 * math.sqrt(rest[1] + 1)
            if likely.sum() > 1:
                scaled = expected[likely] / expected[likely].sum() * seen[likely].sum()
                assert stats.chisquare(seen[likely], scaled).pvalue > 1e-4
    # It begins as the chain is in the long run.
    begins = Counter((s[0], s[1]) for s in text)
    pairs = stationary(table)
    for (first, second), count in begins.items():
        assert count == pytest.approx(300 * pairs[first, second], abs=5 * math.sqrt(300 * pairs[first, second]) + 1)


def test_the_entropy_is_that_of_the_text() -> None:
    part = Markov(symbols=8, length=500, count=200, cluster=2, member=1)
    table, total, number = part.table(), 0.0, 0
    for document in part.documents():
        symbols = [SYMBOLS.index(letter) for letter in document.text]
        total -= sum(math.log(table[triple]) for triple in zip(symbols, symbols[1:], symbols[2:], strict=False))
        number += len(symbols) - 2
        assert document.metadata == {"cluster": 2, "member": 1, "entropy": part.entropy()}
    assert part.entropy() == pytest.approx(total / number, rel=0.01)
    # With one symbol after every pair nothing is left to guess; with all alike, everything is.
    flat = np.full((4, 4, 4), 0.25)
    assert np.allclose(stationary(flat), 1 / 16)


def test_the_long_run_is_a_fixed_point_also_of_a_chain_that_alternates() -> None:
    table = np.zeros((2, 2, 2))
    table[0, 1, 0] = table[1, 0, 1] = table[0, 0, 1] = table[1, 1, 0] = 1.0
    pairs = stationary(table)
    assert np.allclose(pairs, [[0, 0.5], [0.5, 0]], atol=1e-6)
    for part in (Markov(symbols=5), Markov(symbols=24, cluster=3)):
        pairs, table = stationary(part.table()), part.table()
        assert np.allclose(np.einsum("ab,abc->bc", pairs, table), pairs, atol=1e-9)
        assert pairs.sum() == pytest.approx(1) and np.allclose(pairs.sum(0), pairs.sum(1))


def test_documents_do_not_depend_on_how_many_there_are() -> None:
    few, more = (list(Markov(symbols=6, count=count).documents()) for count in (5, 9))
    assert more[:5] == few
    assert Markov(symbols=64, count=1).entropy() < math.log(64)


@pytest.mark.parametrize(
    "settings", [{"symbols": 65}, {"symbols": 1}, {"own": 1.5}, {"concentration": 0}, {"length": 1}]
)
def test_wrong_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Markov.model_validate(settings)
