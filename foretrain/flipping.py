"""Flipping: two models on the same tasks, and every item that one of them gets right and the other does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foretrain.errors import RequestError, unknown_name
from foretrain.named_models import read_subject
from foretrain.tasks._flips import flipped, flips, sizes, wrong_otherwise
from foretrain.tasks.base import Measured, Task


def compare_flips(old: str, new: str, tasks: Mapping[str, Task], metric: str | None = None) -> dict[str, Any]:
    """Two models by their paths, on every task.

    Returns:
        `old` and `new` (the paths), and `tasks`: for each its `metric`, `items`, the value of `old` and `new`,
        `negative_flips`, `positive_flips` and `change` (`value`, `low`, `high`), `wrong_otherwise` (the share that is
        wrong in another way than before; None where the task does not tell answers), `mean_gain`, `mean_regression`,
        and `flipped`, every item that did.
    """
    subjects = {name: read_subject(path, name) for name, path in (("OLD", old), ("NEW", new))}
    context = min(subject.context for subject in subjects.values())
    for subject in subjects.values():
        subject.context = context
    compared = {}
    for name, task in tasks.items():
        task.check()
        both = [task.evaluate(subject, 0) for subject in subjects.values()]
        chosen = _metric(name, metric, both[1])
        before, after = (found[chosen] for found in both)
        otherwise = wrong_otherwise(before, after)
        compared[name] = {
            "metric": chosen,
            "items": after.items,
            "old": before.value,
            "new": after.value,
            **{key: measured.plain() for key, measured in flips(before, after).items()},
            "wrong_otherwise": None if otherwise is None else otherwise.plain(),
            **sizes(before, after),
            "flipped": flipped(before, after, list(task.texts())),
        }
    return {"old": old, "new": new, "tasks": compared}


def _metric(task: str, wanted: str | None, found: Mapping[str, Measured]) -> str:
    """The metric to compare: the one that is asked for, or the first that tells of single items."""
    known = [name for name, measured in found.items() if measured.values]
    if wanted is not None and wanted not in known:
        raise RequestError(f"--metric: {unknown_name(f'metric of task {task} that tells of items', wanted, known)}")
    if not known:
        raise RequestError(f"Task {task} tells nothing of single items, so flips cannot be counted.")
    return wanted or known[0]
