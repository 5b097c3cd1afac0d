from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from foretrain.errors import RequestError
from foretrain.subject import Subject
from foretrain.tasks.multiple_choice import MultipleChoice
from tests.tasks.subjects import subject, word_tokenizer, write_items


def log_likelihood(one: Subject, prompt: str, completion: str) -> tuple[float, int]:
    given = one.tokenizer.encode([prompt])[0]
    whole = one.tokenizer.encode([prompt + completion])[0]
    with torch.no_grad():
        logs = one.model.eval()(torch.tensor([whole])).logits[0].log_softmax(1)
    return sum(float(logs[i - 1, whole[i]]) for i in range(len(given), len(whole))), len(whole) - len(given)


def items(count: int = 30) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    words = ["ab", "abcd", "é", "zz", "cd ab cd", "q"]
    return [
        {
            "question": f"item {i}",
            "choices": random.choice(words, 3, replace=False).tolist(),
            "answer": int(random.integers(3)),
        }
        for i in range(count)
    ]


def test_figures_equal_a_loop_over_choices(tmp_path: Path) -> None:
    one = subject(tokenizer=word_tokenizer())
    found = MultipleChoice(path=write_items(tmp_path / "a.jsonl", items())).evaluate(one, 0)
    right: dict[str, list[bool]] = {"accuracy": [], "accuracy_norm": [], "accuracy_token": []}
    losses = []
    for item in items():
        logs, tokens = zip(*(log_likelihood(one, item["question"], " " + c) for c in item["choices"]), strict=True)
        sizes = [len(choice.encode()) for choice in item["choices"]]
        for name, by in (("accuracy", [1, 1, 1]), ("accuracy_norm", sizes), ("accuracy_token", tokens)):
            scores = [log / size for log, size in zip(logs, by, strict=True)]
            right[name].append(scores.index(max(scores)) == item["answer"])
        losses.append(-float(torch.tensor(logs).log_softmax(0)[item["answer"]]))
    for name, expected in right.items():
        assert found[name].values == tuple(map(float, expected)), name
    assert len({found[name].values for name in right}) == 3  # The three differ on these items.
    assert found["choice_loss"].values == pytest.approx(losses, abs=1e-4)
    assert not found["choice_loss"].higher_is_better and found["accuracy"].higher_is_better


@pytest.mark.parametrize(
    ("answer", "first", "number"),
    [
        (1, 0, 1),
        (1, 1, 0),
        ("B", 0, 1),
        ("c", 0, 2),
        ("blue", 0, 1),
        ("2", 0, 2),
        ("2", 1, 1),
        (True, 0, 1),
        (2.0, 0, 2),
    ],
)
def test_answers_by_number_letter_and_text(answer: Any, first: Any, number: int) -> None:
    task = MultipleChoice(path="x", first=first)
    item = task.make({"question": "q", "choices": ["red", "blue", "green"], "answer": answer}, "here")
    assert item.answer == number and item.right == item.choices[number] and item.text == f"q {item.right}"


def test_a_text_that_is_a_choice_comes_before_a_number() -> None:
    item = MultipleChoice(path="x").make({"question": "q", "choices": ["1", "0"], "answer": "0"}, "here")
    assert item.answer == 1


def test_choices_in_fields_of_their_own_or_the_same_for_all() -> None:
    fields = {"question": "q", "a": "red", "b": "blue", "answer": "B"}
    assert MultipleChoice(path="x", choices=["{a}", "{b}!"]).make(fields, "here").choices == ("red", "blue!")
    assert MultipleChoice(path="x", choices=["no", "yes"]).make(fields, "here").choices == ("no", "yes")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"answer": "E"}, r"place: the field 'answer' holds 'E', which is neither the number \(from 0 to 2\)"),
        ({"answer": 3}, "holds 3"),
        ({"answer": -1}, "holds -1"),
        ({"answer": None}, "holds None"),
        ({"choices": "red"}, "should hold a list of choices"),
        ({"choices": ["red"]}, "two choices or more"),
        ({"choices": ["red", ""]}, "none of them empty"),
        ({"choices": ["red", None]}, "should hold text"),
    ],
)
def test_faults_of_items(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(RequestError, match=match):
        MultipleChoice(path="x").make({"question": "q", "choices": ["r", "g", "b"], "answer": 0, **fields}, "place")


def test_no_choices_is_a_fault_of_the_recipe() -> None:
    with pytest.raises(ValidationError):
        MultipleChoice(path="x", choices=[])


def test_items_that_do_not_fit_are_counted_once(tmp_path: Path) -> None:
    long = [{**item, "question": "x" * 60} for item in items(3)] + items(2)
    found = MultipleChoice(path=write_items(tmp_path / "a.jsonl", long)).evaluate(subject(), 0)
    assert found["accuracy"].truncated == 3 and found["accuracy"].items == 5


def test_examples_end_with_the_right_choice(tmp_path: Path) -> None:
    path = write_items(tmp_path / "a.jsonl", items(3))
    shown = [{"question": "one and one", "choices": ["two", "three"], "answer": 0}]
    task = MultipleChoice(path=path, shots=1, shots_path=write_items(tmp_path / "b.jsonl", shown))
    assert task.examples(task.items()) == "one and one two\n\n"
