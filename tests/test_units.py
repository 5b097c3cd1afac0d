"""Numbers as people read them, against texts written by hand."""

from __future__ import annotations

import math

import pytest

from foretrain import units


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1, "1"), (999, "999"), (1000, "1K"), (4_200_000, "4.2M"), (1.5e9, "1.5B"), (999_999, "1M"),
     (999_499, "999K"), (12_345, "12.3K"), (34_210.4, "34.2K"), (0.5, "0.5"), (-2000, "-2K"), (7e12, "7T"),
     (None, "–"), (math.nan, "–")],
)  # fmt: skip
def test_counts(value: float | None, text: str) -> None:
    assert units.count(value) == text


def test_counts_with_a_unit() -> None:
    assert units.count(4_200_000, "tokens") == "4.2M tokens"
    assert units.count(1, "tokens") == "1 token"


@pytest.mark.parametrize(
    ("value", "text"), [(1.3e15, "1.3e15 FLOPs"), (9.99e14, "1.0e15 FLOPs"), (512, "512 FLOPs"), (None, "–")]
)
def test_flops(value: float | None, text: str) -> None:
    assert units.flops(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (9.96, "10 s"), (42, "42 s"), (59.7, "1 min"), (200, "3 min 20 s"), (3599.6, "1 h"),
     (7500, "2 h 5 min"), (86_400 * 3 + 4 * 3600, "3 d 4 h"), (None, "–"), (math.inf, "–")],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1.3 * 2**30, "1.3 GiB"), (812 << 20, "812 MiB")],
)
def test_sizes(value: float, text: str) -> None:
    assert units.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.41234, "3.412"), (3.0, "3.000"), (0.019341, "0.01934"), (2.1e-7, "2.1e-7"), (35_212.4, "35,212"), (0, "0.000"),
     (128.0, "128"), (math.nan, "nan"), (None, "–")],
)  # fmt: skip
def test_measured_figures(value: float | None, text: str) -> None:
    assert units.measured(value) == text


def test_shares() -> None:
    assert units.share(0.3719) == "37.2 %"
    assert units.share(None) == "–"
