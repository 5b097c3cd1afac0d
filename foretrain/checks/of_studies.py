"""What parts around a run promise: trackers, merges and their rules, executors, stopping rules."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from foretrain.checks.promises import need, title
from foretrain.checks.trial import (
    STEPS,
    Figures,
    check_figures,
    files,
    finished,
    trial,
)
from foretrain.errors import RequestError
from foretrain.merging.evaluating import evaluate_merge
from foretrain.merging.vectors import TaskVectors
from foretrain.merging.weights import open_weights
from foretrain.run_directory import RunDirectory
from foretrain.studies.executors import base as executors
from foretrain.studies.executors.base import Job, Outcome
from foretrain.trackers import base as trackers


def check_tracker(part: Any, recipe: Figures) -> None:
    """A missing package is named in words."""
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(trackers, "importlib", SimpleNamespace(import_module=_no_module)),
    ):
        for _ in range(2):  # the second time as after a resume
            tracker = part.model_copy(deep=True)
            try:
                tracker.start(Path(folder), "check", {"seed": 0})
            except RequestError as error:
                need("pip install" in str(error), f"{title(part)}: a missing package is not named in words ({error})")
                return
            tracker.log(1, {"loss": 1.0})
            tracker.finish()


def _no_module(name: str) -> Any:
    raise ImportError(f"No module named '{name}'", name=name)


def check_merge(part: Any, recipe: Figures) -> None:
    """The same members give the same figures, and are left as they were; the result reads as a run."""
    with tempfile.TemporaryDirectory() as folder:
        changes = {"checkpoint": {"every": 1, "keep": STEPS}, **recipe}
        runs = [finished({**changes, "seed": seed}, Path(folder) / f"{seed}") for seed in (0, 1)]
        before = [files(run.path) for run in runs]
        part.check(runs[0].load_recipe(), STEPS)
        for name in ("one", "several"):
            members = runs[:1] if name == "one" else runs
            found = evaluate_merge(part, members, Path(folder) / name)
            check_figures(part, found["validation"])
            opened = RunDirectory.open(Path(folder) / name)
            need(opened.status() == "done", f"{title(part)}: what it leaves does not read as a run that has ended")
            again = evaluate_merge(part, members, Path(folder) / f"{name}-again")
            need(found["validation"] == again["validation"], f"{title(part)}: merging twice gives other figures")
        need(before == [files(run.path) for run in runs], f"{title(part)} changes its members")


def check_rule(part: Any, recipe: Figures) -> None:
    """The same vectors come to the same one, of their shapes; nothing moves against what all of them changed."""
    with tempfile.TemporaryDirectory() as folder:
        base, tuned = (open_weights("check", _fresh({**recipe, "seed": seed}, Path(folder))) for seed in (0, 1))
        for count in (1, 2):
            vectors = TaskVectors(base, [tuned] * count)
            first, again = part.over(vectors), part.over(vectors)
            for name, differences in vectors:
                made, found = first(name, differences), again(name, differences)
                need(made.shape == differences[0].shape, f"{title(part)}: '{name}' comes out in another shape")
                need(bool(made.isfinite().all()), f"{title(part)}: '{name}' is not finite")
                need(bool((made == found).all()), f"{title(part)}: merging twice gives other weights")
                signs = (made * differences[0] >= 0).all()
                need(bool(signs), f"{title(part)}: '{name}' moves against all of its vectors")


def _fresh(recipe: dict[str, Any], folder: Path) -> Path:
    """The model of a trial recipe before it is trained, as a folder."""
    plan: Any = trial(recipe).plan
    made = folder / str(recipe["seed"])
    plan.build_model().save_pretrained(made)
    plan.processor.save(made)
    return made


def check_executor(part: Any, recipe: Figures) -> None:
    """Every job is answered once, failures and refusals in words."""
    jobs = [
        Job("good", "foretrain.checks.sample_jobs:answer", {"figures": [1, 2.5, None], "text": "naïve\n"}),
        Job("bad", "foretrain.checks.sample_jobs:fail", {"error": "it failed"}),
        Job("wrong", "foretrain.checks.sample_jobs:refuse", {"error": "it was refused"}),
    ]
    expected = {
        "good": Outcome(jobs[0], jobs[0].payload, None, "done"),
        "bad": Outcome(jobs[1], None, "it failed", "failed"),
        "wrong": Outcome(jobs[2], None, "it was refused", "refused"),
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(executors, "importlib", SimpleNamespace(import_module=_no_module)),
    ):
        try:
            pool = part.open(Path(folder))
        except RequestError as error:
            need("pip install" in str(error), f"{title(part)}: a missing package is not named in words ({error})")
            return
        need(pool.slots >= 1, f"{title(part)}: its pool has no slot")
        with pool:
            for time in ("once", "again"):
                found = {outcome.job.name: outcome for outcome in pool.run(jobs)}
                need(found == expected, f"{title(part)}: asked {time}, three jobs came to {list(found.values())}")


def check_stopping(part: Any, recipe: Figures) -> None:
    """Rungs rise, and what is stopped depends on the figures alone."""
    rungs = part.rungs()
    need(list(rungs) == sorted(set(rungs)), f"{title(part)}: its rungs do not rise ({rungs})")
    need(all(0 < rung < 1 for rung in rungs), f"{title(part)}: a rung is no share of a budget ({rungs})")
    figures = {f"arm{number}": {seed: float(number * number) for seed in range(3)} for number in range(5)}
    for rung in rungs:
        for baseline in figures:
            ended = part.stopped(rung, figures, baseline)
            need(ended <= set(figures) - {baseline}, f"{title(part)}: it stops {sorted(ended)}, baseline {baseline}")
            need("arm0" not in ended, f"{title(part)}: it stops the best arm of all")
            need(ended == part.stopped(rung, figures, baseline), f"{title(part)}: it decides differently each time")
        need(part.stopped(rung, {**figures, "arm4": {}}, "arm0") is not None, f"{title(part)}: an arm may have failed")
