"""Flips: counts against a loop over items, identities of the rates, the task against its two models, and the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import foretrain as ft
from foretrain.errors import RequestError
from foretrain.subject import Subject
from foretrain.tasks._flips import flipped, flips, gains, sizes, wrong_otherwise
from foretrain.tasks.base import Measured
from foretrain.tasks.flips import Flips
from foretrain.tasks.multiple_choice import MultipleChoice
from foretrain.tasks.statistics import mean, proportion, wilson
from tests.tasks.subjects import CONTEXT, byte_tokenizer, model, subject, write_items

ITEMS: list[dict[str, Any]] = [
    {"question": f"what is {i}?", "choices": ["one", "two", "six"], "answer": i % 3, "text": "a"} for i in range(24)
]


def measured(right: list[bool], answers: tuple[str, ...] = ()) -> Measured:
    found = proportion(right)
    return Measured(found.value, found.low, found.high, found.items, True, found.values, answers=answers)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_rates_are_those_of_a_loop_over_items(pairs: list[tuple[bool, bool]]) -> None:
    old, new = (measured([pair[number] for pair in pairs]) for number in (0, 1))
    found = flips(old, new)
    broken = sum(1 for before, after in pairs if before and not after)
    mended = sum(1 for before, after in pairs if after and not before)
    assert found["negative_flips"].value == broken / len(pairs)
    assert found["positive_flips"].value == mended / len(pairs)
    assert (found["negative_flips"].low, found["negative_flips"].high) == wilson(broken, len(pairs))
    # The difference of accuracies is what is mended less what is broken.
    assert found["change"].value == pytest.approx(new.value - old.value, abs=1e-12)
    assert found["change"].value == pytest.approx((mended - broken) / len(pairs), abs=1e-12)
    told = {name: one.higher_is_better for name, one in found.items()}
    assert told == dict(Flips.measures or {})
    rows = flipped(old, new, ["text"] * len(pairs))
    assert [row["flip"] for row in rows] == ["negative"] * broken + ["positive"] * mended
    for row in rows:
        before, after = pairs[row["item"] - 1]
        assert (row["old"], row["new"]) == (float(before), float(after)) and before != after


@pytest.mark.parametrize("counts", [(60, 0, 0, 0), (20, 7, 3, 30), (0, 12, 0, 0), (1, 0, 0, 0)])
def test_the_interval_of_the_change_is_agrestis_and_mins(counts: tuple[int, int, int, int]) -> None:
    both, up, down, neither = counts
    pairs = [(True, True)] * both + [(False, True)] * up + [(True, False)] * down + [(False, False)] * neither
    change = flips(*(measured([pair[number] for pair in pairs]) for number in (0, 1)))["change"]
    # Stated with the four cells, as for any Wald interval of a difference of paired shares.
    n11, n01, n10, n00 = (count + 0.5 for count in counts)
    n = n11 + n01 + n10 + n00
    first, second, joint = (n11 + n10) / n, (n11 + n01) / n, n11 / n
    variance = first * (1 - first) + second * (1 - second) - 2 * (joint - first * second)
    half = 1.959964 * (variance / n) ** 0.5
    assert change.low == pytest.approx(max(-1, second - first - half), abs=1e-6)
    assert change.high == pytest.approx(min(1, second - first + half), abs=1e-6)
    assert change.low < change.value < change.high or change.value in (-1, 1)


def test_metrics_that_are_more_than_right_and_wrong() -> None:
    old, new = (mean(values, higher_is_better=False) for values in ([1.0, 2.0, 3.0, 4.0], [0.5, 2.0, 5.0, 4.5]))
    assert gains(old, new) == [0.5, 0.0, -2.0, -0.5]  # losses: lower is better
    found = flips(old, new)
    assert (found["negative_flips"].value, found["positive_flips"].value) == (0.5, 0.25)
    assert found["change"].value == -0.5
    assert sizes(old, new) == {"mean_gain": 0.5, "mean_regression": 1.25}
    # mean = PFR times the mean gain, less NFR times the mean regression
    assert found["change"].value == 0.25 * 0.5 - 0.5 * 1.25
    assert sizes(old, old) == {"mean_gain": None, "mean_regression": None}


def test_wrong_in_another_way_counts_what_was_wrong_before() -> None:
    old = measured([True, False, False, False, True], ("a", "b", "c", "d", "e"))
    new = measured([False, False, False, True, True], ("x", "b", "y", "z", "e"))
    found = wrong_otherwise(old, new)
    assert found is not None and found.value == 2 / 5 and not found.higher_is_better
    assert wrong_otherwise(measured([True]), new) is None


def test_what_cannot_be_compared() -> None:
    with pytest.raises(RequestError, match="measured on 2 and the new one on 3"):
        flips(measured([True, False]), measured([True, False, True]))
    with pytest.raises(RequestError, match="no value for a single item"):
        flips(Measured(0.5, None, None, 2, True), measured([True, False]))


@pytest.fixture
def old(tmp_path: Path) -> str:
    made = model(seed=3)
    made.save_pretrained(tmp_path / "old")
    byte_tokenizer().save(tmp_path / "old")
    return str(tmp_path / "old")


def test_the_task_compares_with_the_model_it_names(old: str, tmp_path: Path) -> None:
    path = write_items(tmp_path / "items.jsonl", ITEMS)
    choice = MultipleChoice(path=path)
    part = Flips(of={"kind": "multiple_choice", "path": path}, against=old, metric="accuracy_norm")
    part.check()
    assert list(part.texts()) == list(choice.texts())
    own = subject(seed=5)
    before = choice.evaluate(Subject(model(seed=3), byte_tokenizer(), CONTEXT), 0)["accuracy_norm"]
    after = choice.evaluate(own, 0)["accuracy_norm"]
    found = part.evaluate(own, 0)
    pairs = list(zip(before.values, after.values, strict=True))
    assert found["negative_flips"].value == sum(a > b for a, b in pairs) / 24
    assert found["positive_flips"].value == sum(a < b for a, b in pairs) / 24
    assert found["negative_flips"].value + found["positive_flips"].value > 0
    # Against itself nothing flips; and what was answered is known.
    same = part.evaluate(Subject(model(seed=3), byte_tokenizer(), CONTEXT), 0)
    assert {name: one.value for name, one in same.items()} == dict.fromkeys(same, 0.0)
    right = [item["choices"][item["answer"]] for item in ITEMS]
    picked = [a == b for a, b in zip(after.answers, right, strict=True)]
    assert picked == [bool(value) for value in after.values]


def test_faults_of_the_task_are_named(old: str, tmp_path: Path) -> None:
    path = write_items(tmp_path / "items.jsonl", ITEMS)
    with pytest.raises(ValidationError, match="did you mean 'multiple_choice'"):
        Flips(of={"kind": "multiple_choise", "path": path}, against=old)
    with pytest.raises(ValidationError, match="should be a task"):
        Flips(of={"path": path}, against=old)
    with pytest.raises(ValidationError, match="limit"):
        Flips(of={"kind": "multiple_choice", "path": path, "limit": 0}, against=old)
    task = {"kind": "multiple_choice", "path": path}
    with pytest.raises(RequestError, match="did you mean 'accuracy'"):
        Flips(of=task, against=old, metric="acuracy").check()
    with pytest.raises(RequestError, match=r"task 'flips': .*no folder"):
        Flips(of=task, against=str(tmp_path / "not" / "there")).evaluate(subject(), 0)


def test_paths_of_the_inner_task_start_at_the_recipe(old: str, tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", ITEMS)
    given = {"of": {"kind": "multiple_choice", "path": "items.jsonl"}, "against": "old"}
    part = Flips.model_validate({"kind": "flips", **given}, context={"folder": tmp_path})
    assert part.of["path"] == str(tmp_path / "items.jsonl") and part.against == old


def test_the_report_of_two_models(old: str, tmp_path: Path) -> None:
    items = [{**item, "question": "<b>what</b>?"} if i == 0 else item for i, item in enumerate(ITEMS)]
    path = write_items(tmp_path / "items.jsonl", items)
    model(seed=5).save_pretrained(tmp_path / "new")
    byte_tokenizer().save(tmp_path / "new")
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text(yaml.safe_dump({"tasks": {"numbers": {"kind": "multiple_choice", "path": "items.jsonl"}}}))
    found: dict[str, Any] = ft.flips(old, tmp_path / "new", tasks=tasks, out=tmp_path / "page.html")
    told = found["tasks"]["numbers"]
    part = Flips(of={"kind": "multiple_choice", "path": path}, against=old)
    by_task = part.evaluate(Subject(model(seed=5), byte_tokenizer(), CONTEXT), 0)
    assert {name: told[name]["value"] for name in by_task} == {name: one.value for name, one in by_task.items()}
    assert told["new"] - told["old"] == pytest.approx(told["change"]["value"])
    assert told["wrong_otherwise"]["value"] >= told["negative_flips"]["value"]
    json.dumps(found)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count(">negative<") == round(24 * told["negative_flips"]["value"])
    assert "<b>what" not in page
    with pytest.raises(RequestError, match="no run whose recipe names tasks"):
        ft.flips(old, tmp_path / "new")
    with pytest.raises(RequestError, match="did you mean 'accuracy'"):
        ft.flips(old, tmp_path / "new", tasks=tasks, metric="acuracy")
