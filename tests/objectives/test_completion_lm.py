"""Losses of completions: which tokens follow a marker, against a loop over documents, and what a run of it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foretrain.checks import check_part
from foretrain.objectives.completion_lm import CompletionLM, completions
from tests.tiny import tiny_trainer

LEGO: dict[str, Any] = {"path": "builtin:lego", "options": {"count": 60, "length": 2, "sign": "->"}, "validation": 0.2}
OBJECTIVE = {"kind": "completion_lm", "after": "-> "}


@given(st.lists(st.integers(0, 3), min_size=1, max_size=24), st.lists(st.integers(1, 2), min_size=1, max_size=3))
def test_they_are_what_follows_a_marker_up_to_the_end(tokens: list[int], marker: list[int]) -> None:
    """Token 0 ends a document."""
    expected, seen = [], []
    answering = False
    for token in tokens:
        expected.append(answering)
        seen.append(token)
        answering = token != 0 and (answering or seen[-len(marker) :] == marker)
        if token == 0:
            seen = []
    found = completions(torch.tensor([tokens, tokens]), marker, 0)
    assert found.tolist() == [expected, expected]


def test_the_loss_is_of_answers_alone() -> None:
    trainer = tiny_trainer(corpus={"lego": LEGO}, objective=OBJECTIVE)
    batch = trainer.objective.prepare(trainer.stream.batch())
    for row in range(batch.rows):
        counted = batch["labels"][row][batch["mask"][row]].tolist()
        text = trainer.context.tokenizer.decode(counted)
        assert set(text.replace("<|endoftext|>", "")) <= set("01.")
    whole = tiny_trainer(corpus={"lego": LEGO})
    rows = whole.objective.prepare(whole.stream.batch())
    assert torch.equal(rows["inputs"], batch["inputs"]) and int(rows["mask"].sum()) > 8 * int(batch["mask"].sum())
    figures = trainer.validation.measure(trainer.learner, trainer.objective, trainer.group)
    plain = whole.validation.measure(whole.learner, whole.objective, whole.group)
    assert figures["validation/lego/loss"] != pytest.approx(plain["validation/lego/loss"], abs=1e-4)


def test_a_marker_that_is_never_shown_is_told() -> None:
    trainer = tiny_trainer(corpus={"lego": LEGO}, objective={"kind": "completion_lm", "after": "Answer:"})
    assert trainer.train_step()["loss"] == 0
    assert any("do not show 'Answer:'" in text for text in trainer.warnings)


def test_it_keeps_the_promises_of_an_objective() -> None:
    corpus = {"lego": {**LEGO, "options": {**LEGO["options"], "count": 100}}}
    check_part(CompletionLM(after="-> "), {"corpus": corpus})
