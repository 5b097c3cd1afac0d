"""The prior over learning curves, the network that knows it, and what is said of real curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import special

from foretrain.errors import RequestError
from foretrain.forecasts import _curve_prior as prior
from foretrain.forecasts._curve_network import BarDistribution, CurveNetwork
from foretrain.forecasts._curve_training import save, train
from foretrain.forecasts.base import Forecaster
from foretrain.forecasts.curve_families import CurveFamilies
from foretrain.forecasts.curve_posterior import CurvePosterior
from foretrain.forecasts.curves import Course, Curve
from foretrain.forecasts.lc_pfn import WEIGHTS, LcPfn
from tests.forecasts.made import WSD, annealed, course_of


def test_curves_of_the_prior_rise_within_the_unit_interval() -> None:
    drawn = prior.curves(3000, np.random.default_rng(1))
    assert drawn.shape == (3000, 50) and drawn.min() >= 0 and drawn.max() <= 1
    assert (drawn[:, -1] > drawn[:, 0]).all()
    # The share of each sum that is kept shapes it: half of the curves end below two thirds.
    assert 0.5 < np.median(drawn[:, -1]) < 0.7
    assert np.log(prior.noise(4000, np.random.default_rng(2))).mean() == pytest.approx(-4, abs=0.06)


def test_bars_are_a_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    borders = torch.rand(21, generator=generator).sort().values
    bars, logits = BarDistribution(borders), torch.randn(20, generator=generator)
    x = torch.linspace(-1.0, 2.0, 300_001, dtype=torch.float64)
    density = bars.log_density(logits.expand(len(x), 20), x.float()).double().exp()
    assert float(torch.trapezoid(density, x)) == pytest.approx(1, abs=1e-3)
    levels = torch.tensor([0.01, 0.3, 0.5, 0.9, 0.995])
    for level, found in zip(levels, bars.quantiles(logits, levels), strict=True):
        below = x <= found
        assert float(torch.trapezoid(density[below], x[below])) == pytest.approx(float(level), abs=2e-3)


def test_asked_points_do_not_see_one_another() -> None:
    torch.manual_seed(0)
    network = CurveNetwork(width=16, layers=2).eval()
    x, y = torch.arange(1.0, 9.0)[None], torch.rand(1, 4)
    whole = network(x, y)
    alone = torch.cat([network(torch.cat([x[:, :4], x[:, place : place + 1]], 1), y) for place in range(4, 8)], 1)
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-5)
    # Nor does it matter in which order points were seen.
    order = [2, 0, 3, 1]
    torch.testing.assert_close(network(torch.cat([x[:, order], x[:, 4:]], 1), y[:, order]), whole, rtol=1e-4, atol=1e-5)
    assert (network(x, y + 0.1) - whole).abs().max() > 1e-3


def test_training_is_the_same_each_time_and_learns(tmp_path: Path) -> None:
    one, two = (train(6, pool=200, show=0) for _ in range(2))
    save(one, tmp_path / "one.safetensors")
    save(two, tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    assert WEIGHTS.stat().st_size <= 1_000_000


def fresh(count: int) -> list[Curve]:
    generator = np.random.default_rng(11)
    drawn = prior.curves(count, generator)
    drawn = drawn + prior.noise(count, generator)[:, None] * generator.standard_normal(drawn.shape)
    return [Curve(str(n), np.arange(1, 51), values=values, total=50) for n, values in enumerate(drawn)]


def judged(part: Forecaster, curves: list[Curve], cut: int) -> tuple[float, float]:
    """Mean negative log-likelihood of the rest, and the share of it within 90 % intervals."""
    losses, within = [], []
    for curve in curves:
        rest, fitted = curve.between(cut + 1, 50), part.fit([curve.between(1, cut)])
        losses.append(-fitted.log_density(rest, rest.values).mean())
        low, high = fitted.quantiles(rest, [0.05, 0.95])
        within.append(((low <= rest.values) & (rest.values <= high)).mean())
    return float(np.mean(losses)), float(np.mean(within))


def test_the_network_is_near_the_posterior_and_calibrated() -> None:
    curves = fresh(60)
    network, within = judged(LcPfn(scale="unit"), curves, 15)
    posterior, _ = judged(CurvePosterior(scale="unit", samples=10_000), curves, 15)
    families, _ = judged(CurveFamilies(scale="unit"), curves, 15)
    assert network < posterior + 0.1
    assert network < families
    assert 0.85 <= within <= 0.95


def test_families_find_a_curve_of_theirs() -> None:
    steps = np.arange(1, 51)
    curve = Curve("c", steps, values=0.8 - 0.5 * steps ** -np.exp(-0.25), total=50)
    fitted = CurveFamilies(scale="unit").fit([curve.between(1, 20)])
    np.testing.assert_allclose(fitted.predict(curve.between(21, 50)), curve.values[20:], atol=5e-3)


def test_the_posterior_is_bayes() -> None:
    """With one seen point and a handful of curves, the weights can be written down."""
    from foretrain.forecasts.curve_posterior import _sample

    curves, sigma = _sample(100)
    weights = np.exp(-0.5 * ((0.4 - curves[:, 4]) / sigma) ** 2) / sigma
    weights /= weights.sum()
    answer = CurvePosterior(scale="unit", samples=100).answer(np.array([5.0]), np.array([0.4]), np.array([30.0]))
    wanted = (weights * np.exp(-0.5 * ((0.5 - curves[:, 29]) / sigma) ** 2) / sigma).sum() / np.sqrt(2 * np.pi)
    assert answer.log_density(np.array([0.5]))[0] == pytest.approx(np.log(wanted), rel=1e-3)
    median = answer.quantiles(np.array([0.5]))[0, 0]
    assert (weights * special.ndtr((median - curves[:, 29]) / sigma)).sum() == pytest.approx(0.5, abs=1e-3)


def test_losses_go_there_and_back() -> None:
    curve = annealed(WSD, every=1).between(30, 1000)
    fitted = LcPfn().fit([curve.between(30, 400)])
    course = course_of(curve).at([500, 700])
    levels = fitted.quantiles(course, [0.05, 0.5, 0.95])
    assert (np.diff(levels, axis=0) > 0).all()
    assert (levels[0] < np.interp([500, 700], curve.steps, curve.values)).all()
    # Densities are of the loss itself: they integrate to 1.
    values = np.linspace(0.2, 40, 8001)
    density = np.exp([fitted.log_density(course.at([500]), np.array([value]))[0] for value in values[::40]])
    assert np.trapezoid(density, values[::40]) == pytest.approx(1, abs=0.2)
    with pytest.raises(RequestError, match="it has seen none of x"):
        fitted.predict(Course("x", np.array([5])))
    with pytest.raises(RequestError, match="only 1 can be seen; lc_pfn needs 2"):
        LcPfn().fit([curve.between(30, 40)]).predict(course)
