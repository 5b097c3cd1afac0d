"""Rehearsal by age: the weights, what realised shares come to, and the controls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from foretrain.errors import RequestError
from foretrain.steering.power_law_rehearsal import PowerLawRehearsal
from foretrain.tokens.stream import LAG
from foretrain.trainer import Trainer
from tests.tiny import tiny_trainer

ROWS = 8
NAMES = ("a", "b", "c", "d")
CORPUS = {
    name: {
        "path": "builtin:markov",
        "options": {"cluster": number, "symbols": 8, "length": 64, "count": 400},
        "validation": 0.1,
    }
    for number, name in enumerate(NAMES)
}
STAGES = {f"read-{name}": {"weights": {name: 1}} for name in NAMES}
LENGTH = 50


def trainer(steps: int = 4 * LENGTH, stages: Mapping[str, Any] = STAGES, **settings: Any) -> Trainer:
    steering = [{"kind": "power_law_rehearsal", "share": 0.5, **settings}]
    return tiny_trainer(steps, corpus=CORPUS, stages=stages, budget={"steps": steps}, steering=steering)


def part_of(one: Trainer) -> PowerLawRehearsal:
    part = one.steering[0]
    assert isinstance(part, PowerLawRehearsal)
    return part


def follow(one: Trainer, steps: int) -> list[Counter[str]]:
    """The domains that came again in each step."""
    found = []
    for _ in range(steps):
        batch = one.stream.batch()
        after = one.steering[0].replace(batch)
        rows = [row for row in range(ROWS) if not torch.equal(batch["tokens"][row], after["tokens"][row])]
        found.append(Counter(after.domains[int(after["domain"][row])] for row in rows))
        one._mix(one.step, at=one.step + LAG)
        one.stream.advance()
        one.step += 1
    return found


def last_stage(**settings: Any) -> Counter[str]:
    """How often each domain came again in the fourth stage, one of every 2 windows of 50 steps of 8."""
    one = trainer(**settings)
    return sum(follow(one, 4 * LENGTH)[3 * LENGTH :], Counter())


def by_hand(weight: Any, since: str) -> dict[str, float]:
    """Expected counts in the fourth stage, step by step, where `since` an age is counted from `first` or `last`."""
    first = {"a": 0, "b": LENGTH, "c": 2 * LENGTH}
    last = {"a": LENGTH - 1, "b": 2 * LENGTH - 1, "c": 3 * LENGTH - 1}
    expected = dict.fromkeys("abc", 0.0)
    for step in range(3 * LENGTH, 4 * LENGTH):
        ages = {name: step - (first if since == "first" else last)[name] for name in "abc"}
        total = sum(weight(age) for age in ages.values())
        for name, age in ages.items():
            expected[name] += ROWS / 2 * weight(age) / total
    return expected


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 0.0, -1.0, -3.0])
def test_since_introduction_counts_follow_a_power_of_age(exponent: float) -> None:
    found, expected = last_stage(exponent=exponent, since="introduction"), by_hand(lambda age: age**-exponent, "first")
    for name in "abc":
        assert found[name] == pytest.approx(expected[name], abs=3)
    assert found["d"] == 0 and sum(found.values()) == LENGTH * ROWS / 2


def test_exponential_decay_has_a_time_constant() -> None:
    for tau in (25, 0.125):  # steps, and a share of the run's 200
        found = last_stage(exponent=0, time_constant=tau, since="introduction")
        expected = by_hand(lambda age: 2.718281828 ** (-age / 25), "first")
        assert all(found[name] == pytest.approx(expected[name], abs=3) for name in "abc")


def test_a_large_exponent_takes_the_latest_domain_alone() -> None:
    assert last_stage(exponent=100, since="introduction") == {"c": LENGTH * ROWS / 2}


def test_a_rehearsed_domain_becomes_young() -> None:
    """With ages since the last presentation, all come to be rehearsed, each when its age has caught up."""
    presented, introduced = last_stage(exponent=1), last_stage(exponent=1, since="introduction")
    assert max(presented.values()) - min(presented[name] for name in "abc") < max(introduced.values()) - introduced["a"]
    # A domain's age is the steps since it was last read, whoever read it.
    one = trainer(exponent=1)
    latest: dict[str, int] = {}
    for step in range(3 * LENGTH + 20):
        ages = {name: part_of(one).age(name, step) for name in latest}
        assert ages == {name: step - before for name, before in latest.items()}
        own = one.context.timeline.at(step).name[-1]
        read = set(follow(one, 1)[0]) | {own}
        latest |= dict.fromkeys(read, step)


def test_what_the_stage_draws_itself_is_not_rehearsed() -> None:
    stages = {"one": {"weights": {"a": 1, "b": 1}}, "two": {"weights": {"c": 1, "a": 1}}}
    counts = sum(follow(trainer(40, stages), 40), Counter[str]())
    assert set(counts) == {"b"} and counts["b"] == pytest.approx(20 * ROWS / 2, abs=2)


def test_the_histogram_is_told() -> None:
    one = trainer(exponent=2)
    counts: Counter[str] = Counter()
    for step in range(4 * LENGTH):
        counts += follow(one, 1)[0]
        told = {name: one.figures.get(f"power_law_rehearsal/{name}", 0.0) for name in counts}
        total = sum(counts.values())
        assert told == {name: pytest.approx(count / total) for name, count in counts.items()}, step
        assert one.figures["power_law_rehearsal/share"] == (0.0 if step < LENGTH else 0.5)
        one.figures = {}
    assert set(counts) == {"a", "b", "c"}


def test_every_arm_rehearses_as_much() -> None:
    settings: list[dict[str, Any]] = [{}, {"exponent": 0}, {"exponent": -1}, {"exponent": 0, "time_constant": 10}]
    totals = [sum(sum(counts.values()) for counts in follow(trainer(**each), 4 * LENGTH)) for each in settings]
    assert totals == [3 * LENGTH * ROWS / 2] * 4


def test_resume_is_exact() -> None:
    def short() -> Trainer:
        return trainer(16)

    whole = short()
    lines = [whole.counted_step()[0] for _ in range(16)]
    cut, again = short(), short()
    for _ in range(9):
        cut.counted_step()
    again.load_state_dict(cut.state_dict())
    assert [again.counted_step()[0] for _ in range(7)] == lines[9:]
    assert part_of(again).state_dict() == part_of(whole).state_dict()


def test_ages_that_no_float_could_hold_do_no_harm() -> None:
    part = part_of(trainer(exponent=-100))
    part.presented({"a"}, 0)
    part.presented({"b"}, 9_999_999)
    chances = part.chances({"a": 5, "b": 5}, 10_000_000)
    assert chances["a"] == 1.0 and chances["b"] == 0.0


def test_wrong_settings_are_refused_in_words() -> None:
    with pytest.raises(RequestError, match="did you mean 'read-b'"):
        trainer(share={"read_b": 0.1})
    with pytest.raises(RequestError, match="since: Input should be 'presentation' or 'introduction'"):
        trainer(since="birth")
    with pytest.raises(RequestError, match="time_constant: Input should be greater than 0"):
        trainer(time_constant=0)
