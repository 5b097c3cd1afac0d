"""Numbers as people read them: counts, FLOPs, durations, sizes and measured values as short text."""

from __future__ import annotations

import math

_COUNTS = ((1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))
_SIZES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
MISSING = "–"
"""What stands for a number that is not there."""


def _three_digits(value: float) -> str:
    """A number from 0 to 1000 with three significant digits and no idle zeros: `4.2`, `16.4`, `999`."""
    text = f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(value: float | None, unit: str = "") -> str:
    """A count with a suffix: `4.2M`, `1.5B`, `812`; with a unit `4.2M tokens`, and `1 token` for one."""
    if value is None or not math.isfinite(value):
        return MISSING
    if unit and value == 1:
        unit = unit.removesuffix("s")
    size = abs(value)
    text = f"{size:.0f}" if size == round(size) else _three_digits(size)
    for scale, suffix in _COUNTS:
        # 999,999 is 1M and not 1000K.
        if size >= 0.9995 * scale and size >= 1000:
            text = _three_digits(size / scale) + suffix
            break
    sign = "-" if value < 0 else ""
    return f"{sign}{text} {unit}".rstrip()


def flops(value: float | None) -> str:
    """Floating-point operations: `1.3e15 FLOPs`."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value < 1e6:
        return f"{value:.0f} FLOPs"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)} FLOPs"


def duration(seconds: float | None) -> str:
    """Seconds as `0.4 s`, `42 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two(whole // 60, "min", whole % 60, "s")
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return _two(minutes // 60, "h", minutes % 60, "min")
    hours = round(seconds / 3600)
    return _two(hours // 24, "d", hours % 24, "h")


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit} {small} {small_unit}" if small else f"{large} {large_unit}"


def size(value: float | None) -> str:
    """Bytes as `1.3 GiB`."""
    if value is None or not math.isfinite(value):
        return MISSING
    for scale, unit in _SIZES:
        if abs(value) >= scale:
            return f"{value / scale:.3g} {unit}" if abs(value) < 1000 * scale else f"{value / scale:.0f} {unit}"
    return f"{value:.0f} B"


def measured(value: float | None) -> str:
    """A measured figure with four significant digits: `3.412`, `0.01934`, `2.1e-07`, `nan` where it is not a number."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:#.4g}".rstrip(".") if value != round(value) or abs(value) < 10 else f"{value:.0f}"
    if abs(value) < 1e7 and abs(value) >= 1:
        return f"{value:,.0f}"
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def share(value: float | None) -> str:
    """A share from 0 to 1 as a percentage: `37.2 %`."""
    return MISSING if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"
