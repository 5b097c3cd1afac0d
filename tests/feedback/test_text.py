"""Feedback in text: what counts, which items are drawn, and what a changed file does to a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import foretrain as ft
from foretrain.checks.trial import CONTEXT, TINY, trial
from foretrain.distributed import Group
from foretrain.errors import RequestError
from foretrain.feedback.text import TextSet
from foretrain.recipe import make_recipe
from foretrain.trainer import Trainer


def _write(path: Path, items: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(item) for item in items))
    return str(path)


def _set(**feedback: Any) -> tuple[Trainer, TextSet]:
    trainer = trial({"feedback": {"it": feedback}, "overlap": "warn"})
    found = trainer.context.feedback("it")
    assert isinstance(found, TextSet)
    return trainer, found


def test_completions_count_and_prompts_lose_their_beginning(tmp_path: Path) -> None:
    items = [{"q": "ab", "a": "cd"}, {"q": "x" * 100, "a": "yes"}, {"q": "short", "a": "z" * 100}]
    trainer, found = _set(path=_write(tmp_path / "f.jsonl", items), prompt="q", completion="a")
    decode = trainer.plan.tokenizer.decode  # type: ignore[union-attr]
    texts = {
        (decode(tokens[~valid & (tokens > 0)].tolist()), decode(tokens[valid].tolist()))
        for tokens, valid in zip(found.tokens, found.valid, strict=True)
    }
    window = CONTEXT + 1
    assert texts == {("ab", " cd"), ("x" * (window - 4), " yes"), ("t", " " + "z" * (window - 2))}


def test_documents_are_cut_into_items_that_predict_each_token_once(tmp_path: Path) -> None:
    text = "".join(chr(97 + n % 26) for n in range(90))
    trainer, found = _set(path=_write(tmp_path / "f.jsonl", [{"text": text}]))
    predicted = torch.cat([tokens[valid] for tokens, valid in zip(found.tokens, found.valid, strict=True)])
    tokenizer = trainer.plan.tokenizer
    assert tokenizer is not None and found.items == 3
    assert predicted.tolist() == [*tokenizer.encode([text])[0][1:], tokenizer.eos]


def test_the_loss_is_that_of_the_completion_task(tmp_path: Path) -> None:
    items = [{"q": f"what is {n}", "a": f"it is {n * n}"} for n in range(9)]
    path = _write(tmp_path / "f.jsonl", items)
    trainer, found = _set(path=path, prompt="q", completion="a")
    from foretrain.subject import Subject
    from foretrain.tasks.completion_loss import CompletionLoss

    task = CompletionLoss(path=path, prompt="q", completion="a")
    assert trainer.plan.tokenizer is not None
    subject = Subject(trainer.learner.model, trainer.plan.tokenizer, CONTEXT)
    assert found.loss(0, 9) == pytest.approx(task.evaluate(subject, 0)["loss"].value, rel=1e-5)


def test_items_are_drawn_without_one_twice_and_anew_at_each_step(tmp_path: Path) -> None:
    path = _write(tmp_path / "f.jsonl", [{"q": "q", "a": f"answer {n}"} for n in range(10)])
    _, found = _set(path=path, prompt="q", completion="a")
    draws = [found.batch(step, 4) for step in (0, 0, 1)]
    rows = [{tuple(row) for row in draw["labels"].tolist()} for draw in draws]
    assert rows[0] == rows[1] != rows[2] and len(rows[0]) == 4
    assert found.batch(0, 99).rows == 10


def test_ranks_share_the_draw(tmp_path: Path) -> None:
    path = _write(tmp_path / "f.jsonl", [{"q": "q", "a": f"answer {n}"} for n in range(10)])
    _, found = _set(path=path, prompt="q", completion="a")
    whole, parts = found.batch(3, 5), []
    context = found.context
    for rank in range(2):
        learner = type("Learner", (), {"group": Group(rank=rank, world=2)})()
        found.context = replace(context, learner=learner)
        parts.append(found.batch(3, 5))
    assert [part.rows for part in parts] == [3, 3]
    assert int(sum(part["mask"].sum() for part in parts)) == int(whole["mask"].sum())
    assert not bool(parts[1]["mask"][2].any())


def test_padding_is_cut(tmp_path: Path) -> None:
    path = _write(tmp_path / "f.jsonl", [{"q": "q", "a": "abc"}, {"q": "q", "a": "de"}])
    _, found = _set(path=path, prompt="q", completion="a")
    assert found.batch(0, 2)["inputs"].shape == (2, 4)


@pytest.mark.parametrize(
    ("items", "fields", "words"),
    [
        ([{"text": ""}], {}, "the completion .text. is empty"),
        ([{"q": "a", "a": "b"}], {"prompt": "q", "completion": "b"}, "'b'"),
        ([], {}, "holds no items"),
    ],
)
def test_wrong_feedback(items: list[dict[str, Any]], fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=words):
        _set(path=_write(tmp_path / "f.jsonl", items), **fields)


def test_feedback_in_the_corpus_is_refused_with_the_documents(tmp_path: Path) -> None:
    text = "the quick brown fox jumps over the lazy dog and runs away from the old grey wolf at night"
    corpus = _write(tmp_path / "corpus.jsonl", [{"text": text + f" {n}" * 20} for n in range(30)])
    feedback = _write(tmp_path / "f.jsonl", [{"text": text}])
    data = {**TINY, "corpus": {"it": {"path": corpus, "validation": 0.2}}, "feedback": {"mine": {"path": feedback}}}
    with pytest.raises(RequestError, match=r"feedback mine: item 1 in document corpus.jsonl"):
        ft.run(make_recipe(data), out=tmp_path / "run", quiet=True)


def test_a_run_is_not_resumed_with_other_items(tmp_path: Path) -> None:
    path = _write(tmp_path / "f.jsonl", [{"q": f"{n}", "a": "b"} for n in range(5)])
    feedback = {"it": {"path": path, "prompt": "q", "completion": "a"}}
    part = {"kind": "oracle_target", "feedback": "it", "parameters": "last:1", "items": 2, "candidates": 2}
    recipe = make_recipe({**TINY, "budget": {"steps": 2}, "feedback": feedback, "steering": [part]})
    ft.run(recipe, out=tmp_path / "run", quiet=True, until=0.5, keep="figures")
    _write(tmp_path / "f.jsonl", [{"q": f"{n}", "a": "c"} for n in range(5)])
    with pytest.raises(RequestError, match="feedback it"):
        ft.run(recipe, out=tmp_path / "run", quiet=True, keep="figures")
