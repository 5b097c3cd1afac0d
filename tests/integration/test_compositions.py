"""Any mix, target, weigh and update part may stand in one recipe: drawn at random, such recipes train and resume.

At their neutral settings, each of which runs its whole code path, they change nothing together.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from foretrain.checkpoints.tree import decode, encode
from foretrain.checks.trial import CONTEXT, TINY
from foretrain.distributed import Group
from foretrain.parts import kinds
from foretrain.plan import make_plan
from foretrain.recipe import make_recipe
from foretrain.steering.base import Steering, overrides
from foretrain.trainer import Trainer
from tests.test_contract_sweep import EXAMPLES, FEEDBACK, RECIPES, STAGES

QUESTIONS = ("mix", "target", "weigh", "update")
BY_QUESTION = {
    question: sorted(
        kind
        for kind, part in kinds(Steering).items()
        if part.__module__.startswith("foretrain.")
        and part.modality in ("text", "any")
        and part.facts.answers.startswith(f"{question}:")
    )
    for question in QUESTIONS
}
STEPS = 6
DRAWS = [*range(3), *(pytest.param(number, marks=pytest.mark.slow) for number in range(3, 12))]


def _drawn(number: int) -> list[str]:
    """Two mix parts and one of each other question, in any order; the draws together reach for every part."""
    dice = random.Random(number)
    chosen = [kinds_[number % len(kinds_)] for kinds_ in BY_QUESTION.values()]
    chosen += [dice.choice([kind for kind in BY_QUESTION["mix"] if kind != chosen[0]])]
    dice.shuffle(chosen)
    return chosen


def _settings(kind: str, folder: Path) -> dict[str, Any]:
    return {"kind": kind, **EXAMPLES.get(("steering", kind), lambda folder: {})(folder)}


def _recipe(chosen: list[str], folder: Path) -> dict[str, Any]:
    """The trial recipe with all that the parts need, in micro-batches smaller than the batch."""
    needed: dict[str, Any] = {"feedback": FEEDBACK, "stages": STAGES, "overlap": "warn"}
    for kind in chosen:
        told = RECIPES.get(("steering", kind), {})
        needed |= told(folder) if callable(told) else told
    return {**TINY, "budget": {"steps": STEPS}, "batch": {"tokens": 8 * CONTEXT, "micro": 4 * CONTEXT}, **needed}


def _trainer(recipe: dict[str, Any], steering: list[Any]) -> Trainer:
    return Trainer(make_plan(make_recipe({**recipe, "steering": steering}), Group()), STEPS, Group())


def _run(trainer: Trainer, steps: int) -> list[dict[str, Any]]:
    return [trainer.counted_step()[0] for _ in range(steps)]


def test_every_question_has_parts() -> None:
    assert all(len(found) >= 3 for found in BY_QUESTION.values()), BY_QUESTION


@pytest.mark.parametrize("number", DRAWS)
def test_a_composition_trains_and_resumes(number: int, tmp_path: Path) -> None:
    chosen = _drawn(number)
    recipe = _recipe(chosen, tmp_path)
    steering = [_settings(kind, tmp_path) for kind in chosen]
    whole = _trainer(recipe, steering)
    lines = _run(whole, STEPS)
    assert all(math.isfinite(line["loss"]) and "skipped" not in line for line in lines), chosen
    first, second = _trainer(recipe, steering), _trainer(recipe, steering)
    assert _run(first, STEPS // 2) == lines[: STEPS // 2], chosen
    structure, tensors = encode(first.state_dict())
    second.load_state_dict(
        decode(json.loads(json.dumps(structure)), {name: tensor.clone() for name, tensor in tensors.items()})
    )
    assert _run(second, STEPS - STEPS // 2) == lines[STEPS // 2 :], chosen
    for name, weight in whole.learner.masters.items():
        assert torch.equal(weight, second.learner.masters[name]), (chosen, name)


@pytest.mark.parametrize("number", DRAWS)
def test_neutral_settings_change_nothing_together(number: int, tmp_path: Path) -> None:
    chosen = [kind for kind in _drawn(number) if kinds(Steering)[kind].neutral is not None]
    recipe = _recipe(chosen, tmp_path)
    steering = [
        {**_settings(kind, tmp_path), **(kinds(Steering)[kind].neutral or {})}  # the whole path runs
        for kind in chosen
    ]
    plain, neutral = _trainer(recipe, []), _trainer(recipe, steering)
    soft = any(overrides(part, "targets") for part in neutral.steering)
    for before, after in zip(_run(plain, STEPS), _run(neutral, STEPS), strict=True):
        if soft:  # soft targets go through another kernel than labels, which rounds in another order
            assert math.isclose(before["loss"], after["loss"], rel_tol=1e-6), chosen
        else:
            assert before["loss"] == after["loss"], chosen
    for name, weight in plain.learner.masters.items():
        other = neutral.learner.masters[name]
        assert torch.allclose(weight, other, atol=1e-4) if soft else torch.equal(weight, other), (chosen, name)
