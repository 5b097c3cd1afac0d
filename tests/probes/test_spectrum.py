"""Spectra of features: against transformers and numpy, spectra of known rank and slope, phases, several ranks."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from foretrain.checks.trial import trial
from foretrain.errors import RequestError
from foretrain.kernels.accelerate import restore
from foretrain.probes import _spectrum
from foretrain.probes.alpha_req import AlphaReQ, fitted
from foretrain.probes.rank_me import RankMe, effective_rank, phases
from foretrain.trainer import Trainer

Floats = NDArray[np.float64]


def _counting(d: int) -> Floats:
    """1 to d."""
    return np.arange(1, d + 1, dtype=np.float64)


@pytest.fixture(scope="module")
def trained() -> Trainer:
    trainer = trial({"optimizer": {"kind": "adamw", "lr": 3e-3}})
    for _ in range(10):
        trainer.train_step()
    return trainer


def _features(trainer: Trainer, probe: _spectrum.SpectrumProbe) -> Floats:
    """Features by the model alone."""
    model: Any = restore(trainer.learner.model)
    with torch.no_grad():
        states = model.model(input_ids=probe._contexts(trainer.context)).last_hidden_state
    found: Floats = states[:, -1].double().numpy()
    return found


# The features -------------------------------------------------------------------------------------------------------


def test_spectra_are_those_of_the_features(trained: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = RankMe(contexts=300, length=9)
    features = _features(trained, probe)
    assert features.shape == (300, 32)
    monkeypatch.setattr(_spectrum, "BATCH", 70)  # several batches, the last one smaller
    found = probe.spectra(trained.context)
    np.testing.assert_allclose(found.centred[::-1], np.linalg.eigvalsh(np.cov(features.T, bias=True)), atol=1e-6)
    np.testing.assert_allclose(found.raw, np.linalg.svd(features, compute_uv=False) ** 2 / 300, atol=1e-6)
    assert found.raw[0] > found.centred[0]


def test_contexts_are_of_the_split_and_always_the_same(trained: Trainer) -> None:
    probe = AlphaReQ(contexts=50, length=7)
    tokens = probe._contexts(trained.context)
    again = AlphaReQ(contexts=50, length=7)._contexts(trial({"seed": 5}).context)
    assert torch.equal(tokens, again) and tokens.shape == (50, 7)
    rings = [
        found.gathered(np.array([0]), found.tokens + 6)["tokens"][0]
        for found in trained.plan.sets("validation").values()
    ]
    everything = {tuple(ring[place : place + 7].tolist()) for ring in rings for place in range(len(ring) - 6)}
    assert all(tuple(row) in everything for row in tokens.tolist())
    assert len({tuple(row) for row in tokens.tolist()}) > 45
    whole = sum(len(ring) - 6 for ring in rings)
    first = int((probe._starts(trained.context)[0] == 0).sum())
    assert first == pytest.approx(50 * (len(rings[0]) - 6) / whole, abs=1.01), "as many of a domain as it has text"
    assert not torch.equal(tokens, AlphaReQ(contexts=50, length=7, split="steer")._contexts(trained.context))


def test_several_ranks_are_one(trained: Trainer) -> None:
    probe = RankMe(contexts=101, length=5)
    tokens, context = probe._contexts(trained.context), trained.context
    whole = _spectrum._moments(context, tokens)

    def share(rank: int) -> tuple[torch.Tensor, ...]:
        group = SimpleNamespace(rank=rank, world=3)
        fields = {"group": group, "model": context.model, "learner": context.learner, "tokenizer": context.tokenizer}
        return _spectrum._moments(SimpleNamespace(**fields, length=context.length), tokens)  # type: ignore[arg-type]

    for one, parts in zip(whole, zip(*map(share, range(3)), strict=True), strict=True):
        torch.testing.assert_close(sum(parts), one, rtol=1e-6, atol=1e-6)
    assert float(whole[0]) == 101


def test_sums_go_over_all_ranks(trained: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other rank adds is in the spectrum."""
    features = np.random.default_rng(0).normal(size=(60, 4))
    halves = [torch.from_numpy(half) for half in (features[:20], features[20:])]
    moments = [(torch.tensor(float(len(half))), half.sum(0), half.T @ half) for half in halves]
    monkeypatch.setattr(_spectrum, "_moments", lambda *_: tuple(moment.clone() for moment in moments[0]))

    def add(tensors: Any) -> None:
        for mine, other in zip(tensors, moments[1], strict=True):
            mine += other

    group = SimpleNamespace(sum_tensors=add)
    probe = RankMe(contexts=20)
    fields = {"group": group, "sets": trained.context.sets, "length": 8, "model": trained.context.model}
    found = probe.spectra(SimpleNamespace(**fields))  # type: ignore[arg-type]
    np.testing.assert_allclose(found.centred[::-1], np.linalg.eigvalsh(np.cov(features.T, bias=True)), atol=1e-12)


# Effective rank -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 7, 64])
def test_a_uniform_spectrum_has_full_rank(d: int) -> None:
    values = np.full(d, 3.7)
    assert effective_rank(values) == pytest.approx(d)
    assert effective_rank(values, "singular_values") == pytest.approx(d, rel=1e-4)
    assert effective_rank(np.concatenate([values, np.zeros(9)])) == pytest.approx(d)
    assert effective_rank(np.zeros(d)) == 0.0


@given(ratio=st.floats(0.05, 0.95), d=st.integers(2, 40))
def test_a_geometric_spectrum(ratio: float, d: int) -> None:
    """Shares r^i (1 - r) / (1 - r^d) have the entropy -log((1 - r) / (1 - r^d)) - m log r, m their mean number."""
    values: Floats = ratio ** (_counting(d) - 1)
    mean = ratio / (1 - ratio) - d * ratio**d / (1 - ratio**d)
    entropy = -math.log((1 - ratio) / (1 - ratio**d)) - mean * math.log(ratio)
    assert effective_rank(values) == pytest.approx(math.exp(entropy), rel=1e-9)
    # The singular values fall with the square root of the ratio.
    assert effective_rank(values, "singular_values") == pytest.approx(effective_rank(np.sqrt(values)), rel=1e-3)
    assert effective_rank(values, "singular_values") >= effective_rank(values) * (1 - 1e-4)


def test_singular_values_are_the_original_rank_me() -> None:
    features = np.random.default_rng(1).normal(size=(400, 12)) * np.arange(1, 13)
    singular = np.linalg.svd(features, compute_uv=False)
    shares = singular / singular.sum() + 1e-7
    eigenvalues = np.linalg.eigvalsh(features.T @ features / 400)[::-1]
    assert effective_rank(eigenvalues, "singular_values") == pytest.approx(
        float(np.exp(-(shares * np.log(shares)).sum()))
    )
    assert effective_rank(eigenvalues, "singular_values") > effective_rank(eigenvalues) + 1


@pytest.mark.parametrize("of", ["eigenvalues", "singular_values"])
def test_figures_are_of_both_centrings(trained: Trainer, of: Any) -> None:
    probe = RankMe(contexts=400, length=8, of=of)
    probe.setup(trained.context)
    features, found = _features(trained, probe), probe.measure(trained.context)
    for name, rows in (("rank", features - features.mean(0)), ("uncentred", features)):
        values = np.linalg.svd(rows, compute_uv=False).astype(np.float64) ** 2
        assert found[name] == pytest.approx(effective_rank(values, of), rel=1e-4)
        assert found[f"{name}/without_top"] == pytest.approx(effective_rank(values[1:], of), rel=1e-4)
    assert found["uncentred"] != pytest.approx(found["rank"], rel=0.01)


# Phases -------------------------------------------------------------------------------------------------------------


def test_phases_of_a_series() -> None:
    found = phases([20, 10, 5, 8, 16, 14, 12])
    wanted = {"dip": 5, "peak": 16, "collapse": 1 - 5 / 20, "rise": 1 - 5 / 16, "fall": 1 - 12 / 16}
    assert found == pytest.approx(wanted)
    only_falls = phases([9, 7, 4])
    assert (only_falls["rise"], only_falls["fall"], only_falls["collapse"]) == pytest.approx((0, 0, 1 - 4 / 9))
    only_rises = phases([4, 7, 9])
    assert (only_rises["collapse"], only_rises["rise"], only_rises["fall"]) == pytest.approx((0, 1 - 4 / 9, 0))
    assert phases([3.0]) == {"dip": 3, "peak": 3, "collapse": 0, "rise": 0, "fall": 0}


@given(st.lists(st.floats(1, 100), min_size=1, max_size=12))
def test_the_rise_is_the_largest(ranks: list[float]) -> None:
    found = phases(ranks)
    largest = max(ranks[j] - ranks[i] for i in range(len(ranks)) for j in range(i, len(ranks)))
    assert found["peak"] - found["dip"] == pytest.approx(largest)


def test_phases_are_of_all_measurements_and_survive_a_checkpoint(
    trained: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = {0: 20.0, 1: 5.0, 2: 16.0, 3: 12.0}
    known = lambda values, of: series[trained.stream.step]  # noqa: E731
    monkeypatch.setattr("foretrain.probes.rank_me.effective_rank", known)
    probe = RankMe(contexts=50, length=4)
    probe.setup(trained.context)
    for step in (0, 1, 1, 2, 3):
        monkeypatch.setattr(trained.stream, "step", step)
        found = probe.measure(trained.context)
        other = RankMe(contexts=50, length=4)
        other.setup(trained.context)
        other.load_state_dict(probe.state_dict())
        probe = other
    assert found["collapse"] == 0.75 and found["rise"] == pytest.approx(11 / 16) and found["fall"] == 0.25
    assert probe._history == [20.0, 5.0, 16.0, 12.0], "a step that is measured twice counts once"


# The slope ----------------------------------------------------------------------------------------------------------


@given(alpha=st.floats(0, 3), scale=st.floats(1e-3, 1e3))
def test_a_power_law_has_its_exponent(alpha: float, scale: float) -> None:
    found = fitted(np.asarray(scale * _counting(64) ** -alpha), 5, 32)
    assert found["alpha"] == pytest.approx(alpha, abs=1e-9)
    assert found["r2"] == pytest.approx(1, abs=1e-6)


def test_the_fit_is_weighted_least_squares() -> None:
    values = np.sort(np.random.default_rng(2).exponential(size=40))[::-1]
    numbers = np.arange(5, 21)
    x, y, weights = np.log(numbers), np.log(values[4:20]), 1 / numbers
    slope, constant = np.polyfit(x, y, 1, w=np.sqrt(weights))
    rest = weights @ (y - slope * x - constant) ** 2
    found = fitted(values, 5, 20)
    assert found["alpha"] == pytest.approx(-slope)
    assert found["r2"] == pytest.approx(1 - rest / (weights @ (y - np.average(y, weights=weights)) ** 2))
    assert np.polyfit(x, y, 1)[0] != pytest.approx(slope, rel=1e-3)


def test_the_top_is_outside_of_the_fit() -> None:
    values: Floats = _counting(32) ** -1.5
    massive = values.copy()
    massive[:4] *= 1e3
    assert fitted(massive, 5, 16) == pytest.approx(fitted(values, 5, 16))
    assert fitted(np.concatenate([values[:6], np.zeros(10)]), 5, 16) == {}, "two eigenvalues are no line"


def test_figures_of_the_slope(trained: Trainer) -> None:
    probe = AlphaReQ(contexts=400, length=8, first=2)
    probe.setup(trained.context)
    features, found = _features(trained, probe), probe.measure(trained.context)
    values = np.linalg.eigvalsh(np.cov(features.T, bias=True))[::-1]
    assert found["alpha"] == pytest.approx(fitted(values, 2, 16)["alpha"], rel=1e-3)
    assert 0 < found["r2"] <= 1 and found["uncentred/alpha"] > 0


# What is refused, and what is warned of -----------------------------------------------------------------------------


def test_few_contexts_are_warned_of() -> None:
    few = trial({"probes": [{"kind": "rank_me", "contexts": 100}]})
    assert any("100 contexts are few for 32 features" in text and "320" in text for text in few.warnings)
    for enough in ({"contexts": 320}, {}):
        assert not trial({"probes": [{"kind": "rank_me", **enough}]}).warnings


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(RequestError, match="contexts of 64 tokens are longer than the 32"):
        trial({"probes": [{"kind": "rank_me", "length": 64}]})
    with pytest.raises(RequestError, match="no eigenvalues 5 to 40"):
        trial({"probes": [{"kind": "alpha_req", "last": 40}]})
    with pytest.raises(ValidationError, match="at least up to 7"):
        AlphaReQ(last=6)
    corpus = {"prose": {"path": "builtin:biographies", "options": {"people": 30}, "validation": 0.2}}
    with pytest.raises(RequestError, match="takes its contexts from the steer split, and no domain has one"):
        trial({"corpus": corpus, "probes": [{"kind": "rank_me", "split": "steer"}]})
