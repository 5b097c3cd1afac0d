"""Curves made from known laws, and run directories that hold them without a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from foretrain.forecasts.curves import Course, Curve, Floats
from foretrain.recipe import make_recipe
from foretrain.schedules.base import Schedule, curve
from foretrain.schedules.cosine import Cosine
from foretrain.schedules.wsd import Wsd

PEAK, TOTAL, MEMORY = 2e-3, 1000, 0.99
TRUE = {"L0": 2.0, "A": 0.8, "alpha": 0.6, "C": 4.0}
WSD, COSINE = Wsd(warmup=20, decay=0.2, curve="linear"), Cosine(warmup=20, floor=0.1)


def rates(schedule: Schedule, total: int = TOTAL) -> Floats:
    return PEAK * np.array(curve(schedule, total))


def explicit_areas(eta: Floats, memory: float) -> tuple[Floats, Floats]:
    """S1 and S2 by their definition as double sums, the warm-up already held at its top."""
    s1 = np.array([eta[: step + 1].sum() for step in range(eta.size)])
    s2 = np.zeros(eta.size)
    for step in range(eta.size):
        s2[step] = sum(
            (eta[drop - 1] - eta[drop]) * memory ** (later - drop)
            for later in range(step + 1)
            for drop in range(1, later + 1)
        )
    return s1, s2


def annealed(schedule: Schedule, name: str = "made", noise: float = 0.0, every: int = 10) -> Curve:
    """A curve of the annealing law; its momentum by an explicit loop."""
    eta = rates(schedule)
    held = np.concatenate([np.full(20, PEAK), eta[20:]])
    s1, s2, momentum, area, total = [], [], 0.0, 0.0, 0.0
    for step in range(TOTAL):
        momentum = MEMORY * momentum + (held[max(step - 1, 0)] - held[step])
        area, total = area + momentum, total + held[step]
        s1.append(total)
        s2.append(area)
    loss = TRUE["L0"] + TRUE["A"] * np.array(s1) ** -TRUE["alpha"] - TRUE["C"] * np.array(s2)
    loss = loss * (1 + noise * np.random.default_rng(0).standard_normal(TOTAL))
    steps = np.arange(every, TOTAL + 1, every)
    return Curve(name, steps, eta, steps * 512.0, 1e5, values=loss[steps - 1], total=TOTAL)


def sized(parameters: float, name: str = "", noise: float = 0.0) -> Curve:
    """A curve of E + A / N^alpha + B / D^beta with E 1.5, A 20, alpha 0.3, B 60, beta 0.4."""
    steps = np.arange(10, TOTAL + 1, 10)
    loss = 1.5 + 20 * parameters**-0.3 + 60 * (steps * 512.0) ** -0.4
    loss = loss * (1 + noise * np.random.default_rng(int(parameters)).standard_normal(steps.size))
    return Curve(name or f"{parameters:g}", steps, None, steps * 512.0, parameters, values=loss, total=TOTAL)


def course_of(curve: Curve) -> Course:
    return Course(curve.name, curve.steps, curve.rates, curve.tokens, curve.parameters)


def write_run(folder: Path, curve: Curve, schedule: Schedule, until: int, **plan: Any) -> Path:
    """A run directory whose metrics are a curve's first part."""
    recipe = make_recipe(
        {
            "name": folder.name,
            "budget": {"steps": curve.total},
            "tokenizer": "byte",
            "model": {"kind": "llama", "layers": 1, "width": 16, "heads": 1, "context": 16},
            "corpus": {"prose": "builtin:english"},
            "batch": {"tokens": 512},
            "optimizer": {"lr": PEAK},
            "schedule": schedule.model_dump(mode="json"),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    told = {"total_steps": curve.total, "parameters": 100_000, "tokens_per_step": 512, "hashes": {"tokenizer": "t"}}
    (folder / "plan.json").write_text(json.dumps({**told, **plan}))
    rows = [
        {"step": int(step), "tokens": int(step) * 512, "flops": int(step), "loss": float(value), "lr": float(rate)}
        for step, value, rate in zip(curve.steps, curve.values, curve.rates[curve.steps - 1], strict=True)
        if step <= until
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
