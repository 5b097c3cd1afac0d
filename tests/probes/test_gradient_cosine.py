"""Cosines of the domains' gradients against autograd on a copy of the model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from foretrain.checks.trial import TINY, trial
from foretrain.errors import RequestError
from foretrain.probes.gradient_cosine import GradientCosine
from foretrain.trainer import Trainer

THREE = {
    **TINY["corpus"],
    "canaries": {"path": "builtin:canaries", "options": {"count": 100}, "validation": 0.2},
}


@pytest.fixture(scope="module")
def trained() -> Trainer:
    trainer = trial({"corpus": THREE})
    for _ in range(3):
        trainer.train_step()
    return trainer


def test_it_is_the_cosine_of_all_pairs(trained: Trainer) -> None:
    stream, found = trained.stream, []
    model = copy.deepcopy(trained.learner.model)
    for name in stream.domains:
        first = stream.seen(name) + stream.rows
        tokens = stream.windows_at(name, torch.arange(first, first + 5).numpy())["tokens"]
        logits = model(input_ids=tokens[:, :-1]).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        gradients: tuple[Tensor, ...] = torch.autograd.grad(loss, list(model.parameters()))
        found.append(torch.cat([gradient.flatten() for gradient in gradients]))
    wanted = [float(nn.functional.cosine_similarity(found[i], found[j], dim=0)) for i, j in ((0, 1), (0, 2), (1, 2))]
    figures = GradientCosine(rows=5).measure(trained.context)
    assert figures["mean"] == pytest.approx(sum(wanted) / 3, abs=1e-5)
    assert figures["least"] == pytest.approx(min(wanted), abs=1e-5)
    assert figures["least"] < figures["mean"] < 1


def test_domains_that_are_no_longer_drawn_are_left_out(trained: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained.stream, "weights", {"prose": 1.0, "sums": 0.0, "canaries": 0.0})
    assert GradientCosine(rows=2).measure(trained.context) == {"mean": 1.0, "least": 1.0}


def test_one_domain_is_an_error() -> None:
    with pytest.raises(RequestError, match="the stream draws from one"):
        trial({"corpus": {"prose": TINY["corpus"]["prose"]}, "probes": ["gradient_cosine"]})
