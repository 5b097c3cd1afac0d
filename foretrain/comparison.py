"""Comparison: runs side by side, and the difference of two recipes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from foretrain.run_directory import RunDirectory


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested plain data as dotted keys; items of lists are numbered, empty dicts and lists are leaves."""
    if isinstance(value, Mapping) and value:
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple) and value:
        items = enumerate(value)
    else:
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, child in items:
        leaves |= flat(child, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def recipe_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The keys in which two plain recipes differ, dotted, with both values (None where a recipe lacks the key).

    The same stages in another order are another `stages`.
    """
    left, right = flat(a), flat(b)
    keys = [*left, *(key for key in right if key not in left)]
    found = [(key, left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)]
    before, after = list(a.get("stages") or {}), list(b.get("stages") or {})
    if before != after and set(before) == set(after):
        found.append(("stages", ", ".join(before), ", ".join(after)))
    return found


def higher_is_better(name: str, results: Sequence[Mapping[str, Any] | None] = ()) -> bool | None:
    """Direction of a figure: what a result says of the task metric `task/NAME/METRIC`; losses fall; else None."""
    parts = name.split("/")
    for result in results:
        if parts[0] == "task" and len(parts) == 3:
            told = ((result or {}).get("tasks") or {}).get(parts[1]) or {}
            direction = told.get(parts[2]) if isinstance(told, Mapping) else None
            if isinstance(direction, Mapping) and isinstance(direction.get("higher_is_better"), bool):
                return bool(direction["higher_is_better"])
    return False if parts[-1] in ("loss", "bits_per_byte", "perplexity") else None


def compare(runs: Sequence[RunDirectory]) -> dict[str, Any]:
    """Runs side by side, as plain data.

    Returns:
        `runs`: name, path and status each; `metrics`: final figures with `values`, `low` and `high` per run and the
        number of the `best` one (None where the direction is unknown or fewer than two have it); `cost`: values per
        run; `recipe`: the keys that differ; `notes`: what makes some figures incomparable.
    """
    finals = [run.final() for run in runs]
    results = [run.result() for run in runs]
    names = dict.fromkeys(name for final in finals for name in final if name.startswith(("validation/", "task/")))
    if any("loss" in final for final in finals):
        names = {"loss": None, **names}
    metrics = []
    for name in names:
        if name.endswith(("/low", "/high")):
            continue
        row: dict[str, Any] = {"name": name, "values": [final.get(name) for final in finals]}
        for bound in ("low", "high"):
            row[bound] = [final.get(f"{name}/{bound}") for final in finals]
        row["best"] = _best(row["values"], higher_is_better(name, results))
        metrics.append(row)
    costs = [run.cost() for run in runs]
    recipes = [flat({key: value for key, value in run.recipe().items() if key != "name"}) for run in runs]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    return {
        "runs": [{"name": run.path.resolve().name, "path": str(run.path), "status": run.status()} for run in runs],
        "metrics": metrics,
        "cost": [{"name": name, "values": [cost[name] for cost in costs]} for name in (costs[0] if costs else ())],
        "recipe": [
            {"key": key, "values": [recipe.get(key) for recipe in recipes]}
            for key in keys
            if any(recipe.get(key) != recipes[0].get(key) for recipe in recipes)
        ],
        "notes": _notes(runs, costs),
    }


def _best(values: Sequence[float | None], higher: bool | None) -> int | None:
    known = [(value, number) for number, value in enumerate(values) if value is not None]
    if higher is None or len(known) < 2:
        return None
    value, number = max(known, key=lambda pair: pair[0]) if higher else min(known, key=lambda pair: pair[0])
    return number if sum(other == value for other, _ in known) == 1 else None


def _notes(runs: Sequence[RunDirectory], costs: Sequence[Mapping[str, float | None]]) -> list[str]:
    notes = []
    hashes = [run.plan().get("hashes") or {} for run in runs]
    if len({found.get("tokenizer") for found in hashes} - {None}) > 1:
        notes.append("The tokenizers differ: losses per token do not compare, bits per byte do.")
    corpora = [found.get("corpus") or {} for found in hashes]
    shared = [name for name in corpora[0] if all(name in corpus for corpus in corpora)] if corpora else []
    differ = [name for name in shared if any(corpus[name] != corpora[0][name] for corpus in corpora)]
    if differ:
        notes.append(f"The text of {', '.join(differ)} differs: figures on it do not compare.")
    spent = [cost["flops"] for cost in costs if cost["flops"]]
    if spent and max(spent) > 1.02 * min(spent):
        times = max(spent) / min(spent)
        notes.append(f"The budgets differ: the largest run cost {times:.2f} times the FLOPs of the smallest.")
    unfinished = [run.path.resolve().name for run in runs if run.status() != "done"]
    if unfinished:
        notes.append(f"Not finished: {', '.join(unfinished)}.")
    return notes
