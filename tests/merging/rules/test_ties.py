"""TIES against a direct statement over whole vectors; thresholds against sorting."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.merging.rules.mean import Mean
from foretrain.merging.rules.sum import Sum
from foretrain.merging.rules.ties import Ties, largest
from foretrain.merging.vectors import TaskVectors
from foretrain.merging.weights import open_weights
from tests.merging.folders import changed, make, save


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=60), st.integers(1, 4), st.data())
def test_the_threshold_is_a_number_of_that_rank(values: list[float], pieces: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(values)))
    numbers = torch.tensor(values, dtype=torch.float64)
    expected = sorted((abs(value) for value in numbers.float().tolist()), reverse=True)[count - 1]
    assert largest(lambda: iter(numbers.chunk(pieces)), count) == expected


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> TaskVectors:
    folder = tmp_path_factory.mktemp("rules")
    base = save(make(), folder / "base")
    tuned = [open_weights("tuned", changed(base, folder / str(seed), seed)) for seed in (1, 2, 3)]
    return TaskVectors(open_weights("base", base), tuned)


@pytest.mark.parametrize("keep", [0.2, 1.0])
def test_it_is_the_mean_of_what_agrees(vectors: TaskVectors, keep: float) -> None:
    flat = torch.stack([torch.cat([piece.flatten() for piece in vectors.of(number)]) for number in range(3)])
    combine = Ties(keep=keep).over(vectors)
    found = torch.cat([combine(name, differences).flatten() for name, differences in vectors])
    kept = max(1, round(keep * flat.shape[1]))
    for row in flat:
        row[row.abs().argsort(descending=True)[kept:]] = 0.0
    for column in range(0, flat.shape[1], 37):  # written out, weight by weight
        mine = flat[:, column]
        sign = torch.sign(mine.sum())
        agreeing = [float(value) for value in mine if value != 0 and torch.sign(value) == sign]
        assert float(found[column]) == pytest.approx(sum(agreeing) / max(1, len(agreeing)), abs=1e-15)
    assert (found != 0).float().mean() == pytest.approx(1 - (1 - keep) ** 3, abs=0.02)


def test_sum_and_mean(vectors: TaskVectors) -> None:
    for name, differences in vectors:
        expected = torch.stack(differences).sum(0)
        torch.testing.assert_close(Sum().over(vectors)(name, differences), expected)
        torch.testing.assert_close(Mean().over(vectors)(name, differences), expected / 3)
