"""Claims on many interventions in one run: what such a study compares, and what it found in the form of `study.json`.

The figures of the full runs keep their names; those of the interference test are named `check/INTERVENTION`. So an
expectation names its comparison as in any claim: `{arm: joint, against: facts, metric: facts}` is the joint run against
a run of its own, `{arm: joint, metric: validation/loss}` what all of them do to the model, `{arm: control, metric:
check/facts}` the control, and `{arm: others, metric: check/facts}` whatever disturbs `facts` most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from foretrain.errors import unknown_name
from foretrain.files import read_json
from foretrain.studies.interference import CONTROL, JOINT, UNTOUCHED
from foretrain.studies.train_once import FILE, VALIDATION, TrainOnceStudy

CHECK = "check/"
"""Before the name of an intervention: its metric in the interference test."""
OTHERS = "others"
"""Stands for the intervention that changes another one's metric most."""

Comparison = tuple[str, str, str]
"""Arm, what it is compared with, and the metric."""


def comparisons(study: TrainOnceStudy) -> list[Comparison]:
    """Everything that such a study compares."""
    names, once = study.names, study.train_once
    found = [(JOINT, UNTOUCHED, name) for name in [*names, VALIDATION]]
    if once.solo:
        found += [(JOINT, name, name) for name in names]
    if once.check is not None:
        acting = [*names, OTHERS, JOINT, *([CONTROL] if study.disturbed else [])]
        found += [(arm, UNTOUCHED, CHECK + name) for name in names for arm in acting]
        found += [(JOINT, name, CHECK + name) for name in names]
    return found


def unknown(expected: Mapping[str, Any], study: TrainOnceStudy) -> Iterator[str]:
    """What an expectation names that the study does not compare."""
    made = comparisons(study)
    arm, against, metric = expected.get("arm"), expected.get("against") or UNTOUCHED, expected.get("metric")
    metrics = list(dict.fromkeys(each for _, _, each in made))
    if not isinstance(metric, str):
        return
    if metric not in metrics:
        yield f"metric: {unknown_name('metric', metric, metrics)}"
        return
    pairs = [(one, other) for one, other, each in made if each == metric]
    if isinstance(arm, str) and (arm, against) not in pairs:
        told = ", ".join(f"[{one}, {other}]" for one, other in pairs)
        yield f"arm: [{arm}, {against}] is no comparison of the study on {metric}; there are: {told}"


def arms_as_written(study: Mapping[str, Any]) -> dict[str, Any]:
    """What each arm puts in, from the study in a claim's file: its interventions as they are written, and the control.

    Empty where the study is not of this kind.
    """
    once = study.get("train_once")
    if not isinstance(once, Mapping):
        return {}
    arms: dict[str, Any] = {UNTOUCHED: {}, JOINT: {"interventions": "all"}}
    for name, found in (once.get("interventions") or {}).items():
        arms[str(name)] = {key: value for key, value in found.items() if key != "metric"}
    control = (once.get("check") or {}).get("control")
    return arms | ({CONTROL: dict(control)} if control else {})


def as_study(folder: Path) -> dict[str, Any]:
    """What such a study left in its directory, in the form of `study.json`.

    Costs of an arm are those of its full runs, or of its short ones where it has no others; totals are of everything.
    """
    once = read_json(folder / FILE)
    full, check = (_part(folder / part / "study.json", told) for part, told in _parts(once).items())
    main = full or check
    metrics, noise = dict(full.get("metrics", {})), dict(full.get("noise", {}))
    arms: dict[str, Any] = {name: dict(arm) for name, arm in full.get("arms", {}).items()}
    for name, metric in check.get("metrics", {}).items():
        metrics[CHECK + name], noise[CHECK + name] = metric, check["noise"][name]
    for name, short in check.get("arms", {}).items():
        read = {CHECK + each: figures for each, figures in short["metrics"].items()}
        if name in arms:
            arms[name]["metrics"] = {**arms[name]["metrics"], **read}
            arms[name]["failed"] += short["failed"]
            arms[name]["trials"] = [*arms[name]["trials"], *short["trials"]]
        else:
            arms[name] = {**short, "metrics": read}
    totals = {key: sum(part["totals"][key] for part in (full, check) if part) for key in ("trials", "seconds")}
    return {
        "format": 1,
        **{key: main.get(key) for key in ("baseline", "seeds", "alpha", "match")},
        "name": once["name"],
        "metrics": metrics,
        "arms": arms,
        "contrasts": list(_contrasts(once)),
        "second": [],
        "noise": noise,
        "totals": {**totals, "flops": once["cost"]["flops"]},
        "notes": [*(once["check"]["words"] if once["check"] else ()), *_saved(once)],
    }


def _parts(once: Mapping[str, Any]) -> dict[str, Any]:
    return {"full": once["full"], "check": once["check"]}


def _part(path: Path, told: Any) -> dict[str, Any]:
    """The study of one part; empty where it was not run (a folder may hold one of an earlier call)."""
    return dict(read_json(path)) if told is not None else {}


def _contrasts(once: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    full, solo, check = once["full"], once["solo"], once["check"]
    if full is not None:
        for name, cell in [*full["verdicts"].items(), (VALIDATION, full["validation"])]:
            yield _contrast(cell, JOINT, UNTOUCHED, name)
    for name, cell in (solo or {}).items():
        yield _contrast(cell, JOINT, name, name)
    if check is None:
        return
    rows = {
        **check["matrix"],
        JOINT: check["joint"],
        **({CONTROL: check["control"]["cells"]} if check["control"] else {}),
    }
    for arm, cells in rows.items():
        for name, cell in cells.items():
            yield _contrast(cell, arm, UNTOUCHED, CHECK + name)
    for name, cell in check["kept"].items():
        yield _contrast(cell, JOINT, name, CHECK + name)
    for name in check["interventions"]:
        acting, cell = _largest(check["matrix"], name)
        yield _contrast({**cell, "words": f"{acting}: {cell['words']}"}, OTHERS, UNTOUCHED, CHECK + name)


def _contrast(cell: Mapping[str, Any], arm: str, against: str, metric: str) -> dict[str, Any]:
    return {**cell, "arm": arm, "against": against, "metric": metric, "judged": True, "share": 1.0}


_CALM = {"better": 0, "worse": 0, "undecided": 1, "no difference": 2}


def _largest(matrix: Mapping[str, Any], read: str) -> tuple[str, Mapping[str, Any]]:
    """The intervention that departs most from leaving the metric of another alone, and its cell.

    One that differs comes before one that is undecided, and that before one that makes no difference.
    """

    def calm(acting: str) -> tuple[int, float]:
        cell = matrix[acting][read]
        return _CALM[cell["verdict"]], 1.0 if cell["p_adjusted"] is None else cell["p_adjusted"]

    acting = min((name for name in matrix if name != read), key=calm)
    return acting, matrix[acting][read]


def _saved(once: Mapping[str, Any]) -> list[str]:
    saved = once["cost"]["saved"]
    if saved is None or once["solo"] is not None:
        return []
    return [f"It cost {100 * saved:.0f} % less than a run for each intervention."]
