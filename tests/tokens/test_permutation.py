from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from foretrain.tokens.permutation import Permutation


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**62))
def test_is_a_bijection(size: int, key: int) -> None:
    assert sorted(Permutation(size, key)(np.arange(size)).tolist()) == list(range(size))


def test_is_the_same_one_by_one_and_in_any_order() -> None:
    whole = Permutation(977, 5)(np.arange(977))
    places = np.array([3, 976, 3, 0, 500])
    assert Permutation(977, 5)(places).tolist() == whole[places].tolist()
    assert [int(Permutation(977, 5)(np.array([place]))[0]) for place in range(20)] == whole[:20].tolist()


@pytest.mark.parametrize("size", [3, 5])
def test_every_permutation_of_a_few_is_equally_likely(size: int) -> None:
    found = Counter(tuple(Permutation(size, key)(np.arange(size)).tolist()) for key in range(3000))
    counts = [*found.values(), *[0] * (math.factorial(size) - len(found))]
    assert stats.chisquare(counts).pvalue > 1e-3


def test_shuffles_well() -> None:
    size = 20_000
    places = np.arange(size)
    first, second = Permutation(size, 1)(places), Permutation(size, 2)(places)
    bound = 4 / math.sqrt(size)  # four standard deviations of a correlation of independent orders
    assert abs(np.corrcoef(places, first)[0, 1]) < bound
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < bound
    assert abs(np.corrcoef(first, second)[0, 1]) < bound
    assert 0 <= (first == second).sum() <= 8  # Poisson of mean 1
    # The first hundred hit a hundred equal bins as random draws would.
    hits = np.bincount(first[:2000] * 100 // size, minlength=100)
    assert stats.chisquare(hits).pvalue > 1e-3


def test_a_huge_range_needs_no_memory() -> None:
    size = 10**15
    found = Permutation(size, 3)(np.arange(1000))
    assert len(np.unique(found)) == 1000 and found.min() >= 0 and found.max() < size and found.max() > size // 2
