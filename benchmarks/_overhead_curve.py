"""Draws what `benchmarks.steering_overhead --sweep` finds as two small curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WIDE, HIGH, LEFT, TOP, GAP = 300, 150, 52, 40, 60
LOOKS = {"time": ("#1f6f8b", "", "time"), "flops": ("#b4572a", "5 4", "FLOPs")}


def panel(found: Mapping[str, Any], letter: str, title: str, x: float, top: float) -> str:
    """One curve: cost beside plain training, over the values of one setting, evenly spaced in their order."""
    values = sorted(int(name.split()[1]) for name in found if name.startswith(f"{letter} "))
    places = [x + 14 + i * (WIDE - 28) / (len(values) - 1) for i in range(len(values))]

    def height(ratio: float) -> float:
        return TOP + HIGH * (1 - (ratio - 1) / (top - 1))

    drawn = [f'<text class="title" x="{x}" y="{TOP - 18}">{title}</text>']
    for share in _ticks(top):
        y = height(1 + share)
        drawn.append(f'<path class="grid" d="M{x} {y:.1f}h{WIDE}"/>')
        drawn.append(f'<text class="tick" x="{x - 8}" y="{y + 4:.1f}" text-anchor="end">+{100 * share:.0f} %</text>')
    for value, place in zip(values, places, strict=True):
        drawn.append(f'<text class="tick" x="{place:.1f}" y="{TOP + HIGH + 18}" text-anchor="middle">{value}</text>')
    for key, (colour, dashes, _) in LOOKS.items():
        points = [(place, height(found[f"{letter} {value}"][key])) for value, place in zip(values, places, strict=True)]
        line = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        drawn.append(f'<polyline points="{line}" stroke="{colour}" stroke-dasharray="{dashes}"/>')
        drawn += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>' for px, py in points]
    return "\n".join(drawn)


def _ticks(top: float) -> Sequence[float]:
    step = next(step for step in (0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0) if (top - 1) / step <= 5)
    return [i * step for i in range(int((top - 1) / step + 1e-9) + 1)]


def draw(found: Mapping[str, Any]) -> str:
    """The whole picture as SVG."""
    tops = {
        letter: 1 + 1.08 * max(row[key] - 1 for name, row in found.items() if name.startswith(letter) for key in LOOKS)
        for letter in ("K", "r")
    }
    second = LEFT + WIDE + GAP
    legend = "\n".join(
        f'<path d="M{LEFT + 90 * i} {TOP + HIGH + 44}h26" stroke="{colour}" stroke-width="2" '
        f'stroke-dasharray="{dashes}"/><text class="tick" x="{LEFT + 90 * i + 32}" y="{TOP + HIGH + 48}">{word}</text>'
        for i, (colour, dashes, word) in enumerate(LOOKS.values())
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {second + WIDE + 16} {TOP + HIGH + 60}" role="img"
  aria-label="Cost of v_pretraining beside plain training, over candidates and over steps between updates">
<style>
  text {{ font-family: system-ui, sans-serif; fill: #444; font-size: 12px }}
  .title {{ font-size: 13px; fill: #222 }}
  .grid {{ stroke: #ddd; fill: none }}
  polyline {{ fill: none; stroke-width: 2 }}
  @media (prefers-color-scheme: dark) {{ text, .title {{ fill: #ccc }} .grid {{ stroke: #444 }} }}
</style>
{panel(found, "K", "candidates a token (K), updates every 8 steps", LEFT, tops["K"])}
{panel(found, "r", "steps between updates (r), 16 candidates", second, tops["r"])}
{legend}
</svg>
"""
