from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from foretrain.tasks.statistics import mean, proportion, ratio_interval, wilson


@pytest.mark.parametrize(("right", "items"), [(0, 5), (3, 10), (10, 10), (999, 1000), (1, 1)])
def test_wilson_equals_scipy(right: int, items: int) -> None:
    expected = stats.binomtest(right, items).proportion_ci(0.95, method="wilson")
    assert wilson(right, items) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_holds_its_level_on_average_over_samples() -> None:
    # Exactly, from the binomial distribution: chance that the interval of a sample holds the true share.
    for share in (0.5, 0.2, 0.05):
        held = sum(stats.binom.pmf(k, 60, share) for k in range(61) if wilson(k, 60)[0] <= share <= wilson(k, 60)[1])
        assert 0.92 < held < 0.98


def test_mean_interval_equals_scipys_t_test() -> None:
    values = np.random.default_rng(0).exponential(size=30)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert ratio_interval(values.tolist()) == pytest.approx((expected.low, expected.high))
    assert ratio_interval((values * 3).tolist(), [3.0] * 30) == pytest.approx((expected.low, expected.high))


def test_ratio_interval_covers_the_true_ratio() -> None:
    # Items of unequal size whose mean depends on it: the ratio of sums is not the mean of the items' ratios, and an
    # interval that takes the total size as known would hold it nearly always.
    random = np.random.default_rng(1)
    sizes = random.geometric(0.05, size=(4000, 80)).astype(float)
    amounts = sizes * (2.0 + 1.0 / sizes + 0.3 * random.standard_normal(sizes.shape))
    true = 2.0 + 1.0 * 0.05
    found = [ratio_interval(a, s) for a, s in zip(amounts, sizes, strict=True)]
    held = np.mean([one is not None and one[0] <= true <= one[1] for one in found])
    assert 0.93 < held < 0.965


def test_one_item_says_nothing_about_others() -> None:
    assert ratio_interval([2.0], [3.0]) is None
    one = mean([6.0], [3.0], higher_is_better=False)
    assert (one.value, one.low, one.high, one.items) == (2.0, None, None, 1)


def test_measured_holds_items_and_weights() -> None:
    one = mean([6.0, 1.0], [3.0, 1.0], higher_is_better=False, truncated=1)
    assert one.values == (2.0, 1.0) and one.weights == (3.0, 1.0)
    assert one.value == 7 / 4 == math.fsum(v * w for v, w in zip(one.values, one.weights, strict=True)) / 4
    share = proportion([True, False, True, True])
    assert share.value == 0.75 and share.higher_is_better and share.values == (1.0, 0.0, 1.0, 1.0)
    assert share.low is not None and share.high is not None and 0 < share.low < 0.75 < share.high < 1
    assert share.plain() == {
        "value": 0.75, "low": share.low, "high": share.high, "items": 4, "higher_is_better": True, "truncated": 0,
    }  # fmt: skip
