"""Tasks of lm-eval, by name or from a folder of YAML files, over anything that foretrain evaluates (extra `[eval]`)."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from foretrain.errors import RequestError, unknown_name
from foretrain.parts import Facts
from foretrain.section import Count, DataPath
from foretrain.tasks.base import Evaluated, Measured, Task
from foretrain.tasks.statistics import mean, proportion

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager


class LmEval(Task):
    """Runs tasks of the Language Model Evaluation Harness.

    Metrics have the names they have there, such as `acc` and `acc_norm`; those of a filter other than `none` are
    `METRIC/FILTER`, and where there are several tasks (a group, a tag, a list) each name begins with `TASK/`. Where a
    metric is a mean over items, its interval is computed from the items as for every other task; otherwise it comes
    from lm-eval's standard error, where it gives one.
    """

    kind: Literal["lm_eval"] = "lm_eval"
    facts: ClassVar[Facts] = Facts(
        paper="Lessons from the Trenches on Reproducible Evaluation of Language Models",
        arxiv="2405.14782",
        year=2024,
        answers="how does it do on the field's common tasks?",
    )

    task: str | list[str] = Field(min_length=1)
    """Names of tasks, groups or tags of lm-eval, or of those in `include`."""
    include: DataPath | None = None
    """A folder of task definitions (YAML), searched first; data may be local files, so nothing need be downloaded."""
    shots: Count | None = Field(None, ge=0)
    """How many worked examples stand before each item; unset: what the task says."""
    limit: Count | None = Field(None, gt=1)
    """Use at most this many items of each task, from the beginning."""

    def check(self) -> None:
        """See that the extra is there and the tasks can be loaded."""
        self._load()

    def texts(self) -> Iterable[str]:
        """Each item as running text: its prompt, and its answer where that is text."""
        for task in self._load()["tasks"].values():
            for number, document in enumerate(task.eval_docs):
                if self.limit is not None and number >= self.limit:
                    break
                target = task.doc_to_target(document)
                answers = target if isinstance(target, str) else ""
                if isinstance(target, int) and task.get_config("doc_to_choice") is not None:
                    answers = str(task.doc_to_choice(document)[target])
                yield f"{task.doc_to_text(document)} {answers}".strip()

    def evaluate(self, subject: Evaluated, seed: int) -> dict[str, Measured]:
        """See the class."""
        loaded = self._load()
        from lm_eval.evaluator import evaluate

        from foretrain.tasks._harness import Harness

        for task in loaded["tasks"].values():
            if self.shots is not None:
                task.set_config(key="num_fewshot", value=self.shots)
            elif task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=1234)
        harness = Harness(subject)
        with _apart():
            results: Any = evaluate(lm=harness, task_dict=loaded, limit=self.limit, bootstrap_iters=1000)
        measured: dict[str, Measured] = {}
        several = len(results["results"]) > 1
        for name, figures in results["results"].items():
            samples = results["samples"].get(name, [])
            for key, value in figures.items():
                metric, comma, chosen = key.partition(",")
                if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                    continue
                label = metric if chosen == "none" else f"{metric}/{chosen}"
                higher = bool(results["higher_is_better"].get(name, {}).get(metric, True))
                error = figures.get(f"{metric}_stderr,{chosen}")
                one = _measured(float(value), error, higher, metric, [s for s in samples if s["filter"] == chosen])
                measured[f"{name}/{label}" if several else label] = one
        return measured

    def _load(self) -> dict[str, Any]:
        if find_spec("lm_eval") is None:
            raise RequestError("A task of kind lm_eval needs the extra [eval]: pip install 'foretrain[eval]'.")
        names = [self.task] if isinstance(self.task, str) else self.task
        # Those in the folder may do without lm-eval's own thousands, which take seconds to look through.
        managers = [False, True] if self.include is not None else [True]
        fault: Exception | None = None
        with _apart():
            for defaults in managers:
                manager = _manager(self.include, defaults)
                if set(names) <= set(manager.all_tasks):
                    try:
                        return dict(manager.load(names))
                    except Exception as error:  # Whatever a definition or the reading of its data runs into.
                        fault = error
        if fault is None:
            unknown = next(name for name in names if name not in manager.all_tasks)
            own = _manager(self.include, False).all_tasks if self.include is not None else []
            raise RequestError(f"lm_eval: {unknown_name('task', unknown, own or manager.all_tasks)}")
        reason = (str(fault).strip() or type(fault).__name__).splitlines()[0]
        raise RequestError(
            f"lm_eval: the tasks {', '.join(names)} cannot be loaded ({reason}). Tasks that come with lm-eval download "
            "their data; a folder of your own definitions (`include`) can name local files instead."
        ) from fault


@cache
def _manager(include: str | None, defaults: bool) -> TaskManager:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=include, include_defaults=defaults)


def _measured(value: float, error: Any, higher: bool, metric: str, samples: list[dict[str, Any]]) -> Measured:
    """One figure of lm-eval: with an interval from its items if it is their mean, else from the standard error."""
    values = [sample.get(metric) for sample in samples]
    plain = [float(v) for v in values if isinstance(v, bool | int | float | np.number)]
    if plain and len(plain) == len(values) and np.isclose(sum(plain) / len(plain), value, rtol=1e-9, atol=1e-12):
        if higher and set(plain) <= {0.0, 1.0}:
            return proportion([v == 1.0 for v in plain])
        return mean(plain, higher_is_better=higher)
    if isinstance(error, int | float):
        return Measured(value, value - 1.96 * error, value + 1.96 * error, len(samples), higher)
    return Measured(value, None, None, len(samples), higher)


@contextmanager
def _apart() -> Iterator[None]:
    """What runs inside leaves the global generators as they were (and starts from fixed seeds), and prints nothing."""
    python, numpy = random.getstate(), np.random.get_state()
    log = logging.getLogger("lm_eval")
    level = log.level
    with torch.random.fork_rng(), open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        log.setLevel(logging.ERROR)
        random.seed(0)
        np.random.seed(1234)
        torch.manual_seed(1234)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            log.setLevel(level)
