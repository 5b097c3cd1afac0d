"""Analysis: from the trials of a study to its verdicts: everything that `study.json` says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from foretrain.comparison import recipe_difference
from foretrain.studies.planning import ArmPlan, Products
from foretrain.studies.refusals import CLOSE
from foretrain.studies.statistics import Contrast, Direction, Floor, judge, noise_floor, paired
from foretrain.studies.study import Study
from foretrain.studies.trials import Trial, value

FORMAT = 1
"""Version of the format of `study.json`."""


@dataclass
class Findings:
    """A study whose trials have run.

    Attributes:
        trials: by arm, the larger baselines of second verdicts included.
        errors: what went wrong, by arm and seed.
        stopped: arms that ended early, with the share of the budget at which they did.
        higher: whether a higher figure is better, by metric.
        floors: seed noise measured elsewhere, by metric, and where.
    """

    study: Study
    folder: Path
    plans: Mapping[str, ArmPlan]
    trials: Mapping[str, Sequence[Trial]]
    products: Products
    errors: Mapping[tuple[str, int], str]
    stopped: Mapping[str, float]
    higher: Mapping[str, bool]
    largest_difference: float
    floors: tuple[Mapping[str, Floor], str] | None = None
    notes: Sequence[str] = ()
    _values: dict[tuple[str, str, float], dict[int, float]] = field(default_factory=dict)

    def values(self, arm: str, metric: str, share: float) -> dict[int, float]:
        """A metric of an arm by seed, at a share of the budget; seeds without it are left out."""
        key = (arm, metric, share)
        if key not in self._values:
            wanted = self.study.metrics[metric]
            bases = {trial.seed: trial for trial in self.trials[self.study.baseline]}
            found = {
                trial.seed: value(wanted, wanted.figure or metric, self.higher[metric], trial, bases[trial.seed], share)
                for trial in self.trials[arm]
                if (arm, trial.seed) not in self.errors and (arm, trial.seed) not in self._base_failed(metric)
            }
            self._values[key] = {seed: number for seed, number in found.items() if number is not None}
        return self._values[key]

    def _base_failed(self, metric: str) -> set[tuple[str, int]]:
        """Trials whose figure is read against a baseline that failed."""
        if self.study.metrics[metric].at != "reached":
            return set()
        lost = [seed for arm, seed in self.errors if arm == self.study.baseline]
        return {(arm, seed) for arm in self.trials for seed in lost}

    def direction(self, metric: str) -> Direction:
        """Which way of a metric is better; what was reached early is, whichever way its figure goes."""
        reached = self.study.metrics[metric].at == "reached"
        return "higher" if self.higher[metric] and not reached else "lower"

    def share(self, arm: str) -> float:
        """The share of its budget that an arm was given."""
        return self.stopped.get(arm, 1.0)

    def floor(self, metric: str) -> tuple[Floor, str]:
        """The seed noise of a metric, and where it was measured."""
        if self.floors is not None and metric in self.floors[0]:
            return self.floors[0][metric], self.floors[1]
        own = self.values(self.study.baseline, metric, 1.0)
        return noise_floor(list(own.values())), "this study's baseline"

    def smallest(self, metric: str) -> float | None:
        """The smallest difference of a metric that matters, in its own unit; None where the noise is not known."""
        wanted = self.study.metrics[metric]
        if wanted.difference is not None:
            return wanted.difference
        noise = self.floor(metric)[0].sd
        return None if noise is None else (wanted.noise or 1.0) * noise


def study_data(findings: Findings) -> dict[str, Any]:
    """`study.json` as plain data."""
    study = findings.study
    contrasts = _contrasts(findings, study.planned())
    second = _contrasts(
        findings, [(plan.against, name) for name, plan in findings.plans.items() if plan.against is not None]
    )
    totals = _totals(findings)
    return {
        "format": FORMAT,
        "name": study.name,
        "question": study.question,
        "baseline": study.baseline,
        "seeds": study.seeds,
        "alpha": study.alpha,
        "match": {
            "unit": study.match,
            "budget": findings.plans[study.baseline].total("flops" if study.match == "none" else study.match),
            "largest_difference": findings.largest_difference,
            "reason": study.reason or None,
        },
        "metrics": {name: _metric(findings, name) for name in study.metrics},
        "arms": {name: _arm(findings, name, contrasts) for name in findings.plans},
        "contrasts": contrasts,
        "second": second,
        "noise": {name: _noise(findings, name) for name in study.metrics},
        "products": findings.products.plain(),
        "totals": totals,
        "notes": [*findings.notes, *_off_plan(findings)],
    }


def _metric(findings: Findings, name: str) -> dict[str, Any]:
    metric = findings.study.metrics[name]
    return {
        "figure": metric.figure or name,
        "at": metric.at,
        "direction": findings.direction(name),
        "smallest": findings.smallest(name),
        "noise_units": None if metric.difference is not None else metric.noise or 1.0,
        "judged": metric.judged,
    }


def _noise(findings: Findings, name: str) -> dict[str, Any]:
    floor, source = findings.floor(name)
    return {"sd": floor.sd, "low": floor.low, "high": floor.high, "seeds": floor.seeds, "source": source}


def _contrasts(findings: Findings, pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """The pairs on every metric: those that are judged as one family, the others each for itself."""
    made: list[tuple[dict[str, Any], Contrast, bool]] = []
    for metric, wanted in findings.study.metrics.items():
        smallest, noise = findings.smallest(metric), findings.floor(metric)[0].sd
        for arm, against in pairs:
            share = min(findings.share(arm), findings.share(against))
            contrast = paired(
                findings.values(arm, metric, share),
                findings.values(against, metric, share),
                direction=findings.direction(metric),
                smallest=0.0 if smallest is None else smallest,
                noise=noise,
                failed=_missing(findings, arm, metric, share),
                failed_against=_missing(findings, against, metric, share),
            )
            labels: dict[str, Any] = {"arm": arm, "against": against, "metric": metric, "share": share}
            made.append((labels, contrast, wanted.judged))
    alpha = findings.study.alpha
    family = iter(judge([contrast for _, contrast, judged in made if judged], alpha))
    rows = []
    for labels, contrast, judged in made:
        verdict = next(family) if judged else judge([contrast], alpha)[0]
        row = {**labels, **verdict.plain(), "smallest": findings.smallest(labels["metric"]), "judged": judged}
        if not judged:
            row |= {"verdict": None, "more_seeds": None}
        rows.append(row)
    return rows


def _missing(findings: Findings, arm: str, metric: str, share: float) -> int:
    """Trials of an arm that gave no figure: those that failed, and those that never reached what was to be reached."""
    return len(findings.trials[arm]) - len(findings.values(arm, metric, share))


def _arm(findings: Findings, name: str, contrasts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    plan, trials = findings.plans[name], findings.trials[name]
    rows = [_trial(findings, trial) for trial in trials]
    ran = [row for row in rows if row["status"] != "failed"] or rows
    share = findings.share(name)
    return {
        "changes": [list(change) for change in _changes(findings, name)],
        **{key: _mean([row[key] for row in ran]) for key in ("steps", "tokens", "flops", "seconds")},
        "peak_memory": max(row["peak_memory"] for row in ran),
        "one_off_flops": plan.one_off,
        "tuning_flops": plan.tuning_flops,
        "tuned": dict(plan.tuned) if plan.tuned is not None else None,
        "stopped": findings.stopped.get(name),
        "failed": sum(row["status"] == "failed" for row in rows),
        "control_for": plan.against,
        "metrics": {metric: _figures(findings, name, metric, share, contrasts) for metric in findings.study.metrics},
        "trials": rows,
    }


def _mean(values: Sequence[float]) -> float:
    """Their mean; a whole number where all are the same one."""
    return values[0] if len(set(values)) == 1 else fmean(values)


def _figures(
    findings: Findings, arm: str, metric: str, share: float, contrasts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    values = findings.values(arm, metric, share)
    row: dict[str, Any] = {
        "mean": fmean(values.values()) if values else None,
        "sd": stdev(values.values()) if len(values) > 1 else None,
        "values": {str(seed): number for seed, number in values.items()},
        "difference": None,
        "interval": None,
        "seeds": len(values),
        "verdict": None,
    }
    for contrast in contrasts:
        named = (contrast["arm"], contrast["against"], contrast["metric"])
        if named == (arm, findings.study.baseline, metric):
            row |= {key: contrast[key] for key in ("difference", "interval", "verdict")}
            row["seeds"] = len(contrast["seeds"])
    return row


def _trial(findings: Findings, trial: Trial) -> dict[str, Any]:
    arm = trial.plan.name
    error = findings.errors.get((arm, trial.seed))
    stopped = arm in findings.stopped
    return {
        "seed": trial.seed,
        "status": "failed" if error is not None else "stopped" if stopped else "done",
        "path": str(trial.judged.path.relative_to(findings.folder)),
        "error": None if error is None else _without_places(findings, error),
        **trial.cost(),
        "skipped": int((trial.judged.result() or {}).get("skipped") or 0),
    }


def _without_places(findings: Findings, error: str) -> str:
    """An error without what is another one each time: the study's folder, and which worker had the trial."""
    return re.sub(r"\bworker-\d+\b", "worker-K", error.replace(f"{findings.folder}/", ""))


def _off_plan(findings: Findings) -> list[str]:
    """A note on every arm whose trials took other FLOPs than they were matched by."""
    notes = []
    for name, plan in findings.plans.items():
        spent = [trial.cost()["flops"] for trial in findings.trials[name] if trial.done]
        planned = plan.total("flops")
        off = max((abs(flops - planned) for flops in spent), default=0.0)
        if off > max(CLOSE * planned, plan.step("flops")):
            notes.append(
                f"{name} was matched by {planned:.4g} FLOPs a trial, and its trials took from {min(spent):.4g} to "
                f"{max(spent):.4g}: the comparison is not at an equal cost."
            )
    return notes


def _changes(findings: Findings, name: str) -> list[tuple[str, Any, Any]]:
    """What makes an arm's recipes other than the baseline's: key, there, here."""
    base = findings.trials[findings.study.baseline][0].recipes[0]
    found: dict[str, tuple[str, Any, Any]] = {}
    for recipe in findings.trials[name][0].recipes:
        for key, there, here in recipe_difference(base, recipe):
            if key not in ("name", "seed"):
                found.setdefault(f"{key}={here}", (key, there, here))
    arm = findings.plans[name].arm
    if arm.start is not None and arm.start != findings.plans[findings.study.baseline].arm.start:
        found["start"] = ("start", findings.plans[findings.study.baseline].arm.start, arm.start)
    if arm.merge is not None:
        found["merge"] = ("merge", None, arm.merge.model_dump(mode="json"))
    return list(found.values())


def _totals(findings: Findings) -> dict[str, Any]:
    costs = [trial.cost() for trials in findings.trials.values() for trial in trials]
    tuning = sum(plan.tuning_flops for plan in findings.plans.values())
    saved = 0.0
    for name, share in findings.stopped.items():
        # A trial that ran to its end before the rule was asked saved nothing.
        ended = sum(not trial.done for trial in findings.trials[name])
        saved += ended * (1 - share) * findings.plans[name].total("flops")
    return {
        "trials": len(costs),
        "flops": sum(cost["flops"] for cost in costs) + tuning,
        "tuning_flops": tuning,
        "saved_flops": saved,
        "seconds": sum(cost["seconds"] for cost in costs),
    }
