"""The guard: which steps it lets pass, when it stops a run, and that a resumed one judges alike."""

from __future__ import annotations

import json
import math

import pytest

from foretrain.errors import RunError
from foretrain.guard import WINDOW, Guard
from tests.tiny import tiny_trainer


def fed(guard: Guard, losses: list[float]) -> list[str]:
    return [guard.judge(step, loss, 1.0) for step, loss in enumerate(losses)]


def calm(count: int = WINDOW) -> list[float]:
    """A noisy curve around 2: its median is 2, its median absolute deviation 0.1."""
    return [2.0 + (0.1 if number % 2 else -0.1) for number in range(count)]


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_what_is_not_finite_is_skipped_from_the_first_step_on(loss: float, norm: float) -> None:
    guard = Guard(spike=None, patience=3)
    assert guard.judge(0, loss, norm) == "non-finite"
    assert guard.skipped == 1 and not guard.recent


def test_a_spike_lies_so_many_robust_deviations_above_the_median() -> None:
    threshold = 2.0 + 8 * 1.4826 * 0.1
    for loss, verdict in ((threshold - 0.001, "good"), (threshold + 0.001, "spike"), (-50.0, "good")):
        guard = Guard(spike=8.0, patience=3)
        assert set(fed(guard, calm())) == {"good"}
        assert guard.judge(WINDOW, loss, 1.0) == verdict


def test_nothing_is_a_spike_before_the_window_is_full_or_without_the_rule() -> None:
    assert Guard(8.0, 3).judge(0, 1e6, 1.0) == "good"
    guard = Guard(8.0, 3)
    fed(guard, calm(WINDOW - 1))
    assert guard.judge(WINDOW, 1e6, 1.0) == "good"
    guard = Guard(None, 3)
    fed(guard, calm())
    assert guard.judge(WINDOW, 1e6, 1.0) == "good"


def test_a_flat_curve_has_a_floor_of_two_percent() -> None:
    guard = Guard(8.0, 3)
    fed(guard, [2.0] * WINDOW)
    assert guard.judge(WINDOW, 2.0 + 8 * 0.04 - 0.001, 1.0) == "good"
    assert guard.judge(WINDOW, 2.0 + 8 * 0.04 + 0.01, 1.0) == "spike"


def test_a_skipped_loss_is_no_part_of_what_later_ones_are_judged_by() -> None:
    guard = Guard(8.0, 1000)
    fed(guard, calm())
    before = list(guard.recent)
    assert guard.judge(WINDOW, 100.0, 1.0) == "spike"
    assert list(guard.recent) == before


def test_patience_counts_bad_steps_in_a_row_alone() -> None:
    guard = Guard(None, patience=3)
    assert (
        fed(guard, [math.nan, math.nan, 1.0, math.nan, math.nan]) == ["non-finite"] * 2 + ["good"] + ["non-finite"] * 2
    )
    with pytest.raises(RunError, match=r"stopped at step 5: 3 bad steps in a row, the last one non-finite \(loss nan"):
        guard.judge(5, math.nan, 1.0)
    assert guard.skipped == 5


def test_a_resumed_guard_judges_as_one_that_was_never_stopped() -> None:
    losses = [*calm(), 3.0, 50.0, math.nan, 2.1, 3.1, 60.0]
    whole = Guard(8.0, 3)
    verdicts = fed(whole, losses)
    first = Guard(8.0, 3)
    fed(first, losses[: WINDOW + 2])
    second = Guard(8.0, 3)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert fed(second, losses[WINDOW + 2 :]) == verdicts[WINDOW + 2 :]
    assert second.state_dict() == whole.state_dict()
    assert whole.recent.maxlen == second.recent.maxlen == WINDOW


def test_another_stage_is_no_spike() -> None:
    """Its text may be harder by far than what was read so far; within a stage a loss like that is still one."""
    stages = {"first": {"weights": {"prose": 1}}, "second": {"weights": {"sums": 1}}}
    corpus = {"prose": {"path": "builtin:biographies"}, "sums": {"path": "builtin:arithmetic"}}
    one = tiny_trainer(8, corpus=corpus, stages=stages)
    for step in range(8):
        if step in (3, 4):  # losses that let any real one be a spike
            one.guard.recent.extend(calm(WINDOW))
            one.guard.recent.extend(value / 100 for value in calm(WINDOW))
        skipped = one.train_step().get("skipped")
        assert skipped == ("spike" if step == 3 else None), step


def test_another_loss_is_no_spike() -> None:
    two = {"first": {"objective": "causal_lm"}, "second": {"objective": "causal_lm"}}
    trainer = tiny_trainer(8, objective={"kind": "phases", "phases": two})
    for step in range(8):
        if step in (3, 4):  # losses that let any real one be a spike
            trainer.guard.recent.extend([0.001] * WINDOW)
        skipped = trainer.train_step().get("skipped")
        # The second phase begins with step 4.
        assert skipped == ("spike" if step == 3 else None), step
