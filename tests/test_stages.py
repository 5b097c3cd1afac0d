"""Stages: which steps they have, what they read, how the rate moves, side branches, and what is said of forgetting."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foretrain.checkpoints.tree import decode, encode
from foretrain.comparison import recipe_difference
from foretrain.errors import RequestError
from foretrain.recipe import make_recipe
from foretrain.schedules.constant import Constant
from foretrain.schedules.cosine import Cosine
from foretrain.stages import Stage, Timeline, Transfer
from tests.tiny import tiny_data, tiny_plan, tiny_trainer

CORPUS = {
    "prose": {"path": "builtin:biographies", "options": {"people": 150}, "validation": 0.2},
    "sums": {"path": "builtin:arithmetic", "options": {"count": 120}, "validation": 0.2},
}
TWO = {"first": {"weights": {"prose": 1}}, "second": {"weights": {"prose": 1, "sums": 3}}}


def _timeline(total: int = 12, start: int = 0, schedule: Any = None, **stages: dict[str, Any]) -> Timeline:
    made = {name: Stage.model_validate(stage) for name, stage in stages.items()}
    return Timeline(made, {"prose": 0.5, "sums": 0.5}, schedule or Constant(warmup=0), start, total)


@given(st.integers(0, 50), st.integers(20, 300), st.lists(st.floats(0.2, 5), min_size=1, max_size=6))
def test_stages_share_out_every_step(start: int, steps: int, shares: list[float]) -> None:
    stages = {f"s{number}": {"weights": {"prose": 1}, "share": share} for number, share in enumerate(shares)}
    try:
        periods = _timeline(start + steps, start, **stages).stages
    except RequestError as error:
        assert "share" in str(error) and min(shares) / sum(shares) * steps < 1.5
        return
    assert periods[0].first == start and periods[-1].end == start + steps
    assert all(before.end == after.first for before, after in pairwise(periods))
    for period, share in zip(periods, shares, strict=True):
        assert abs((period.end - period.first) - steps * share / sum(shares)) <= 1


def test_a_run_without_stages_is_one_period_on_the_schedule() -> None:
    timeline = Timeline({}, {"prose": 1.0}, Cosine(warmup=0.25), 4, 20)
    assert [(period.name, period.end, period.branch) for period in timeline.stages] == [("", 20, 20)]
    assert [timeline.factor(step) for step in range(4, 20)] == [Cosine(warmup=0.25).factor(i, 16) for i in range(16)]
    assert timeline.ended(20) is None and timeline.plain() == []


def test_a_schedule_of_a_stage_begins_anew_and_others_go_on() -> None:
    own = {"weights": {"sums": 1}, "schedule": {"kind": "cosine", "warmup": 2}, "peak": 0.5}
    timeline = _timeline(12, schedule=Cosine(warmup=0), first={"weights": {"prose": 1}}, second=own)
    assert [timeline.factor(step) for step in range(6)] == [Cosine(warmup=0).factor(step, 12) for step in range(6)]
    expected = [0.5 * Cosine(warmup=2).factor(step, 6) for step in range(6)]
    assert [timeline.factor(step) for step in range(6, 12)] == expected


def test_weights_are_shares_of_every_domain() -> None:
    second = _timeline(first={"weights": {"prose": 2}}, second={"weights": {"prose": 1, "sums": 3}}).stages[1]
    assert second.weights == {"prose": 0.25, "sums": 0.75}


def test_a_stage_reads_its_mixture_from_its_first_step_on() -> None:
    trainer = tiny_trainer(8, corpus=CORPUS, stages=TWO, budget={"steps": 8})
    seen = []
    for _ in range(8):
        drawn = trainer.stream.batch()["domain"]
        seen.append(sorted({trainer.stream.domains[number] for number in drawn.tolist()}))
        figures = trainer.train_step()
        assert math.isclose(sum(figures[f"domain/{name}/weight"] for name in CORPUS), 1)
    assert seen[:4] == [["prose"]] * 4
    assert all("sums" in each for each in seen[4:])


@pytest.mark.parametrize("lengths", [(1, 7), (2, 6), (3, 5)])
def test_the_first_stage_may_be_shorter_than_the_lag(lengths: tuple[int, int]) -> None:
    stages = {
        "a": {"weights": {"sums": 1}, "share": lengths[0]},
        "b": {"weights": {"prose": 1}, "share": lengths[1]},
    }
    trainer = tiny_trainer(8, corpus=CORPUS, stages=stages)
    read = []
    for _ in range(8):
        read += [trainer.stream.domains[int(trainer.stream.batch()["domain"][0])]]
        trainer.train_step()
    assert read == ["sums"] * lengths[0] + ["prose"] * lengths[1]


def test_the_whole_mixture_is_that_of_all_stages() -> None:
    stages = {"a": {"weights": {"prose": 1}, "share": 3}, "b": {"weights": {"sums": 1}}}
    plan = tiny_plan(corpus=CORPUS, stages=stages)
    assert plan.weights == {"prose": 0.75, "sums": 0.25}
    assert [(stage["name"], stage["first"], stage["end"]) for stage in plan.plain()["stages"]] == [
        ("a", 0, 6),
        ("b", 6, 8),
    ]


def test_a_side_branch_is_left_behind() -> None:
    constant = {"kind": "constant", "warmup": 0}
    branch = {"a": {"weights": {"prose": 1}, "branch": 2, "schedule": constant}, "b": {"weights": {"sums": 1}}}
    trainer = tiny_trainer(8, corpus=CORPUS, stages=branch)
    states = []
    for _ in range(4):
        states.append(copy.deepcopy(trainer.moving.take()))
        trainer.train_step()
    ended = trainer.moving.take()
    trainer.branches.enter(4, trainer.timeline)
    back = trainer.moving.take()
    for name, weight in back["model"].items():
        assert torch.equal(weight, states[2]["model"][name])
    assert any(not torch.equal(weight, ended["model"][name]) for name, weight in back["model"].items())
    for number, values in states[2]["optimizer"]["state"].items():
        for key, value in values.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(back["optimizer"]["state"][number][key]))


def test_the_last_stage_keeps_its_branch() -> None:
    stages = {"a": {"weights": {"prose": 1}}, "b": {"weights": {"sums": 1}, "branch": 2}}
    trainer = tiny_trainer(8, corpus=CORPUS, stages=stages)
    for _ in range(8):
        trainer.train_step()
    assert trainer.branches.state_dict() == {"held": None}


def test_a_run_that_is_cut_inside_a_branch_goes_on_the_same() -> None:
    stages = {
        "a": {"weights": {"prose": 1}, "branch": 2, "schedule": {"kind": "infinite", "warmup": 1, "anneal": 2}},
        "b": {"weights": {"sums": 1, "prose": 1}},
    }

    def lines(trainer: Any, steps: int) -> list[dict[str, Any]]:
        if trainer.step == 0:
            trainer.measure()
        return [{**trainer.counted_step()[0], **trainer.measure()} for _ in range(steps)]

    whole, first, second = (tiny_trainer(8, corpus=CORPUS, stages=stages) for _ in range(3))
    expected = lines(whole, 8)
    assert lines(first, 3) == expected[:3]
    structure, tensors = encode(first.state_dict())
    second.load_state_dict(decode(structure, {name: tensor.clone() for name, tensor in tensors.items()}))
    assert lines(second, 5) == expected[3:]
    assert all(torch.equal(weight, second.learner.masters[name]) for name, weight in whole.learner.masters.items())


def test_transfer_by_hand() -> None:
    timeline = _timeline(6, a={"weights": {"prose": 1}}, b={"weights": {"sums": 1}}, c={"weights": {"prose": 1}})
    transfer = Transfer(timeline)
    transfer.start({"prose": 5.0, "sums": 6.0})
    assert transfer.after_stage({"prose": 3.0, "sums": 5.5}) == {"stages/learned": 3.0, "stages/retained": 3.0}
    second = transfer.after_stage({"prose": 3.75, "sums": 4.0})
    assert second == {
        "stages/learned": 3.5,
        "stages/retained": 3.875,
        "stages/forgetting": 0.75,
        "stages/backward_transfer": -0.75,
        "stages/forward_transfer": 0.5,
    }
    third = transfer.after_stage({"prose": 2.5, "sums": 4.5})
    assert third["stages/forgetting"] == (0.0 + 0.5) / 2
    assert third["stages/backward_transfer"] == (0.5 - 0.5) / 2
    assert third["stages/learned"] == 3.5 and third["stages/retained"] == 3.5


def test_stage_ends_are_measured() -> None:
    trainer = tiny_trainer(8, corpus=CORPUS, stages=TWO, evaluation={"every": 1.0, "tokens": 512})
    start = trainer.measure()
    found = []
    for _ in range(8):
        trainer.train_step()
        found.append(trainer.measure())
    assert [bool(figures) for figures in found] == [False] * 3 + [True] + [False] * 3 + [True]
    ahead = start["validation/sums/loss"] - found[3]["validation/sums/loss"]
    assert found[7]["stages/forward_transfer"] == ahead
    lost = found[7]["validation/prose/loss"] - min(found[3]["validation/prose/loss"], found[7]["validation/prose/loss"])
    assert found[7]["stages/forgetting"] == lost


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stages": {"a": {"weights": {"prosa": 1}}}}, "did you mean 'prose'"),
        ({"stages": {"a": {"weights": {"prose": 0}}}}, "sum to zero"),
        ({"stages": {"a": {"weights": {"prose": -1, "sums": 2}}}}, "should be 0 or more"),
        ({"stages": {"a": {"weights": {}}}}, "at least 1 item"),
        ({"stages": TWO, "corpus": {**CORPUS, "sums": {**CORPUS["sums"], "weight": 3}}}, "leave it out"),
        ({"stages": TWO, "budget": {"minutes": 1}}, "may move its end"),
        ({"stages": {"a": {"weights": {"prose": 1}, "shares": 1}}}, "'share'"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        make_recipe(tiny_data(**{"corpus": CORPUS, **changes}))


def test_a_stage_without_a_step_is_refused_before_training() -> None:
    stages = {"a": {"weights": {"prose": 1}, "share": 100}, "b": {"weights": {"sums": 1}}}
    with pytest.raises(RequestError, match=r"stages\.b: .* less than one"):
        tiny_plan(corpus=CORPUS, stages=stages)


def test_a_domain_that_is_only_judged_may_have_no_weight() -> None:
    corpus = {**CORPUS, "sums": {**CORPUS["sums"], "weight": 0}}
    plan = tiny_plan(corpus=corpus, stages={"a": {"weights": {"prose": 1}}})
    assert plan.weights == {"prose": 1.0, "sums": 0.0}


def test_the_order_of_stages_is_part_of_a_recipe() -> None:
    one, other = (tiny_plan(corpus=CORPUS, stages=stages) for stages in (TWO, dict(reversed(TWO.items()))))
    assert one.hashes["recipe"] != other.hashes["recipe"]
    assert recipe_difference(one.recipe.plain(), other.recipe.plain()) == [("stages", "first, second", "second, first")]
    assert recipe_difference(one.recipe.plain(), one.recipe.plain()) == []
