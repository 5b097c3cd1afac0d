"""Scores of forecasts: a forecaster's errors on curves it has not seen, and from those the verdicts of a study."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from scipy import stats

from foretrain.errors import RequestError
from foretrain.forecasts._fitting import relative_error
from foretrain.forecasts.base import Fitted, Forecaster
from foretrain.forecasts.curves import Curve
from foretrain.studies.contrast import Direction
from foretrain.studies.statistics import Floor, judge, noise_floor, paired

if TYPE_CHECKING:
    from foretrain.studies.forecast import ForecastStudy

METRICS: dict[str, Direction] = {
    "error": "lower",
    "end": "lower",
    "rank": "higher",
    "nll": "lower",
    "coverage": "lower",
}
"""What is measured of forecasts, and which way is better."""
_LEVEL = 0.9


@dataclass(frozen=True)
class Attempt:
    """What a forecaster came to in one repetition.

    Attributes:
        figures: by the names of `METRICS`; `rank` only where several curves end.
        failed: why it has none.
    """

    figures: Mapping[str, float]
    failed: str | None = None


def attempt(
    forecaster: Forecaster,
    learnt: Sequence[Curve],
    targets: Sequence[Curve],
    seen: float,
    after: float,
    wanted: Collection[str] = tuple(METRICS),
) -> Attempt:
    """Learn from some curves, predict others, and measure the errors.

    Args:
        forecaster: it.
        learnt: curves that it learns from whole.
        targets: curves that it predicts.
        seen: share of each target that it learns from too; 0: none.
        after: share of each target that is not judged.
        wanted: which figures; intervals and densities take refits, so those are only asked for where they are wanted.
    """
    rows: list[dict[str, float]] = []
    ends: list[tuple[float, float]] = []
    common: Fitted | None = None
    try:
        for target in targets:
            if seen:
                fitted = forecaster.fit([*learnt, target.between(1, math.floor(seen * target.total))])
            else:
                fitted = common = common or forecaster.fit(learnt)
            held = target.between(math.floor(after * target.total) + 1, target.total)
            predicted = fitted.predict(held)
            row = {
                "error": relative_error(predicted, held.values),
                "end": relative_error(predicted[-1:], held.values[-1:]),
            }
            if "nll" in wanted:
                row["nll"] = -float(fitted.log_density(held, held.values).mean())
            if "coverage" in wanted:
                low, high = fitted.quantiles(held, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
                row["coverage"] = float(((low <= held.values) & (held.values <= high)).mean())
            rows.append(row)
            ends.append((float(predicted[-1]), float(held.values[-1])))
    except RequestError as error:
        return Attempt({}, str(error))
    figures = {name: fmean(row[name] for row in rows) for name in rows[0]}
    if "coverage" in figures:
        figures["coverage"] = abs(figures["coverage"] - _LEVEL)
    if len(ends) > 2:
        told, came = zip(*ends, strict=True)
        # All told alike is no order.
        figures["rank"] = float(stats.spearmanr(told, came).statistic) if len(set(told)) > 1 else 0.0
    return Attempt({name: value for name, value in figures.items() if math.isfinite(value)})


def study_data(
    study: ForecastStudy, attempts: Mapping[str, Mapping[int, Attempt]], trained: Mapping[str, Any]
) -> dict[str, Any]:
    """`study.json` of forecasters: arms, verdicts and costs as in any study.

    Args:
        study: which forecasters are compared, and by what.
        attempts: by forecaster and repetition.
        trained: `study.json` of the runs; empty for a table.
    """
    seeds = sorted({seed for found in attempts.values() for seed in found})
    values = {
        (arm, name): {
            seed: told.figures[metric.figure or name]
            for seed, told in found.items()
            if (metric.figure or name) in told.figures
        }
        for arm, found in attempts.items()
        for name, metric in study.metrics.items()
    }
    floors = {name: noise_floor(list(values[study.baseline, name].values())) for name in study.metrics}
    contrasts = _contrasts(study, values, floors, len(seeds))
    arms = {arm: _arm(study, arm, found, values, contrasts, trained) for arm, found in attempts.items()}
    totals = trained.get("totals") or {}
    return {
        "format": 1,
        "name": study.name,
        "question": study.question,
        "baseline": study.baseline,
        "seeds": seeds,
        "alpha": study.alpha,
        "match": {"unit": "none", "budget": None, "largest_difference": 0.0, "reason": _reason(trained)},
        "metrics": {name: _metric(study, name, floors[name]) for name in study.metrics},
        "arms": arms,
        "contrasts": contrasts,
        "second": [],
        "noise": {name: {**_plain(floor), "source": "this study's baseline"} for name, floor in floors.items()},
        "products": {},
        "totals": {
            "trials": sum(len(found) for found in attempts.values()),
            "flops": float(totals.get("flops") or 0.0),
            "tuning_flops": 0.0,
            "saved_flops": 0.0,
            "seconds": float(totals.get("seconds") or 0.0),
        },
        "notes": list(trained.get("notes") or []),
    }


def _reason(trained: Mapping[str, Any]) -> str:
    source = "runs trained for it" if trained else "a table"
    return f"The arms are forecasters; what they learn from are curves of {source}."


def _smallest(study: ForecastStudy, name: str, floor: Floor) -> float | None:
    metric = study.metrics[name]
    if metric.difference is not None:
        return metric.difference
    return None if floor.sd is None else (metric.noise or 1.0) * floor.sd


def _direction(study: ForecastStudy, name: str) -> Direction:
    metric = study.metrics[name]
    return metric.direction or METRICS[metric.figure or name]


def _metric(study: ForecastStudy, name: str, floor: Floor) -> dict[str, Any]:
    metric = study.metrics[name]
    return {
        "figure": metric.figure or name,
        "at": "end",
        "direction": _direction(study, name),
        "smallest": _smallest(study, name, floor),
        "noise_units": None if metric.difference is not None else metric.noise or 1.0,
        "judged": metric.judged,
    }


def _plain(floor: Floor) -> dict[str, Any]:
    return {"sd": floor.sd, "low": floor.low, "high": floor.high, "seeds": floor.seeds}


Values = Mapping[tuple[str, str], Mapping[int, float]]


def _contrasts(study: ForecastStudy, values: Values, floors: Mapping[str, Floor], seeds: int) -> list[dict[str, Any]]:
    """Every planned pair on every metric; those that are judged are one family."""
    planned = [(name, arm, against) for name in study.metrics for arm, against in study.planned()]
    made = [
        paired(
            values[arm, name],
            values[against, name],
            direction=_direction(study, name),
            smallest=_smallest(study, name, floors[name]) or 0.0,
            noise=floors[name].sd,
            failed=seeds - len(values[arm, name]),
            failed_against=seeds - len(values[against, name]),
        )
        for name, arm, against in planned
    ]
    judged = [study.metrics[name].judged for name, _, _ in planned]
    family = iter(judge([each for each, counts in zip(made, judged, strict=True) if counts], study.alpha))
    rows = []
    for (name, arm, against), contrast, counts in zip(planned, made, judged, strict=True):
        verdict = next(family) if counts else judge([contrast], study.alpha)[0]
        labels = {"arm": arm, "against": against, "metric": name, "share": 1.0}
        row = {**labels, **verdict.plain(), "smallest": _smallest(study, name, floors[name]), "judged": counts}
        rows.append(row if counts else {**row, "verdict": None, "more_seeds": None})
    return rows


def _arm(
    study: ForecastStudy,
    name: str,
    found: Mapping[int, Attempt],
    values: Values,
    contrasts: Sequence[Mapping[str, Any]],
    trained: Mapping[str, Any],
) -> dict[str, Any]:
    competitor = study.arms[name]
    cost = _cost(study, name, trained)
    trials = [
        {
            "seed": seed,
            "status": "done" if told.failed is None else "failed",
            "path": f"repetition-{seed}",
            "error": told.failed,
            **cost,
            "skipped": 0,
        }
        for seed, told in sorted(found.items())
    ]
    return {
        "changes": [("forecaster", None, competitor.model_dump(mode="json", exclude_defaults=True))],
        **cost,
        "one_off_flops": 0.0,
        "tuning_flops": 0.0,
        "tuned": None,
        "stopped": None,
        "failed": sum(told.failed is not None for told in found.values()),
        "control_for": None,
        "metrics": {metric: _figures(study, name, metric, values[name, metric], contrasts) for metric in study.metrics},
        "trials": trials,
    }


def _figures(
    study: ForecastStudy, arm: str, metric: str, values: Mapping[int, float], contrasts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "mean": fmean(values.values()) if values else None,
        "sd": stdev(values.values()) if len(values) > 1 else None,
        "values": {str(seed): value for seed, value in sorted(values.items())},
        "difference": None,
        "interval": None,
        "seeds": len(values),
        "verdict": None,
    }
    for contrast in contrasts:
        if (contrast["arm"], contrast["against"], contrast["metric"]) == (arm, study.baseline, metric):
            row |= {key: contrast[key] for key in ("difference", "interval", "verdict")}
            row["seeds"] = len(contrast["seeds"])
    return row


def _cost(study: ForecastStudy, name: str, trained: Mapping[str, Any]) -> dict[str, Any]:
    """What the curves that a forecaster learns from cost to train, those parts of targets that it sees included."""
    wanted, competitor = study.forecast, study.arms[name]
    shares = {run: 1.0 for run in wanted.learnt(competitor)}
    shares |= {run: float(competitor.seen) for run in wanted.predict if competitor.seen}
    runs = trained.get("arms") or {}
    cost: dict[str, Any] = {
        key: sum(share * (runs[run][key] or 0) for run, share in shares.items() if run in runs)
        for key in ("steps", "tokens", "flops", "seconds")
    }
    return {**cost, "peak_memory": max((runs[run]["peak_memory"] for run in shares if run in runs), default=0)}
