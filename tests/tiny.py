"""A run small enough for a test: embedded text, bytes, a model of some ten thousand parameters."""

from __future__ import annotations

from typing import Any

from foretrain.distributed import Group
from foretrain.plan import Plan, make_plan
from foretrain.recipe import Recipe, make_recipe
from foretrain.trainer import Trainer

CONTEXT = 32
PROBLEMS: dict[str, Any] = {
    "path": "builtin:arithmetic",
    "options": {"count": 20, "seed": 5},
    "prompt": "question",
    "completion": "solution",
}
"""A feedback set of other problems than the tiny corpus has."""
FEEDBACK = {"sums": PROBLEMS}


def tiny_data(**changes: Any) -> dict[str, Any]:
    """A tiny recipe as plain data, with top-level keys replaced."""
    return {
        "name": "tiny",
        "budget": {"steps": 8},
        "tokenizer": "byte",
        "model": {"kind": "llama", "layers": 2, "width": 32, "heads": 2, "feedforward": 64, "context": CONTEXT},
        "corpus": {
            "prose": {"path": "builtin:biographies", "options": {"people": 150}, "validation": 0.2, "weight": 2},
            "sums": {"path": "builtin:arithmetic", "options": {"count": 120}, "validation": 0.2},
        },
        "batch": {"tokens": 8 * CONTEXT},
        "evaluation": {"every": 0.5, "tokens": 2048},
        "precision": "fp32",
        **changes,
    }


def tiny_recipe(**changes: Any) -> Recipe:
    """The tiny recipe."""
    return make_recipe(tiny_data(**changes))


def tiny_plan(**changes: Any) -> Plan:
    """The tiny recipe, resolved."""
    return make_plan(tiny_recipe(**changes), Group())


def tiny_trainer(total: int = 8, **changes: Any) -> Trainer:
    """A trainer at its first step."""
    return Trainer(tiny_plan(**changes), total, Group())
