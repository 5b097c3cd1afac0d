"""Fine-tuning: a copy of a model and one linear layer, trained on labels, at several learning rates and seeds.

Every model is read both ways, a decoder too: what is compared is what its weights know, not the mask that they were
trained with. The learning rate is chosen for each model by itself, on examples that neither train nor judge, since
models differ in how much of one they bear.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional

from foretrain.errors import RequestError
from foretrain.hashing import seed_from
from foretrain.models.attention import attention_mask
from foretrain.section import Count, Number, Section
from foretrain.subject import Subject
from foretrain.tasks._probing import divided
from foretrain.tasks.base import Evaluated
from foretrain.tasks.items import Item
from foretrain.tasks.likelihood import pad_right


class Tuning(Section):
    """How fine-tuning is done: the fields that tasks of it share."""

    rates: list[Number] = Field([1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4], min_length=1)
    """Peak learning rates that are tried; the one with the best accuracy on the examples that choose is taken."""
    seeds: Count = Field(5, gt=0)
    """Fine-tunings at each rate, which differ in the new layer and in the order of the examples."""
    steps: Count = Field(1000, gt=0)
    """Steps of each, at most."""
    epochs: Number = Field(1.0, gt=0)
    """Passes over the examples, at most."""
    batch: Count = Field(32, gt=0)
    """Examples a step."""
    warmup: Number = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the rate rises; then it falls to 0 on a straight line."""
    choose: Number = Field(0.2, gt=0, lt=1)
    """Share of the items that teach which are kept back, to choose the rate by."""


Taught = TypeVar("Taught", bound=Item)


def kept_back(items: Sequence[Taught], share: float, path: str) -> tuple[list[Taught], list[Taught]]:
    """Items that train and items that choose the rate, by content.

    Raises:
        RequestError: they are too few for both.
    """
    train, choosing = divided(((["choose", item.text], item) for item in items), share)
    if not train or not choosing:
        raise RequestError(
            f"{path}: {len(items)} items that teach are too few to keep a share of {share:g} back (`choose`); give it "
            "more, or another share."
        )
    return train, choosing


@dataclass(frozen=True, slots=True)
class Example:
    """A text with one label, or with a label at some of its tokens.

    Attributes:
        ids: its tokens.
        labels: numbers of classes.
        places: of the tokens that have the labels; None: the one label is the text's.
    """

    ids: list[int]
    labels: tuple[int, ...]
    places: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Sides:
    """Examples that train, that choose the learning rate, and that judge."""

    train: Sequence[Example]
    choose: Sequence[Example]
    judge: Sequence[Example]


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came of one learning rate.

    Attributes:
        rate: the learning rate.
        chosen: mean accuracy over seeds on the examples that choose.
        accuracy: the same on those that judge.
        right: mean over seeds of whether each judging label was right.
        losses: mean over seeds of each judging label's cross-entropy, in nats.
    """

    rate: float
    chosen: float
    accuracy: float
    right: np.ndarray
    losses: np.ndarray


class Classifier(nn.Module):
    """A model's body, read both ways, and a linear layer: on the mean of a text's states, or on single ones."""

    def __init__(self, model: Any, classes: int, seed: int) -> None:
        super().__init__()
        self.body = copy.deepcopy(model.base_model).float().requires_grad_(True)
        width = int(model.config.get_text_config().hidden_size)
        generator = torch.Generator().manual_seed(seed_from(seed, "classifier"))
        with torch.device("meta"):
            self.layer = nn.Linear(width, classes)
        self.layer.to_empty(device=next(self.body.parameters()).device)
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(classes, width, generator=generator) * 0.02)
            self.layer.bias.zero_()

    def forward(self, examples: Sequence[Example]) -> Tensor:
        """Logits float32 [labels, classes], of all examples in turn."""
        device = self.layer.weight.device
        ids, mask = (tensor.to(device) for tensor in pad_right([example.ids for example in examples]))
        # Padding is a document of its own, so that no token of the text sees it.
        seen = attention_mask("bidirectional", ids.shape[1], torch.where(mask, 0, -1), device=device)
        states = self.body(input_ids=ids, attention_mask=seen).last_hidden_state
        if examples[0].places is None:
            pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        else:
            pairs = [(row, place) for row, example in enumerate(examples) for place in example.places or ()]
            rows, places = torch.tensor(pairs, device=device).T
            pooled = states[rows, places]
        return self.layer(pooled)


def fine_tune(subject: Evaluated, sides: Sides, classes: int, tuning: Tuning) -> list[Tuned]:
    """Every rate of the grid, in its order.

    Raises:
        RequestError: it is no single model that can be trained here.
    """
    model = subject.model if isinstance(subject, Subject) else None
    if model is None or any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        raise RequestError(
            "Only a single model that lies whole in one process can be fine-tuned, not an ensemble or one that is "
            "sharded; fine-tune the finished run instead (foretrain finetune RUN --task FILE)."
        )
    found = []
    for rate in tuning.rates:
        outcomes = [_one(model, sides, classes, tuning, rate, seed) for seed in range(tuning.seeds)]
        chosen = float(np.mean([outcome[0] for outcome in outcomes]))
        right, losses = (np.mean(np.stack(each), axis=0) for each in list(zip(*outcomes, strict=True))[1:])
        found.append(Tuned(rate, chosen, float(right.mean()), right, losses))
    return found


def best(tuned: Sequence[Tuned]) -> Tuned:
    """The rate with the best accuracy on the examples that choose; of equal ones the lower."""
    return max(tuned, key=lambda each: (each.chosen, -each.rate))


def _one(
    model: Any, sides: Sides, classes: int, tuning: Tuning, rate: float, seed: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Accuracy on what chooses; whether each label that judges is right, and its loss."""
    devices = [next(model.parameters()).device] if next(model.parameters()).is_cuda else []
    with torch.enable_grad(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed_from(seed, "finetune"))  # dropout
        classifier = Classifier(model, classes, seed).train()
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=rate, weight_decay=0.0)
        total = min(tuning.steps, max(1, round(tuning.epochs * len(sides.train) / tuning.batch)))
        for step, batch in zip(range(total), _batches(sides.train, tuning.batch, seed), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = rate * _factor(step, total, tuning.warmup)
            labels = torch.tensor([label for example in batch for label in example.labels])
            optimizer.zero_grad()
            logits = classifier(batch)
            functional.cross_entropy(logits, labels.to(logits.device)).backward()
            nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
            optimizer.step()
    right, _ = _judged(classifier, sides.choose)
    return float(right.mean()), *_judged(classifier, sides.judge)


def _batches(examples: Sequence[Example], size: int, seed: int) -> Iterator[list[Example]]:
    """Batches without end, over the examples in an order of its own each time."""
    generator = np.random.Generator(np.random.Philox(key=seed_from(seed, "examples")))
    waiting: list[int] = []
    while True:
        while len(waiting) < min(size, len(examples)):
            waiting += generator.permutation(len(examples)).tolist()
        yield [examples[i] for i in waiting[:size]]
        del waiting[:size]


def _factor(step: int, total: int, warmup: float) -> float:
    rise = round(warmup * total)
    return (step + 1) / (rise + 1) if step < rise else (total - step) / (total - rise)


@torch.no_grad()
def _judged(classifier: Classifier, examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    """Whether each label is right, and its cross-entropy in nats."""
    classifier.eval()
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].ids))
    right: dict[int, np.ndarray] = {}
    losses: dict[int, np.ndarray] = {}
    for first in range(0, len(order), 64):
        numbers = order[first : first + 64]
        logits = classifier([examples[i] for i in numbers]).float().cpu()
        labels = torch.tensor([label for i in numbers for label in examples[i].labels])
        counts = np.cumsum([len(examples[i].labels) for i in numbers])[:-1]
        hit, loss = (logits.argmax(1) == labels), functional.cross_entropy(logits, labels, reduction="none")
        right |= dict(zip(numbers, np.split(hit.double().numpy(), counts), strict=True))
        losses |= dict(zip(numbers, np.split(loss.double().numpy(), counts), strict=True))
    every = range(len(examples))
    return np.concatenate([right[i] for i in every]), np.concatenate([losses[i] for i in every])
