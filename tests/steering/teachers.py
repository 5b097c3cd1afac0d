"""Teachers for tests of targets: tiny models of the tiny run's own tokenizer, some steps into their training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foretrain.batch import Batch
from foretrain.trainer import Trainer
from tests.tiny import tiny_trainer


def save_teacher(folder: Path, steps: int = 0, seed: int = 7, **changes: Any) -> str:
    """A teacher's folder: a model of its own seed, after some steps on the tiny corpus."""
    one = tiny_trainer(max(steps, 8), seed=seed, optimizer={"lr": 1e-2}, **changes)
    for _ in range(steps):
        one.train_step()
    one.learner.model.save_pretrained(folder)  # type: ignore[operator]
    one.context.tokenizer.save(folder)
    return str(folder)


def taught(steering: list[dict[str, Any]], teacher: str | list[str], steps: int = 8, **changes: Any) -> Trainer:
    """A trainer of the tiny recipe with a model that is named `teacher`."""
    return tiny_trainer(steps, steering=steering, models={"teacher": {"path": teacher}}, **changes)


def prepared(one: Trainer) -> Batch:
    """The batch of a trainer's step, as the model reads it."""
    return one.objective.prepare(one.stream.batch())


def logits_of(model: Any, batch: Batch) -> Tensor:
    """A model's logits on a batch, by the model alone."""
    with torch.no_grad():
        found: Tensor = model(input_ids=batch["inputs"]).logits
    return found


def whole(ids: Tensor, probabilities: Tensor, vocabulary: int) -> Tensor:
    """Sparse targets as distributions over the vocabulary."""
    live = ids.clamp_min(0)
    return torch.zeros(*ids.shape[:-1], vocabulary).scatter_add_(-1, live, probabilities.masked_fill(ids < 0, 0.0))
