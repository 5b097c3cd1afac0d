"""Verdicts on simulated studies: error rates, power and coverage are what is stated; formulas against scipy's own."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from foretrain.errors import RequestError
from foretrain.studies.statistics import (
    Contrast,
    chance_to_decide,
    detectable,
    false_positive_rate,
    judge,
    noise_floor,
    paired,
    seeds_needed,
)

KEYS = [
    "seeds", "differences", "difference", "relative", "sd", "interval", "bootstrap", "p", "p_adjusted", "adjusted",
    "noise", "in_noise", "smallest", "verdict", "more_seeds", "words",
]  # fmt: skip
NAN = math.nan


def by_seed(values: Sequence[float] | np.ndarray) -> dict[int, float]:
    return dict(enumerate(np.asarray(values, dtype=float).tolist()))


def contrast(differences: Sequence[float] | np.ndarray, base: float = 0.0, **fields: Any) -> Contrast:
    """A contrast with the given differences to an arm that is `base` on every seed."""
    values = np.asarray(differences, dtype=float)
    given: dict[str, Any] = {"direction": "lower", "smallest": 0.0, "noise": None, **fields}
    return paired(by_seed(values + base), by_seed(np.full(len(values), base)), **given)


def exactly(mean: float, sd: float, count: int) -> np.ndarray:
    """`count` numbers with just this mean and standard deviation."""
    shape = np.random.default_rng(count).standard_normal(count)
    return mean + sd * (shape - shape.mean()) / shape.std(ddof=1)


def bounds(rate: float, trials: int) -> tuple[float, float]:
    """The shares between which 99.9 % of binomial samples lie."""
    low, high = stats.binom.interval(0.999, trials, rate)
    return low / trials, high / trials


@pytest.fixture
def without_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the time of a simulated study goes into an interval that no verdict looks at."""
    monkeypatch.setattr("foretrain.studies.contrast._bootstrap", lambda values, mean, sd: None)


def called(found: Sequence[Any]) -> bool:
    return any(one.verdict in ("better", "worse") for one in found)


# --- one contrast ---------------------------------------------------------------------------------------------------


def test_a_contrast_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(2.1, 0.1, 6), rng.normal(2.0, 0.1, 6)
    found = paired(by_seed(ours), by_seed(theirs), direction="lower", smallest=0.1, noise=0.05)
    reference = stats.ttest_rel(ours, theirs)
    assert found.seeds == (0, 1, 2, 3, 4, 5)
    assert found.differences == tuple((ours - theirs).tolist())
    assert found.p == pytest.approx(reference.pvalue)
    assert found.interval == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert found.between(0.2) == pytest.approx(tuple(reference.confidence_interval(0.8)))
    assert found.sd == pytest.approx(np.std(ours - theirs, ddof=1))
    assert found.relative == pytest.approx((ours - theirs).mean() / theirs.mean())
    assert found.in_noise == pytest.approx(abs((ours - theirs).mean()) / 0.05)


def test_only_seeds_of_both_arms_count_and_lost_figures_are_counted() -> None:
    ours = {4: 1.5, 1: 1.0, 2: NAN, 3: 2.0, 9: None}
    theirs = {1: 0.5, 2: 0.5, 3: math.inf, 4: 0.5, 7: 0.5}
    found = paired(ours, theirs, direction="lower", smallest=0.1, noise=None, failed=2)
    assert found.seeds == (1, 4)
    assert found.differences == (0.5, 1.0)
    assert (found.failed, found.failed_against) == (4, 1)


@pytest.mark.parametrize("smallest", [-1.0, NAN, math.inf])
def test_a_smallest_effect_must_be_a_number(smallest: float) -> None:
    with pytest.raises(ValueError, match="smallest effect"):
        contrast([1.0, 2.0], smallest=smallest)


def test_relative_keeps_the_sign_of_the_difference() -> None:
    assert contrast([0.1, 0.1], base=-2.0).relative == pytest.approx(0.05)
    assert contrast([0.1, 0.1], base=0.0).relative is None


@pytest.mark.parametrize(("count", "draw"), [(3, "normal"), (5, "normal"), (8, "normal"), (5, "exponential")])
def test_intervals_hold_the_truth_as_often_as_they_say(count: int, draw: str) -> None:
    trials, rng = 1000, np.random.default_rng(count)
    data = rng.standard_normal((trials, count)) if draw == "normal" else rng.exponential(size=(trials, count)) - 1
    inside = np.zeros(2)
    for row in data:
        found = contrast(row)
        inside += [low <= 0 <= high for low, high in (found.interval or (1, 1), found.bootstrap or (1, 1))]
    low, high = bounds(0.95, trials)
    if draw == "normal":
        assert low <= inside[0] / trials <= high
        assert 0.935 <= inside[1] / trials <= 0.97
    else:
        # On skewed data neither is exact; the bootstrap is there because it is nearer.
        assert 0.90 <= inside[1] / trials <= 0.96
        assert inside[1] > inside[0] + 0.02 * trials


def test_the_bootstrap_is_the_same_every_time_and_follows_the_scale() -> None:
    values = np.array([0.1, 0.3, -0.2, 0.4, 0.9])
    first = contrast(values).bootstrap
    assert first == contrast(values).bootstrap
    assert first is not None
    assert contrast(1000 * values).bootstrap == pytest.approx([1000 * end for end in first])
    assert contrast(values[:2]).bootstrap is None


# --- the family -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_bootstrap")
@pytest.mark.parametrize("count", [3, 5, 8])
def test_an_arm_is_called_better_or_worse_than_itself_at_the_stated_rate(count: int) -> None:
    trials, rng = 1000, np.random.default_rng(10 + count)
    data = rng.standard_normal((trials, 2, count))
    positives = 0
    for ours, theirs in data:
        found = paired(by_seed(ours), by_seed(theirs), direction="higher", smallest=0.0, noise=1.0)
        positives += called(judge([found]))
    low, high = bounds(0.05, trials)
    assert low <= positives / trials <= high


@pytest.mark.usefixtures("without_bootstrap")
@pytest.mark.parametrize("count", [3, 5, 8])
def test_a_family_of_four_errs_no_more_often_than_one(count: int) -> None:
    trials, rng = 300, np.random.default_rng(20 + count)
    # Four arms against one baseline: the contrasts share its noise.
    data = rng.standard_normal((trials, 5, count))
    positives = 0
    for arms in data:
        family = [
            paired(by_seed(arm), by_seed(arms[0]), direction="lower", smallest=0.0, noise=None) for arm in arms[1:]
        ]
        positives += called(judge(family))
    low, high = bounds(0.05, trials)
    assert 0.4 * low <= positives / trials <= high


def test_holm_against_the_procedure_in_words() -> None:
    rng = np.random.default_rng(5)
    for size in (1, 2, 4, 7):
        for _ in range(20):
            family = [contrast(rng.normal(rng.choice([0, 1.5, 3]), 1, 6)) for _ in range(size)]
            p = [one.p or 0.0 for one in family]
            # Smallest first, each held to alpha over the number still left; the first that fails stops all after it.
            rejected: set[int] = set()
            for rank, place in enumerate(np.argsort(p)):
                if p[place] >= 0.05 / (size - rank):
                    break
                rejected.add(int(place))
            found = judge(family)
            assert {place for place, one in enumerate(found) if called([one])} == rejected
            for one, own in zip(found, family, strict=True):
                assert own.p is not None and one.p_adjusted is not None
                assert own.p <= one.p_adjusted <= 1
                assert one.adjusted == pytest.approx(
                    stats.t.interval(1 - 0.05 / size, 5, own.difference, (own.sd or 0) / math.sqrt(6))
                )


def test_a_contrast_is_not_called_where_a_clearer_one_is_not() -> None:
    family = [contrast(exactly(mean, 1.0, 6)) for mean in (1.20, 1.15)]
    first, second = (one.p or 0.0 for one in family)
    assert 0.025 < first < second < 0.05  # alone each would do, and the second is held to 0.05 only after the first
    assert [one.verdict for one in judge(family)] == ["undecided", "undecided"]
    assert [one.p_adjusted for one in judge(family)] == pytest.approx([2 * first, 2 * first])
    assert [one.p_adjusted for one in judge(family[::-1])] == pytest.approx([2 * first, 2 * first])


def test_planned_contrasts_without_figures_still_count() -> None:
    strong = contrast(exactly(1.8, 1.0, 5))
    assert strong.p is not None and 0.0125 < strong.p < 0.05
    alone = judge([strong])[0]
    beside = judge([strong, contrast([]), contrast([1.0]), contrast([])])[0]
    assert alone.verdict == "worse"
    assert beside.verdict == "undecided"
    assert beside.p_adjusted == pytest.approx(4 * strong.p)


def test_an_empty_family() -> None:
    assert judge([]) == []


@pytest.mark.parametrize("direction", ["lower", "higher"])
def test_the_direction_decides_what_is_better(direction: str) -> None:
    family = [contrast(exactly(mean, 0.1, 5), direction=direction) for mean in (-1.0, 1.0)]
    expected = ["better", "worse"] if direction == "lower" else ["worse", "better"]
    assert [one.verdict for one in judge(family)] == expected


def test_a_clear_but_idle_difference_is_no_difference() -> None:
    small = contrast(exactly(0.1, 0.01, 5), smallest=0.2)
    assert small.p is not None and small.p < 1e-4
    assert judge([small])[0].verdict == "no difference"
    assert judge([contrast(exactly(0.1, 0.01, 5), smallest=0.1)])[0].verdict == "worse"


def test_no_difference_rests_on_the_corrected_interval() -> None:
    values = exactly(0.0, 1.0, 6)
    single, of_eight = stats.t.interval(0.95, 5, 0, 1 / math.sqrt(6))[1], None
    of_eight = stats.t.interval(1 - 0.05 / 8, 5, 0, 1 / math.sqrt(6))[1]
    between = (single + of_eight) / 2
    assert judge([contrast(values, smallest=between)])[0].verdict == "no difference"
    family = [contrast(values, smallest=between)] * 8
    assert {one.verdict for one in judge(family)} == {"undecided"}
    assert {one.verdict for one in judge([contrast(values, smallest=1.01 * of_eight)] * 8)} == {"no difference"}


@pytest.mark.usefixtures("without_bootstrap")
@pytest.mark.parametrize("count", [3, 5, 8])
def test_a_difference_that_just_matters_is_rarely_called_none(count: int) -> None:
    trials, rng = 1000, np.random.default_rng(30 + count)
    smallest = 4.0 if count < 8 else 2.0
    wrong = 0
    for row in rng.normal(smallest, 1.0, (trials, count)):
        wrong += judge([contrast(row, smallest=smallest)])[0].verdict == "no difference"
    low, high = bounds(0.025, trials)
    # At three seeds the interval is often wider than the margins on both sides, so the verdict is rarer still.
    assert (low if count > 3 else 0.0) <= wrong / trials <= high


# --- spread of zero, lost trials ------------------------------------------------------------------------------------


def test_identical_arms_show_no_difference() -> None:
    values = by_seed([2.11, 2.07, 2.13])
    found = judge([paired(values, values, direction="lower", smallest=0.0, noise=0.0)])[0]
    assert (found.verdict, found.contrast.p, found.adjusted) == ("no difference", 1.0, (0.0, 0.0))
    assert found.words == "No difference: both arms give exactly the same figure on each of 3 seeds."


@pytest.mark.parametrize(("count", "verdict"), [(2, "undecided"), (5, "undecided"), (6, "better"), (9, "better")])
def test_a_constant_difference_is_judged_by_signs(count: int, verdict: str) -> None:
    theirs = np.linspace(2.0, 2.3, count)
    found = judge([paired(by_seed(theirs - 0.1), by_seed(theirs), direction="lower", smallest=0.01, noise=None)])[0]
    assert found.contrast.sd == 0
    assert found.contrast.p == stats.binomtest(0, count).pvalue
    assert found.verdict == verdict
    assert (found.contrast.interval is None) == (verdict == "undecided")
    if verdict == "undecided":
        assert found.more_seeds == 6 - count
        text = "4 more seeds that agree" if count == 2 else "1 more seed that agrees"
        assert found.words.endswith(f"about {text} would decide.")


def test_a_constant_small_difference_takes_as_many_seeds_to_be_none() -> None:
    verdicts = [judge([contrast([0.01] * count, smallest=0.1)])[0].verdict for count in (3, 5, 6)]
    assert verdicts == ["undecided", "undecided", "no difference"]


@pytest.mark.parametrize("smallest", [0.0, 10.0])
@pytest.mark.parametrize(
    ("mean", "failed", "failed_against", "verdict"),
    [(-1.0, 1, 0, "undecided"), (1.0, 1, 0, "worse"), (-1.0, 0, 1, "better"), (1.0, 0, 1, "undecided"),
     (1.0, 1, 1, "undecided"), (-1.0, 1, 1, "undecided")],
)  # fmt: skip
def test_an_arm_that_lost_trials(mean: float, failed: int, failed_against: int, verdict: str, smallest: float) -> None:
    own = contrast(exactly(mean, 0.1, 5), smallest=smallest, failed=failed, failed_against=failed_against)
    found = judge([own])[0]
    assert (found.verdict, found.more_seeds) == (verdict, None)
    assert ("1 trial of this arm gave no figure" in found.words) == bool(failed)
    assert ("1 trial of the arm it is compared with gave no figure" in found.words) == bool(failed_against)


def test_identical_arms_of_which_one_lost_a_trial_are_undecided() -> None:
    found = judge([contrast([0.0, 0.0, 0.0, NAN])])[0]
    assert found.verdict == "undecided"
    assert "exactly the same figure" in found.words and "1 trial of this arm gave no figure" in found.words


# --- power ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [2, 3, 5, 8, 20])
@pytest.mark.parametrize("contrasts", [1, 4])
@pytest.mark.parametrize("effect", [0.0, 0.4, 1.0, 2.5])
def test_power_is_that_of_the_noncentral_t(seeds: int, contrasts: int, effect: float) -> None:
    reach = stats.t.ppf(1 - 0.05 / contrasts / 2, seeds - 1)
    shift = effect * math.sqrt(seeds)
    expected = stats.nct.sf(reach, seeds - 1, shift) + stats.nct.cdf(-reach, seeds - 1, shift)
    assert chance_to_decide(3 * effect, 3.0, seeds, contrasts=contrasts) == pytest.approx(expected, abs=2e-5)
    assert chance_to_decide(-3 * effect, 3.0, seeds, contrasts=contrasts) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(
    ("mean", "smallest", "count", "contrasts"),
    [(0.0, 1.5, 6, 1), (0.5, 1.5, 5, 1), (0.5, 1.0, 8, 1), (-1.0, 1.0, 5, 1), (1.0, 2.0, 8, 3), (2.0, 1.0, 4, 1)],
)
def test_the_chance_to_decide_is_the_share_of_studies_that_do(
    mean: float, smallest: float, count: int, contrasts: int
) -> None:
    data = np.random.default_rng(count).normal(mean, 1.0, (200_000, count))
    half = stats.t.ppf(1 - 0.05 / contrasts / 2, count - 1) * data.std(1, ddof=1) / math.sqrt(count)
    low, high = data.mean(1) - half, data.mean(1) + half
    share = float(np.mean((low > 0) | (high < 0) | ((low > -smallest) & (high < smallest))))
    expected = pytest.approx(share, abs=0.004)
    assert chance_to_decide(mean, 1.0, count, smallest=smallest, contrasts=contrasts) == expected
    assert chance_to_decide(7 * mean, 7.0, count, smallest=7 * smallest, contrasts=contrasts) == expected


@pytest.mark.usefixtures("without_bootstrap")
@pytest.mark.parametrize(
    ("mean", "smallest", "count", "family"),
    [(0.7, 0.0, 5, 1), (0.05, 0.8, 5, 1), (0.6, 0.9, 4, 1), (0.8, 0.0, 6, 4), (0.0, 1.2, 4, 4)],
)
def test_that_many_more_seeds_decide_four_times_out_of_five(
    mean: float, smallest: float, count: int, family: int
) -> None:
    others = [contrast([])] * (family - 1)
    found = judge([contrast(exactly(mean, 1.0, count), smallest=smallest), *others])[0]
    assert found.verdict == "undecided" and found.more_seeds is not None
    total, trials, rng = count + found.more_seeds, 400, np.random.default_rng(count)
    decided = 0
    for row in rng.normal(mean, 1.0, (trials, total)):
        decided += judge([contrast(row, smallest=smallest), *others])[0].verdict != "undecided"
    assert 0.74 <= decided / trials <= 0.92
    assert f"about {found.more_seeds} more seeds would decide" in found.words
    if found.more_seeds > 1:
        assert chance_to_decide(mean, 1.0, total - 1, smallest=smallest, contrasts=family) < 0.8


def test_seeds_needed_is_the_first_number_that_is_enough() -> None:
    for mean, smallest, contrasts in [(0.5, 0.0, 1), (0.1, 0.5, 1), (0.3, 0.6, 3), (4.0, 0.0, 1), (0.0, 5.0, 2)]:
        first = next(
            n for n in range(2, 1001) if chance_to_decide(mean, 1.0, n, smallest=smallest, contrasts=contrasts) >= 0.8
        )
        assert seeds_needed(mean, 1.0, smallest=smallest, contrasts=contrasts) == first
        assert seeds_needed(10 * mean, 10.0, smallest=10 * smallest, contrasts=contrasts) == first
        assert seeds_needed(mean, 1.0, smallest=smallest, contrasts=contrasts, most=first - 1) is None or first == 2


def test_a_margin_never_takes_more_seeds_than_either_verdict_alone() -> None:
    difference = seeds_needed(0.5, 1.0)
    both = seeds_needed(0.5, 1.0, smallest=0.8)
    assert difference == 34  # the textbook's number for half a standard deviation
    assert both is not None and both <= difference


def test_seeds_needed_at_its_ends() -> None:
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(0.01, 1.0) is None
    assert seeds_needed(1.0, 0.0) == 2
    assert seeds_needed(0.0, 0.0) is None
    assert chance_to_decide(5.0, 1.0, 1) == 0.0


@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
@pytest.mark.parametrize("contrasts", [1, 3])
def test_what_a_study_could_have_seen(seeds: int, contrasts: int) -> None:
    found = detectable(0.02, seeds, contrasts=contrasts)
    assert found is not None
    reach = stats.t.ppf(1 - 0.05 / contrasts / 2, seeds - 1)
    assert stats.nct.sf(reach, seeds - 1, found / 0.02 * math.sqrt(seeds)) == pytest.approx(0.8, abs=1e-3)


def test_what_no_study_sees() -> None:
    assert detectable(0.02, 1) is None
    assert detectable(0.0, 5) == 0.0


# --- the noise of one arm -------------------------------------------------------------------------------------------


def test_the_noise_floor_holds_the_truth() -> None:
    rng, trials = np.random.default_rng(3), 1000
    inside = 0
    for row in rng.normal(5.0, 0.3, (trials, 5)):
        floor = noise_floor(row.tolist())
        assert floor.sd == pytest.approx(np.std(row, ddof=1)) and floor.seeds == 5
        assert floor.low is not None and floor.high is not None
        inside += floor.low <= 0.3 <= floor.high
    low, high = bounds(0.95, trials)
    assert low <= inside / trials <= high


def test_the_noise_floor_of_few_or_equal_values() -> None:
    assert noise_floor([]) == noise_floor([NAN, None]) and noise_floor([]).sd is None
    assert noise_floor([1.0, math.inf]).seeds == 1 and noise_floor([1.0, math.inf]).sd is None
    equal = noise_floor([0.1, 0.1, 0.1])
    assert (equal.sd, equal.low, equal.high, equal.seeds) == (0.0, 0.0, None, 3)
    two = noise_floor([1.0, 3.0, NAN])
    assert two.sd == pytest.approx(math.sqrt(2)) and two.seeds == 2
    assert two.high == pytest.approx(math.sqrt(2 / stats.chi2.ppf(0.025, 1)))


def test_one_arm_against_itself_over_disjoint_seeds() -> None:
    values = np.random.default_rng(7).normal(2.0, 0.01, 40).tolist()
    found = false_positive_rate([*values, NAN], seeds=5, resamples=1000)
    assert 0.03 <= found["rate"] <= 0.075
    exact = stats.binomtest(round(found["rate"] * 1000), 1000).proportion_ci(0.95)
    assert (found["low"], found["high"]) == pytest.approx((exact.low, exact.high))
    assert (found["seeds"], found["resamples"], found["alpha"]) == (5, 1000, 0.05)
    assert (found["values"], found["independent"]) == (40, 4)
    json.dumps(found, allow_nan=False)


def test_resampling_follows_its_arguments() -> None:
    values = np.random.default_rng(8).normal(2.0, 0.01, 12).tolist()
    first = false_positive_rate(values, seeds=4, resamples=250)
    assert first == false_positive_rate(values, seeds=4, resamples=250)
    assert first != false_positive_rate(values, seeds=4, resamples=250, seed=1)
    assert false_positive_rate(values, seeds=4, resamples=250, alpha=0.3)["rate"] > 0.2
    idle = false_positive_rate(values, seeds=4, resamples=100, smallest=1.0)
    assert (idle["rate"], idle["low"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("values", "seeds", "resamples", "text"),
    [([1.0] * 9 + [NAN], 5, 10, "10 finite values; there are 9"), ([1.0] * 9, 1, 10, "at least 2 seeds"),
     ([1.0] * 9, 2, 0, "1 resample")],
)  # fmt: skip
def test_resampling_refuses_too_little(values: list[float], seeds: int, resamples: int, text: str) -> None:
    with pytest.raises(RequestError, match=text):
        false_positive_rate(values, seeds=seeds, resamples=resamples)


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("differences", "fields", "words"),
    [
        (exactly(0.1, 0.0161, 5), {"noise": 0.012, "smallest": 0.012},
         "Worse by 0.100 (95 % interval 0.080 to 0.120; 5 seeds), 8.3 times the seed noise."),
        (exactly(-0.1, 0.0161, 5), {"smallest": 0.012}, "Better by 0.100 (95 % interval 0.080 to 0.120; 5 seeds)."),
        (exactly(-0.1, 0.0161, 5), {"smallest": 0.1},
         "Better by 0.100 (95 % interval 0.080 to 0.120; 5 seeds). It may be smaller than 0.1, the smallest effect "
         "that matters."),
        (exactly(0.001, 0.004, 5), {"smallest": 0.012},
         "No difference larger than 0.012: the difference is 0.0010 (95 % interval -0.0040 to 0.0060; 5 seeds)."),
        (exactly(0.5, 1.0, 5), {},
         "Undecided: the difference is 0.5 (95 % interval -0.7 to 1.7; 5 seeds); about 29 more seeds would decide if "
         "these figures hold."),
        (exactly(0.001, 1.0, 5), {},
         "Undecided: the difference is 0.0 (95 % interval -1.2 to 1.2; 5 seeds); more than 1000 more seeds would be "
         "needed to decide."),
        ([0.1], {}, "Undecided: on the one seed that both arms have, the difference is 0.1; one seed tells nothing of "
         "chance."),
        ([], {}, "Undecided: no seed has a figure in both arms."),
        ([], {"failed": 3}, "Undecided: no seed has a figure in both arms. 3 trials of this arm gave no figure, so it "
         "can only be called worse or undecided: the figures that are missing may be its bad ones."),
        ([-0.25] * 6, {"smallest": 0.1, "noise": 0.1},
         "Better by 0.25 on every one of 6 seeds, 2.5 times the seed noise."),
        ([-0.25] * 3, {}, "Undecided: the difference is -0.25 on each of 3 seeds, and that so few agree to the last "
         "digit may be chance; about 3 more seeds that agree would decide."),
        (exactly(3e-8, 1e-9, 5), {}, "Worse by 3e-8 (95 % interval 2.88e-8 to 3.12e-8; 5 seeds)."),
        (exactly(25000.0, 900.0, 5), {}, "Worse by 25,000 (95 % interval 23,883 to 26,117; 5 seeds)."),
    ],
)  # fmt: skip
def test_words(differences: Sequence[float], fields: dict[str, Any], words: str) -> None:
    assert judge([contrast(differences, **fields)])[0].words == words


def test_words_of_a_family() -> None:
    family = [
        contrast(exactly(1.6, 1.0, 5), smallest=0.5),
        contrast(exactly(5.0, 1.0, 5), smallest=0.5),
        contrast(exactly(0.0, 0.1, 5), smallest=0.5),
        contrast([0.2]),
    ]
    lost, won, none, single = judge(family)
    assert lost.words == (
        "Undecided: the difference is 1.6 (95 % interval 0.4 to 2.8; 5 seeds), which is not enough after correction "
        "for 4 contrasts (p = 0.07); about 3 more seeds would decide if these figures hold."
    )
    assert won.words == (
        "Worse by 5.0 (95 % interval 3.8 to 6.2; 5 seeds); p = 0.0015 after correction for 4 contrasts."
    )
    assert none.words == (
        "No difference larger than 0.5: the difference is 0.00 (98.75 % interval -0.19 to 0.19, corrected for 4 "
        "contrasts; 5 seeds)."
    )
    assert (single.verdict, single.p_adjusted, single.adjusted) == ("undecided", None, None)


def test_words_name_the_level_that_was_asked_for() -> None:
    found = judge([contrast(exactly(1.0, 0.5, 4))], alpha=0.1)[0]
    assert found.words.startswith("Worse by 1.00 (90 % interval 0.41 to 1.59; 4 seeds)")


@pytest.mark.parametrize(
    "ours",
    [{}, {0: NAN}, {0: 1.0}, {0: 1.0, 1: 1.0}, {0: 1e308, 1: -1e308, 2: 1e308}, {0: 1e-320, 1: 2e-320, 2: 0.0},
     {0: 0.5, 1: math.inf, 2: 0.7}, {0: 1.0, 1: 2.0, 2: 3.5}],
)  # fmt: skip
@pytest.mark.parametrize("base", [0.0, 1.0, -1e308])
def test_plain_data_is_json(ours: dict[int, float], base: float) -> None:
    theirs = dict.fromkeys(range(3), base)
    for noise in (None, 0.0, 5e-324, NAN):
        found = paired(ours, theirs, direction="higher", smallest=0.1, noise=noise)
        plain = judge([found, found])[0].plain()
        assert list(plain) == KEYS
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain
        assert plain["words"].endswith(".") and plain["words"].lower().startswith(plain["verdict"])
