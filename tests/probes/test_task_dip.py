"""The worst of each task so far, against the series itself."""

from __future__ import annotations

from typing import Any

import pytest

from foretrain.errors import RequestError
from foretrain.probes.task_dip import TaskDip
from foretrain.tasks.base import Measured
from foretrain.tasks.completion_loss import CompletionLoss
from tests.tiny import PROBLEMS, tiny_trainer

TASKS = {"sums": {"kind": "completion_loss", **PROBLEMS, "limit": 4}}


def _probe(trainer: Any) -> TaskDip:
    probe = trainer.probes[0]
    assert isinstance(probe, TaskDip)
    return probe


@pytest.mark.parametrize("higher", [True, False])
def test_the_worst_is_that_of_the_series(monkeypatch: pytest.MonkeyPatch, higher: bool) -> None:
    series = [0.5, 0.7, 0.2, 0.9, 0.4]
    given = iter(series)
    monkeypatch.setattr(
        CompletionLoss, "evaluate", lambda *_: {"x": Measured(next(given), None, None, 1, higher_is_better=higher)}
    )
    trainer = tiny_trainer(tasks=TASKS, probes=["task_dip"], overlap="warn")
    for place in range(len(series)):
        found = _probe(trainer).measure(trainer.context)
        worst = (min if higher else max)(series[: place + 1])
        assert found == {"sums/x": series[place], "sums/x/worst": worst, "sums/x/dip": pytest.approx(abs(0.5 - worst))}
        resumed = tiny_trainer(tasks=TASKS, probes=["task_dip"], overlap="warn")
        _probe(resumed).load_state_dict(_probe(trainer).state_dict())
        trainer = resumed


def test_it_is_what_the_task_says_of_the_model() -> None:
    trainer = tiny_trainer(tasks=TASKS, probes=[{"kind": "task_dip", "every": 2}], overlap="warn")
    start = trainer.measure()["probe/task_dip/sums/loss"]
    for _ in range(2):
        trainer.train_step()
    figures = trainer.measure()
    plan = trainer.plan
    subject = plan.modality.subject(trainer.learner.model, plan.tokenizer, plan.context)
    with trainer.learner.evaluating():
        now = plan.recipe.tasks["sums"].evaluate(subject, 0)["loss"].value
    assert figures["probe/task_dip/sums/loss"] == now != start
    assert figures["probe/task_dip/sums/loss/worst"] == max(start, now)


def test_without_tasks_there_is_nothing_to_measure() -> None:
    with pytest.raises(RequestError, match="it has none"):
        tiny_trainer(probes=["task_dip"])
