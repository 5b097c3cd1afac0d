from __future__ import annotations

import random
from pathlib import Path

import pytest

from foretrain.errors import RequestError
from foretrain.recipe import make_recipe
from foretrain.tasks.completion_loss import CompletionLoss
from tests.tasks.subjects import write_items

QUESTIONS = [{"q": f"question {i}", "a": f"answer {i}"} for i in range(20)]


def test_a_limit_takes_the_same_items_in_any_order_of_the_file(tmp_path: Path) -> None:
    mixed = random.Random(0).sample(QUESTIONS, 20)
    paths = [write_items(tmp_path / name, items) for name, items in (("a.jsonl", QUESTIONS), ("b.jsonl", mixed))]
    taken = [list(CompletionLoss(path=path, completion="q", limit=6).texts()) for path in paths]
    assert len(taken[0]) == 6 and set(taken[0]) == set(taken[1])
    order = [item["q"] for item in QUESTIONS]
    assert taken[0] == sorted(taken[0], key=order.index) != order[:6]
    assert list(CompletionLoss(path=paths[0], completion="q", limit=99).texts()) == order


def test_texts_are_whole_items_without_examples(tmp_path: Path) -> None:
    path = write_items(tmp_path / "a.jsonl", QUESTIONS)
    task = CompletionLoss(path=path, prompt="Q: {q}", completion="a", shots=2, shots_path=path, limit=3)
    assert all(text.startswith("Q: question") and " answer" in text for text in task.texts())


def test_examples_are_fixed_and_never_items(tmp_path: Path) -> None:
    path = write_items(tmp_path / "a.jsonl", QUESTIONS[:5])
    more = write_items(tmp_path / "b.jsonl", QUESTIONS)
    task = CompletionLoss(path=path, prompt="q", completion="a", shots=4, shots_path=more, between="\n")
    items = task.items()
    before = task.examples(items)
    assert before == task.examples(items) and before.count("\n") == 4 == before.count("answer")
    assert not any(item.text in before.split("\n") for item in items)
    assert before != task.model_copy(update={"shots_seed": 1}).examples(items)
    with pytest.raises(RequestError, match=r"holds 15 examples that aren't items .* shots asks for 16"):
        task.model_copy(update={"shots": 16}).check()


def test_faults_are_found_by_the_check(tmp_path: Path) -> None:
    path = write_items(tmp_path / "a.jsonl", [*QUESTIONS[:2], {"q": "no answer"}])
    with pytest.raises(RequestError, match=r"a\.jsonl, item 3: there is no field 'a'"):
        CompletionLoss(path=path, prompt="q", completion="a").check()
    with pytest.raises(RequestError, match="nothing"):
        CompletionLoss(path=write_items(tmp_path / "b.jsonl", [{"a": ""}]), completion="a").check()
    with pytest.raises(RequestError, match="none"):
        CompletionLoss(path=str(tmp_path / "none.jsonl"), completion="a").check()


def test_a_recipe_names_tasks_and_its_faults_are_told(tmp_path: Path) -> None:
    base = {"budget": {"steps": 1}, "model": "llama", "corpus": {"a": "builtin:english"}}
    recipe = make_recipe({**base, "tasks": {"t": {"kind": "completion_loss", "path": "x.jsonl"}}}, folder=tmp_path)
    task = recipe.tasks["t"]
    assert isinstance(task, CompletionLoss) and task.path == str(tmp_path / "x.jsonl")
    with pytest.raises(RequestError, match="did you mean 'prompt'"):
        make_recipe({**base, "tasks": {"t": {"kind": "completion_loss", "path": "x", "promt": "q"}}})
    with pytest.raises(RequestError, match="shots needs shots_path"):
        make_recipe({**base, "tasks": {"t": {"kind": "completion_loss", "path": "x", "shots": 2}}})
    with pytest.raises(RequestError, match="braces"):
        make_recipe({**base, "tasks": {"t": {"kind": "completion_loss", "path": "x", "prompt": "{q"}}})


def test_items_of_a_builtin_corpus_are_those_of_its_settings() -> None:
    settings = {"path": "builtin:passwords", "prompt": "question", "completion": "answer"}
    one, other = (CompletionLoss(**settings, options={"count": 3, "version": v}).items() for v in (0, 1))
    assert [item.given for item in one] == [item.given for item in other] and len(one) == 3
    assert all(a.right != b.right for a, b in zip(one, other, strict=True))
