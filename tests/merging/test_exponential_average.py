"""The exponential average of checkpoints against its recursion."""

from __future__ import annotations

import pytest
import torch

from foretrain.errors import RequestError
from foretrain.exporting import load_run_model
from foretrain.merging.average import Average
from foretrain.merging.exponential_average import ExponentialAverage
from foretrain.run_directory import RunDirectory
from tests.tiny import tiny_recipe


def _recursion(run: RunDirectory, alpha: float) -> dict[str, torch.Tensor]:
    """avg_1 = M_1, then alpha of each further checkpoint."""
    states = [load_run_model(run, step)[0].state_dict() for step in (2, 4, 6, 8)]
    found = {name: tensor.double() for name, tensor in states[0].items()}
    for state in states[1:]:
        found = {name: alpha * state[name].double() + (1 - alpha) * tensor for name, tensor in found.items()}
    return found


@pytest.mark.parametrize("alpha", [0.2, 0.7])
def test_it_is_the_recursion_over_the_checkpoints(runs: list[RunDirectory], alpha: float) -> None:
    merged = ExponentialAverage(last=4, alpha=alpha).merge(runs[:1]).exported
    assert merged is not None
    for name, tensor in _recursion(runs[0], alpha).items():
        torch.testing.assert_close(merged.state_dict()[name], tensor.float(), rtol=1e-6, atol=1e-9)


def test_several_runs_count_alike(runs: list[RunDirectory]) -> None:
    merged = ExponentialAverage(last=4).merge(runs).exported
    one, two = (_recursion(run, 0.2) for run in runs)
    assert merged is not None
    for name, tensor in one.items():
        torch.testing.assert_close(merged.state_dict()[name], ((tensor + two[name]) / 2).float(), rtol=1e-6, atol=1e-9)


def test_the_oldest_of_six_weighs_most_at_the_published_share() -> None:
    shares = ExponentialAverage().shares()
    assert shares == pytest.approx([0.8**5, 0.2 * 0.8**4, 0.2 * 0.8**3, 0.2 * 0.8**2, 0.2 * 0.8, 0.2])
    assert sum(shares) == pytest.approx(1) and max(shares) == shares[0]
    rising = ExponentialAverage(alpha=0.5).shares()
    assert rising == sorted(rising)


def test_at_alpha_1_it_is_the_newest_checkpoint(runs: list[RunDirectory]) -> None:
    merged, newest = ExponentialAverage(last=3, alpha=1.0).merge(runs[:1]).exported, load_run_model(runs[0], 8)[0]
    assert merged is not None
    for a, b in zip(merged.parameters(), newest.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_it_asks_of_the_recipe_what_the_average_asks() -> None:
    recipe = tiny_recipe(checkpoint={"keep": 4})
    for merge in (ExponentialAverage(last=6), Average(last=6)):
        with pytest.raises(RequestError, match=r"needs checkpoint\.keep: 6 or more"):
            merge.check(recipe)
