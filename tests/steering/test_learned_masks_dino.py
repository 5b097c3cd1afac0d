"""Learned masks on the real objective, in real steps."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from foretrain.distributed import Group
from foretrain.errors import RequestError
from foretrain.plan import make_plan
from foretrain.recipe import make_recipe
from foretrain.trainer import Trainer

STEERING = {"kind": "learned_masks", "feedback": "labelled", "items": 8, "channels": 4, "depth": 2, "burn_in": 0}


def data(**changes: Any) -> dict[str, Any]:
    return {
        "name": "images",
        "budget": {"steps": 8},
        "objective": {
            "kind": "dino",
            "local_crops": 1,
            "prototypes": 16,
            "hidden": 16,
            "bottleneck": 8,
            "freeze_last_layer": 0,
        },
        "model": {"kind": "vit", "image": 16, "patch": 4, "layers": 2, "width": 16, "heads": 2, "feedforward": 32},
        "corpus": {"shapes": {"path": "builtin:shapes", "options": {"count": 60, "size": 16}, "validation": 0.2}},
        "batch": {"tokens": 8 * 16},
        "optimizer": {"lr": 3e-3},
        "precision": "fp32",
        "feedback": {
            "labelled": {
                "kind": "segmentation",
                "path": "builtin:shapes",
                "options": {"count": 24, "size": 16, "seed": 9},
            }
        },
        **changes,
    }


def trainer(**changes: Any) -> Trainer:
    plan = make_plan(make_recipe(data(**changes)), Group())
    return Trainer(plan, 8, Group())


def test_the_meta_gradient_follows_student_and_teacher() -> None:
    """The teacher sees masked crops too: without its share the gradient can point the wrong way."""
    made = trainer(steering=[{**STEERING, "rows": 1.0, "tv": 0.0, "sparsity": 0.0, "every": 2}])
    for _ in range(4):
        made.train_step()
    part: Any = made.steering[0]
    batch, direction = made.objective.prepare(made.stream.batch()), part.direction(4).vector
    gradients, _ = part.meta_gradient(batch, direction)
    length = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    values = []
    for sign in (1, -1):
        held = copy.deepcopy(part._designer.state_dict())
        with torch.no_grad():
            for parameter, gradient in zip(part._designer.parameters(), gradients, strict=True):
                parameter -= sign * 0.3 * gradient / length
        values.append(part.meta_gradient(batch, direction)[1]["value"])
        part._designer.load_state_dict(held)
    slope = (values[0] - values[1]) / 0.6
    assert slope == pytest.approx(float(length), rel=0.1)


def test_a_meta_step_adds_nothing_to_what_the_objective_remembers() -> None:
    plain, steered = trainer(), trainer(steering=[{**STEERING, "every": 1, "strength": 0.0}])
    for _ in range(3):
        first, second = plain.train_step(), steered.train_step()
        assert first["loss"] == second["loss"] and first["gradient_norm"] == second["gradient_norm"]
    a, b = plain.state_dict(), steered.state_dict()
    assert torch.equal(a["parts"]["objective"]["centre"], b["parts"]["objective"]["centre"])
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])


def test_figures_and_kinds_of_steps() -> None:
    made = trainer(steering=[{**STEERING, "every": 3, "burn_in": 2}])
    kinds, figures = [], []
    for step in range(5):
        kinds.append(made.kind(step).split(",")[-1])
        figures.append(made.train_step())
    assert kinds == ["evaluator", "plain", "masked", "meta", "masked"]
    assert [("learned_masks/keep" in line, "learned_masks/value" in line) for line in figures] == [
        (False, False),
        (False, False),
        (True, False),
        (True, True),
        (True, False),
    ]
    assert figures[3]["feedback/labelled/loss"] > 0


def test_labelled_images_of_the_corpus_are_refused() -> None:
    same = {"kind": "segmentation", "path": "builtin:shapes", "options": {"count": 60, "size": 16}}
    with pytest.raises(RequestError, match="pixel for pixel"):
        trainer(steering=[STEERING], feedback={"labelled": same})


def test_text_recipes_are_refused() -> None:
    text = {"model": {"kind": "llama", "layers": 1, "width": 16, "heads": 1, "context": 16}, "objective": "causal_lm"}
    corpus = {"sums": {"path": "builtin:arithmetic", "options": {"count": 40}}}
    with pytest.raises(RequestError, match="steering 'learned_masks' works on images"):
        trainer(**text, corpus=corpus, feedback={}, steering=[STEERING])
