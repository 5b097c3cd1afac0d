"""A study directory with simulated trials, as the conductor of a study would leave it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import stats

ARMS: dict[str, dict[str, Any]] = {
    # effect on the loss, on the accuracy; spread of the effect over seeds; changes of the recipe
    "plain": {"loss": 0.0, "accuracy": 0.0, "spread": 0.0, "changes": []},
    "heavy-decay": {"loss": 0.085, "accuracy": -0.02, "spread": 0.006, "changes": [["optimizer.weight_decay", 0.1, 8]]},
    "wsd": {
        "loss": -0.031,
        "accuracy": 0.012,
        "spread": 0.005,
        "changes": [["schedule.kind", "cosine", "wsd"], ["schedule.decay", None, 0.2]],
    },
    "soup": {"loss": -0.006, "accuracy": 0.004, "spread": 0.012, "changes": [["checkpoint.keep", 2, 5]]},
}
METRICS: dict[str, dict[str, Any]] = {
    "validation/loss": {"direction": "lower", "smallest": 0.012, "judged": True},
    "task/questions/accuracy": {"direction": "higher", "smallest": 0.01, "judged": True},
    "task/questions/loss": {"direction": "lower", "smallest": 0.02, "judged": False},
}
STEPS, TOKENS, FLOPS = 1200, 1024, 1e10
ERROR = "The loss was not finite at 20 steps in a row, from step 701 on."


def write_study(
    folder: Path,
    *,
    arms: dict[str, dict[str, Any]] | None = None,
    seeds: int = 5,
    stopped: str | None = "heavy-decay",
    failed: tuple[str, int] | None = ("soup", 3),
    one_off: str | None = "soup",
    metrics: dict[str, dict[str, Any]] | None = None,
    curves: bool = True,
    result: bool = True,
) -> Path:
    """Write everything that a study leaves; the numbers are drawn with a fixed seed, and paired by seed."""
    arms, metrics = arms or ARMS, metrics or METRICS
    baseline = next(iter(arms))
    rng = np.random.Generator(np.random.Philox(11))
    levels = {seed: rng.normal(0, 0.012) for seed in range(seeds)}
    found: dict[str, Any] = {}
    rung: dict[str, dict[str, dict[int, float]]] = {arm: {name: {} for name in metrics} for arm in arms}
    for arm, told in arms.items():
        cost = 1.03 if arm == "wsd" else 1.0
        steps = round(STEPS / cost) if arm != stopped else STEPS // 4
        values: dict[str, dict[str, float]] = {name: {} for name in metrics}
        trials = []
        for seed in range(seeds):
            shift = told["loss"] + rng.normal(0, told["spread"])
            last = 700 if (arm, seed) == failed else steps
            rows = _rows(rng, last, FLOPS * cost, levels[seed] + shift, told["accuracy"], metrics)
            path = f"trials/{arm}/seed-{seed}"
            end = None if (arm, seed) == failed else rows[-1]
            quarter = min(
                rows, key=lambda row: abs(row["step"] - STEPS / 4 / cost) + (0 if _has(row, metrics) else 1e9)
            )
            for name in metrics:
                if end is not None:
                    values[name][str(seed)] = end[name]
                    rung[arm][name][seed] = quarter[name]
            spent = {"steps": last, "tokens": last * TOKENS, "flops": last * FLOPS * cost}
            spent |= {"seconds": 31.0 * last / STEPS + 0.1 * seed, "peak_memory": 51_200_000}
            status = "failed" if end is None else "done"
            trials.append({"seed": seed, "status": status, "path": path, "error": None if end else ERROR, **spent})
            trials[-1]["skipped"] = 0
            if curves:
                _write_trial(folder / path, arm, rows, status, spent)
        one = trials[0]
        found[arm] = {
            "changes": told["changes"],
            **{key: one[key] for key in ("steps", "tokens", "flops", "peak_memory")},
            "seconds": float(np.mean([trial["seconds"] for trial in trials])),
            "one_off_flops": 4e12 if arm == one_off else 0,
            "tuning_flops": 2e12 if arm == "wsd" else 0,
            "tuned": {"optimizer.lr": 0.003} if arm == "wsd" else None,
            "stopped": 0.25 if arm == stopped else None,
            "failed": int(failed is not None and arm == failed[0]),
            "metrics": {name: _measured(values[name]) for name in metrics},
            "trials": trials,
        }
    pairs = [(arm, baseline) for arm in arms if arm != baseline]
    if {"wsd", "heavy-decay"} <= set(arms):
        pairs.append(("wsd", "heavy-decay"))
    contrasts = []
    for name, metric in metrics.items():
        for arm, against in pairs:
            early = stopped in (arm, against)
            read = {key: rung[key][name] if early else _ints(found[key]["metrics"][name]) for key in (arm, against)}
            contrast = _contrast(read[arm], read[against], metric, len(pairs))
            contrasts.append(
                {"arm": arm, "against": against, "metric": name, **contrast, "share": 0.25 if early else 1.0}
            )
            if against == baseline and name in found[arm]["metrics"]:
                told = {key: contrast[key] for key in ("difference", "interval", "verdict")}
                found[arm]["metrics"][name] |= told | {"seeds": len(contrast["seeds"])}
    second = []
    if one_off in arms:
        # The baseline once more, with the FLOPs that the arm paid once.
        control = f"{baseline}-given-{one_off}"
        better = {name: -0.004 if metric["direction"] == "lower" else 0.004 for name, metric in metrics.items()}
        given = {
            name: {seed: value + better[name] for seed, value in told["values"].items()}
            for name, told in found[baseline]["metrics"].items()
        }
        larger = {"steps": 1600, "tokens": 1600 * TOKENS, "flops": 1.6e13, "seconds": 41.3}
        rows = [
            {**trial, **larger, "path": f"trials/{control}/seed-{trial['seed']}"} for trial in found[baseline]["trials"]
        ]
        found[control] = {**found[baseline], **larger, "control_for": one_off, "trials": rows}
        found[control]["metrics"] = {name: _measured(values) for name, values in given.items()}
        for name, metric in metrics.items():
            read = [_ints(found[key]["metrics"][name]) for key in (one_off, control)]
            contrast = _contrast(*read, metric, 1)
            second.append({"arm": one_off, "against": control, "metric": name, **contrast, "share": 1.0})
    study = {
        "format": 1,
        "name": "decay-and-schedule",
        "baseline": baseline,
        "seeds": list(range(seeds)),
        "alpha": 0.05,
        "match": {"unit": "flops", "budget": STEPS * FLOPS, "largest_difference": 0.0004, "reason": None},
        "metrics": {
            name: {"figure": name, "at": "end", "noise_units": 1.0, **metric} for name, metric in metrics.items()
        },
        "arms": found,
        "contrasts": contrasts,
        "second": second,
        "noise": {
            name: {"sd": 0.012, "low": 0.0072, "high": 0.0345, "seeds": seeds, "source": "this study's baseline"}
            for name in metrics
        },
        "totals": {"trials": seeds * len(found), "flops": 1.9e14, "saved_flops": 4.5e13, "seconds": 470.0},
        "notes": ["Arm soup has one failed trial: its figures rest on the seeds that ended."],
    }
    folder.mkdir(parents=True, exist_ok=True)
    plan = {"format": 1, "name": study["name"], "question": "Does a short decay at the end beat a cosine?"}
    plan |= {"base": {"budget": {"flops": 1.2e13}}, "arms": {arm: {} for arm in arms}, "baseline": baseline}
    plan |= {"seeds": list(range(seeds)), "metrics": {name: {} for name in metrics}}
    (folder / "study.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    (folder / "environment.json").write_text(json.dumps({"foretrain": "0.1.0", "torch": "2.13.0+cpu", "threads": 1}))
    if result:
        (folder / "study.json").write_text(json.dumps(study, indent=2))
    return folder


def _ints(told: dict[str, Any]) -> dict[int, float]:
    return {int(seed): value for seed, value in told["values"].items()}


def _has(row: dict[str, Any], metrics: dict[str, Any]) -> bool:
    return all(name in row for name in metrics)


def _rows(rng: Any, last: int, flops: float, shift: float, accuracy: float, metrics: dict[str, Any]) -> list[dict]:
    rows: list[dict[str, Any]] = []
    for step in range(last + 1):
        row: dict[str, Any] = {"step": step, "tokens": step * TOKENS, "flops": step * flops}
        progress = 1 - math.exp(-step / 150)
        loss = 2.1 + 3.4 / (1 + step / 25) ** 0.8 + shift * progress
        if step:
            row |= {"loss": loss + rng.normal(0, 0.05), "lr": 1e-3 * min(1, step / 40) * (1 - 0.9 * step / STEPS)}
        if step % 100 == 0 or step == last:
            row["validation/loss"] = loss + 0.04 + rng.normal(0, 0.001)
            row["task/questions/accuracy"] = 0.3 + (0.2 + accuracy - shift / 3) * progress + rng.normal(0, 0.004)
            row["task/questions/loss"] = 0.8 * loss + rng.normal(0, 0.01)
        rows.append({name: value for name, value in row.items() if "/" not in name or name in metrics})
    return rows


def _write_trial(path: Path, arm: str, rows: list[dict], status: str, cost: dict[str, Any]) -> None:
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text(f"name: {json.dumps(arm)}\n")
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    timing = [{"step": row["step"], "seconds": 31.0 * row["step"] / STEPS} for row in rows[1::10]]
    (path / "timing.jsonl").write_text("".join(json.dumps(row) + "\n" for row in timing))
    end = {"status": status, "cost": cost} | ({"error": ERROR} if status == "failed" else {})
    (path / "result.json").write_text(json.dumps(end))


def _measured(values: dict[str, float]) -> dict[str, Any]:
    numbers = list(values.values())
    return {
        "mean": float(np.mean(numbers)) if numbers else None,
        "sd": float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None,
        "values": values,
        "difference": None,
        "interval": None,
        "seeds": len(numbers),
        "verdict": None,
    }


def _contrast(arm: dict[int, float], against: dict[int, float], metric: dict[str, Any], family: int) -> dict[str, Any]:
    seeds = sorted(set(arm) & set(against))
    differences = np.array([arm[seed] - against[seed] for seed in seeds])
    count, smallest = len(seeds), metric["smallest"]
    mean = float(differences.mean()) if count else None
    row: dict[str, Any] = {
        "seeds": seeds,
        "differences": differences.tolist(),
        "difference": mean,
        "smallest": smallest,
    }
    row |= {"relative": None if mean is None else mean / float(np.mean(list(against.values()))), "noise": 0.012}
    row |= {"in_noise": None if mean is None else mean / 0.012, "more_seeds": None, "bootstrap": None}
    row |= {"sd": None, "interval": None, "adjusted": None, "p": None, "p_adjusted": None, "verdict": "undecided"}
    if count < 2 or mean is None:
        return row | {"words": "undecided: one seed says nothing of the noise"}
    sd = float(differences.std(ddof=1))
    error = sd / math.sqrt(count)
    half, wide = (float(stats.t.ppf(1 - 0.025 / many, count - 1)) * error for many in (1, family))
    p = float(2 * stats.t.sf(abs(mean) / error, count - 1))
    row |= {"sd": sd, "interval": [mean - half, mean + half], "adjusted": [mean - wide, mean + wide]}
    row |= {"p": p, "p_adjusted": min(1.0, p * family)}
    good = mean < 0 if metric["direction"] == "lower" else mean > 0
    if p * family < 0.05:
        row["verdict"] = "better" if good else "worse"
    elif abs(mean) + half < smallest:
        row["verdict"] = "no difference"
    else:
        row["more_seeds"] = 7
    if not metric["judged"]:
        row |= {"verdict": None, "p_adjusted": None, "adjusted": None, "more_seeds": None}
    return row | {"words": f"{row['verdict']} by {abs(mean):.3f}"}
