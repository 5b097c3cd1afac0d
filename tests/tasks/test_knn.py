from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretrain.errors import RequestError
from foretrain.tasks._labelled import pooled
from foretrain.tasks.knn import Knn, vote
from tests.tasks.subjects import subject, write_items


def test_votes_are_those_of_a_loop() -> None:
    random = np.random.default_rng(0)
    known, asked = random.standard_normal((30, 4)), random.standard_normal((12, 4))
    labels = random.integers(0, 3, 30)
    for k in (1, 4, 30):
        for row, found in zip(asked, vote(asked, known, labels, 3, k), strict=True):
            near = sorted(
                range(30), key=lambda i: -float(row @ known[i] / np.linalg.norm(row) / np.linalg.norm(known[i]))
            )[:k]
            votes = [sum(labels[i] == name for i in near) for name in range(3)]
            assert votes[found] == max(votes)


def test_of_equal_votes_the_nearer_neighbours_win() -> None:
    known = np.array([[1.0, 0.1], [1.0, 0.9], [1.0, 0.2], [1.0, 0.8]])
    assert vote(np.array([[2.0, 0.0]]), known, np.array([0, 1, 1, 0]), 2, 4) == [0]
    assert vote(np.array([[2.0, 0.0]]), known, np.array([1, 0, 0, 0]), 2, 2) == [1]


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_accuracy_is_of_cosine_neighbours_among_the_items_that_teach(tmp_path: Path, kind: str) -> None:
    random = np.random.default_rng(1)
    items: list[dict[str, Any]] = [
        {"text": "".join(random.choice(list("abcd" if i % 2 else "wxyz"), 12)) + f" {i}", "label": i % 2}
        for i in range(60)
    ]
    one, task = subject(kind), Knn(path=write_items(tmp_path / "items.jsonl", items), k=3)
    train, test = task.items()
    states, _ = pooled(one, [item.given for item in train + test], "mean")
    known, asked = states[: len(train)], states[len(train) :]
    names = np.array([int(item.right) for item in train])
    right = [str(found) == item.right for found, item in zip(vote(asked, known, names, 2, 3), test, strict=True)]
    found = task.evaluate(one, 0)["accuracy"]
    assert found.value == np.mean(right) > 0.9 and found.items == len(test)


def test_more_neighbours_than_items_are_refused(tmp_path: Path) -> None:
    items = [{"text": f"text {i}", "label": i % 2} for i in range(12)]
    with pytest.raises(RequestError, match="neighbours of only"):
        Knn(path=write_items(tmp_path / "items.jsonl", items), k=50).evaluate(subject("llama"), 0)
