"""The laws against curves made from them by other means, and against published curves where there are some."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize

from foretrain.errors import RequestError
from foretrain.forecasts._fitting import DELTA, descend, huber, project, relative_error, resampled, robust
from foretrain.forecasts.best_so_far import BestSoFar
from foretrain.forecasts.chinchilla import Chinchilla, SizeTerms, tied
from foretrain.forecasts.curves import Course, Curve, CurveTable
from foretrain.forecasts.last_value import LastValue
from foretrain.forecasts.lr_annealing import LrAnnealing, areas, warmup
from foretrain.forecasts.power_law import PowerLaw
from foretrain.schedules.constant import Constant
from foretrain.schedules.wsd import Wsd
from tests.forecasts.made import COSINE, MEMORY, TRUE, WSD, annealed, course_of, explicit_areas, rates, sized

LATE = Wsd(warmup=20, decay=0.05, curve="linear")
FLAT = Constant(warmup=20)


def test_areas_are_the_double_sums() -> None:
    eta = np.concatenate([np.full(5, 3.0), [2.0, 2.0, 2.5, 1.0, 0.0, 0.0]])
    np.testing.assert_allclose(areas(eta, 0.7).T, explicit_areas(eta, 0.7))
    # A warm-up counts with its top rate, and nothing of it is annealing.
    rising = np.concatenate([[0.6, 1.2, 1.8, 2.4], eta])
    np.testing.assert_allclose(areas(rising, 0.7).T, explicit_areas(np.concatenate([np.full(4, 3.0), eta]), 0.7))
    assert warmup(rising) == 4 and warmup(eta) == 0 and warmup(rates(WSD)) == 19


def test_the_annealing_law_is_recovered_and_predicts_other_schedules() -> None:
    fitted = LrAnnealing(memory=MEMORY).fit([annealed(WSD)])
    for name, value in TRUE.items():
        assert fitted.constants[name] == pytest.approx(value, rel=0.01), name
    cosine = annealed(COSINE)
    assert relative_error(fitted.predict(course_of(cosine)), cosine.values) < 1e-4
    plain = PowerLaw(over="rates").fit([annealed(WSD)])
    assert relative_error(plain.predict(course_of(cosine)), cosine.values) > 10 * 1e-4


def test_the_memory_is_chosen_by_the_other_curve() -> None:
    curves = [annealed(WSD, "a", noise=1e-3), annealed(COSINE, "b", noise=1e-3)]
    assert LrAnnealing().settled(curves).memory == MEMORY
    # One curve cannot tell: by the length of the run.
    assert LrAnnealing().settled(curves[:1]).memory == 0.99
    assert LrAnnealing(memory=0.5).settled(curves).memory == 0.5


def test_intervals_hold_noise() -> None:
    fitted = LrAnnealing(memory=MEMORY).fit([annealed(WSD, noise=5e-3, every=2)])
    other = annealed(LATE, noise=5e-3, every=2)
    low, high = fitted.quantiles(course_of(other), [0.05, 0.95])
    assert 0.8 < ((low < other.values) & (other.values < high)).mean() < 1
    assert (
        fitted.draws(other) == LrAnnealing(memory=MEMORY).fit([annealed(WSD, noise=5e-3, every=2)]).draws(other)
    ).all()
    below = fitted.chance_below(course_of(other), 100.0)
    assert (below == 1).all()


def test_the_annealing_law_refuses_what_does_not_tell() -> None:
    with pytest.raises(RequestError, match="never changes after its warm-up"):
        LrAnnealing().fit([annealed(FLAT)])
    with pytest.raises(RequestError, match="several; the law `chinchilla`"):
        LrAnnealing().fit([annealed(WSD), replace(annealed(WSD), parameters=3e5)])
    with pytest.raises(RequestError, match="learning rates are not known"):
        LrAnnealing().fit([sized(1e5)])
    with pytest.raises(RequestError, match="4 numbers to fit needs more than 2 points"):
        LrAnnealing(memory=0.9).fit([annealed(WSD).between(900, 915)] * 1)


def test_chinchilla_is_recovered_from_smaller_models() -> None:
    small, large = [sized(n) for n in (1e4, 3e4, 1e5)], sized(1e6)
    fitted = Chinchilla().fit(small)
    assert fitted.constants["alpha"] == pytest.approx(0.3, abs=0.01)
    assert fitted.constants["beta"] == pytest.approx(0.4, abs=0.01)
    assert relative_error(fitted.predict(course_of(large)), large.values) < 2e-3
    held = LastValue(window=0).fit(small)
    assert held.predict(course_of(large)).tolist() == [small[-1].values[-1]] * large.steps.size
    # One model with the terms of another family: only D is extrapolated.
    one = Chinchilla(size_terms=SizeTerms(log_a=float(np.log(20)), alpha=0.3)).fit([large.between(1, 300)])
    assert one.constants["beta"] == pytest.approx(0.4, abs=0.01)
    assert relative_error(one.predict(course_of(large)), large.values) < 2e-3


def test_chinchilla_refuses_what_does_not_tell() -> None:
    with pytest.raises(RequestError, match="All curves are of one model size"):
        Chinchilla().fit([sized(1e5)])
    with pytest.raises(RequestError, match="come to more than the measured loss"):
        Chinchilla(size_terms=SizeTerms()).fit([sized(1e4)])
    with pytest.raises(RequestError, match="needs more than 3 points"):
        Chinchilla(points="last").fit([sized(n) for n in (1e4, 3e4, 1e5)])
    with pytest.raises(ValueError, match="either `tied` or `size_terms`"):
        Chinchilla(tied=True, size_terms=SizeTerms())


def test_the_tied_form_has_three_numbers() -> None:
    a, b = 4.0, 6.0
    alpha, beta = tied(a, b)
    steps = np.arange(50, 1001, 50)
    curves = [
        Curve(
            str(n),
            steps,
            None,
            steps * 1e6,
            n,
            values=2 + np.exp(a) * n**-alpha + np.exp(b) * (steps * 1e6) ** -beta,
            total=1000,
        )
        for n in (1e6, 1e7, 1e8)
    ]
    found = Chinchilla(tied=True, early=0).fit(curves)
    wanted = curves[0].values
    assert relative_error(found.predict(course_of(curves[0])), wanted) < 1e-3
    assert (found.constants["alpha"], found.constants["beta"]) == tied(
        np.log(found.constants["A"]), np.log(found.constants["B"])
    )


def test_best_and_last() -> None:
    curve = sized(1e5, "one")
    worse = Curve("one", np.array([1, 2, 3]), values=np.array([3.0, 1.0, 2.0]), total=9)
    course = Course("one", np.array([5, 9]))
    assert BestSoFar().fit([curve, worse]).predict(course).tolist() == [1.0, 1.0]
    assert LastValue(window=1).fit([worse]).predict(course).tolist() == [2.0, 2.0]
    # A run that it has not seen: that of the most compute.
    assert BestSoFar().fit([worse, curve]).predict(Course("x", np.array([7])))[0] == curve.values.min()


# The kit --------------------------------------------------------------------------------------------------------------


def test_projection_finds_what_descent_finds() -> None:
    generator = np.random.default_rng(3)
    x = np.linspace(1, 50, 80)
    values = (1.2 + 3 * x**-0.7) * (1 + 2e-3 * generator.standard_normal(80))
    found = project(values, lambda e: np.stack([np.ones_like(x), x ** -e[0]], 1), [np.arange(0.1, 2, 0.1)])

    def predicted(parameters: np.ndarray) -> np.ndarray:
        constant, scale, alpha = parameters
        return np.log(np.maximum(constant + scale * x**-alpha, 1e-9))

    by_descent = descend(predicted, values, [(1, 1, 0.5), (1, 3, 1)], [(0, 9), (0, 9), (0.05, 3)])
    np.testing.assert_allclose([*found.coefficients, *found.exponents], by_descent, rtol=0.02)
    assert found.loss <= huber(predicted(by_descent) - np.log(values)) * 1.001


def test_spikes_do_not_move_a_robust_fit() -> None:
    terms = np.stack([np.ones(60), np.linspace(0, 1, 60)], 1)
    values = terms @ np.array([2.0, 1.0])
    values[10] *= 3
    plain = np.linalg.lstsq(terms, values, rcond=None)[0]
    found = robust(terms, values)
    assert np.abs(found - [2, 1]).max() < 1e-2 < np.abs(plain - [2, 1]).max()
    # What would be negative is 0, as non-negative least squares has it.
    falling = 3 - terms[:, 1]
    np.testing.assert_allclose(
        robust(terms, falling, delta=9.0), optimize.nnls(terms / falling[:, None], np.ones(60))[0]
    )


def test_huber_and_blocks() -> None:
    small, large = DELTA / 2, 4 * DELTA
    assert huber(np.array([small])) == pytest.approx(small**2 / 2)
    assert huber(np.array([large])) == pytest.approx(DELTA * large - DELTA**2 / 2)
    own = np.arange(100.0)
    drawn = next(resampled([own], 1, np.random.default_rng(0)))[0]
    assert drawn.size == 100 and (np.diff(drawn.reshape(10, 10), axis=1) == 1).all()


# Published curves -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif("FORETRAIN_DATA" not in os.environ, reason="needs the published curves (docs/data.md)")
def test_known_answer_on_published_curves() -> None:
    """Fitted to the 100M WSD curve, the law predicts the cosine curve; without its annealing term it does not."""
    told = {"path": "data:curves/mpl_lr_schedules_25_100M.csv.gz", "run": ["model", "schedule"], "step": "step"}
    curves = CurveTable.model_validate({**told, "lr": "lr", "where": {"model": "100M"}}).read()
    seen, cosine = curves["100M/wsd_20000_24000"], curves["100M/cosine_24000"]
    law = LrAnnealing(memory=0.999).fit([seen])
    plain = PowerLaw(over="rates").fit([seen])
    error = relative_error(law.predict(course_of(cosine)), cosine.values)
    assert error < 0.0015
    assert relative_error(plain.predict(course_of(cosine)), cosine.values) > 10 * error
    assert LrAnnealing().fit([seen]).law.memory == 0.999  # type: ignore[attr-defined]
