"""Trial runs of a part: a tiny model on embedded text, run twice, cut in the middle, resumed."""

from __future__ import annotations

import copy
import json
import math
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foretrain.checkpoints.tree import decode, encode
from foretrain.checks.promises import equal, need, title
from foretrain.console import Terminal
from foretrain.distributed import Group
from foretrain.execution import Run, execute
from foretrain.hashing import hash_file
from foretrain.parts import Part
from foretrain.plan import make_plan
from foretrain.recipe import make_recipe
from foretrain.run_directory import RunDirectory
from foretrain.trainer import Trainer

CONTEXT = 32
STEPS = 6
"""Steps of a trial run; it is cut in the middle."""

Figures = dict[str, Any]

TINY: dict[str, Any] = {
    "name": "check",
    "budget": {"steps": STEPS},
    "tokenizer": "byte",
    "model": {"kind": "llama", "layers": 2, "width": 32, "heads": 2, "feedforward": 64, "context": CONTEXT},
    "corpus": {
        "prose": {"path": "builtin:biographies", "options": {"people": 100}, "validation": 0.2, "steer": 0.2},
        "sums": {"path": "builtin:arithmetic", "options": {"count": 100}, "validation": 0.2, "steer": 0.2},
    },
    "batch": {"tokens": 8 * CONTEXT},
    "evaluation": {"tokens": 1024},
    "precision": "fp32",
}
IMAGES: Figures = {
    "tokenizer": None,
    "model": {"kind": "vit", "layers": 2, "width": 16, "heads": 2, "feedforward": 32, "image": 16, "patch": 4},
    "corpus": {
        "shapes": {"path": "builtin:shapes", "options": {"count": 60, "size": 16}, "validation": 0.2, "steer": 0.2}
    },
    "batch": {"tokens": 8 * 16},
    "evaluation": {"tokens": 4 * 16},
    "objective": {
        "kind": "dino",
        "prototypes": 16,
        "hidden": 16,
        "bottleneck": 8,
        "local_crops": 1,
        "augmentation": {"jitter": 0},
    },
}
OF_MODALITY: dict[str, Figures] = {"image": IMAGES}
"""What parts of other modalities than text need of the trial recipe: its top-level keys."""


def trial(changes: Mapping[str, Any]) -> Trainer:
    """A trainer of the tiny recipe with top-level keys replaced, at its first step."""
    return Trainer(make_plan(make_recipe({**TINY, **changes}), Group()), STEPS, Group())


def finished(changes: Mapping[str, Any], folder: Path) -> RunDirectory:
    """The tiny recipe with top-level keys replaced, run to its end."""
    plan = make_plan(make_recipe({**TINY, **changes}), Group())
    execute(Run(plan, folder, Group(), Terminal(quiet=True), started=time.time(), keep="figures"))
    return RunDirectory(folder)


def files(folder: Path) -> dict[str, str]:
    """Every file below a folder and the hash of its content."""
    return {str(path.relative_to(folder)): hash_file(path) for path in folder.rglob("*") if path.is_file()}


def run(trainer: Trainer, steps: int) -> list[Figures]:
    """Some steps; the figures of each, with those measured after it."""
    return [{**trainer.counted_step()[0], **trainer.measure()} for _ in range(steps)]


def weights(trainer: Trainer) -> dict[str, Tensor]:
    """A copy of the trained weights."""
    return {name: weight.detach().clone() for name, weight in trainer.learner.masters.items()}


def check_trained(part: Part, changes: Mapping[str, Any]) -> list[Figures]:
    """A run with the part: finite, the same each time, and the same when it is cut in the middle and resumed."""
    before = copy.deepcopy(part.__pydantic_private__ or {})
    whole = trial(changes)
    lines = run(whole, STEPS)
    for line in lines:
        check_figures(part, {name: value for name, value in line.items() if name != "skipped"})
    first = trial(changes)
    need(equal(lines[: STEPS // 2], run(first, STEPS // 2)), f"{title(part)}: two runs of one seed differ")
    try:
        saved = decode(*_stored(first.state_dict()))
    except TypeError as error:
        raise AssertionError(f"{title(part)}: {error}") from error
    second = trial(changes)
    second.load_state_dict(saved)
    need(
        equal(lines[STEPS // 2 :], run(second, STEPS - STEPS // 2)) and equal(weights(whole), weights(second)),
        f"{title(part)}: a resumed run differs from one that was left alone; some state is not in `state_dict`",
    )
    need(equal(before, part.__pydantic_private__ or {}), f"{title(part)}: a run changes the recipe's own part")
    return lines


def _stored(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """State as a checkpoint stores it: text, and tensors of its own."""
    structure, tensors = encode(state)
    return json.loads(json.dumps(structure)), {name: tensor.clone() for name, tensor in tensors.items()}


@contextmanager
def untouched(part: Part, model: torch.nn.Module | None = None) -> Iterator[None]:
    """Inside, nothing may draw from the global generators or change a model's weights or mode."""

    def look() -> dict[str, Any]:
        state = {} if model is None else {name: tensor.clone() for name, tensor in model.state_dict().items()}
        modes = [] if model is None else [module.training for module in model.modules()]
        generators = (torch.get_rng_state(), random.getstate(), np.random.get_state())
        return {"weights": state, "modes": modes, "generators": generators}

    before = look()
    yield
    after = look()
    for name in before:
        need(equal(before[name], after[name]), f"{title(part)} changes {name} that are not its own")


def check_figures(part: Part, figures: Mapping[str, Any]) -> None:
    """There are some, and they are finite numbers."""
    need(len(figures) > 0, f"{title(part)} gives no figure")
    for name, value in figures.items():
        need(isinstance(value, int | float) and math.isfinite(value), f"{title(part)}: {name} is {value}, not a number")
