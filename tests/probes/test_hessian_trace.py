"""The trace against its exact value, summed over every label of every token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foretrain.batch import Batch
from foretrain.checks.trial import trial
from foretrain.kernels.accelerate import restore
from foretrain.probes.hessian_trace import HessianTrace, drawn_labels, score_square
from foretrain.trainer import Trainer


@pytest.fixture(scope="module")
def trained() -> Trainer:
    trainer = trial({"optimizer": {"kind": "adamw", "lr": 3e-3}, "documents": "separate"})
    for _ in range(20):
        trainer.train_step()
    return trainer


def _exact(trainer: Trainer, batch: Batch) -> float:
    """Sum over tokens of E_y |grad log f_y|^2: the trace of J' (diag p - p p') J, by one backward pass a label."""
    model: Any = restore(trainer.learner.model)
    parameters = list(model.parameters())
    places = batch["mask"][0].nonzero()[:, 0].tolist()
    logits = model(input_ids=batch["inputs"]).logits[0]
    total = 0.0
    for place in places:
        chances = logits[place].detach().softmax(-1)
        cotangents = torch.eye(len(chances)) - chances
        pieces = torch.autograd.grad(
            logits[place], parameters, cotangents, retain_graph=True, is_grads_batched=True, allow_unused=True
        )
        squares = sum((piece.flatten(1).square().sum(1) for piece in pieces if piece is not None), torch.zeros(()))
        total += float((chances * squares).sum())
    return total


def test_labels_are_drawn_from_the_model() -> None:
    logits = torch.randn(1, 1, 7, generator=torch.Generator().manual_seed(0)).expand(1, 20_000, 7)
    labels = drawn_labels(logits, 3)
    found = labels.flatten().bincount(minlength=7) / labels.numel()
    torch.testing.assert_close(found, logits[0, 0].softmax(-1), rtol=0, atol=0.012)
    assert torch.equal(labels, drawn_labels(logits, 3)) and not torch.equal(labels, drawn_labels(logits, 4))
    certain = torch.full((1, 4, 7), -1e9)
    certain[..., 5] = 0
    assert drawn_labels(certain, 0).tolist() == [[5, 5, 5, 5]]


def test_one_backward_pass_a_window_is_unbiased(trained: Trainer) -> None:
    batch = trained.objective.prepare(trained.stream.batch()).take(slice(0, 1))
    mask = batch["mask"] & (torch.arange(batch["mask"].shape[1]) < 2)  # a few tokens, so that all can be summed over
    batch = batch.with_(mask=mask)
    wanted = _exact(trained, batch)
    found = np.array([score_square(trained.context, batch, seed) for seed in range(200)])
    error = found.std(ddof=1) / len(found) ** 0.5
    assert abs(found.mean() - wanted) < 4 * error and error < 0.1 * wanted


def test_figures_are_means_per_token(trained: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    squares, tokens = iter([8.0, 2.0, 6.0]), []

    def known(context: Any, batch: Batch, seed: int) -> float:
        tokens.append(float(batch["mask"].sum()))
        return next(squares)

    monkeypatch.setattr("foretrain.probes.hessian_trace.score_square", known)
    found = HessianTrace(rows=3).measure(trained.context)
    assert found["trace"] == pytest.approx(16 / sum(tokens))
    rest = np.array([8.0, 2.0, 6.0]) - 16 / sum(tokens) * np.array(tokens)
    assert found["error"] == pytest.approx(rest.std(ddof=1) / np.mean(tokens) / 3**0.5)


def test_examples_are_windows_that_were_not_seen(trained: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Batch] = []

    def kept(context: Any, batch: Batch, seed: int) -> float:
        seen.append(batch)
        return 1.0

    monkeypatch.setattr("foretrain.probes.hessian_trace.score_square", kept)
    HessianTrace(rows=6).measure(trained.context)
    assert [int(batch["domain"][0]) for batch in seen] == [0, 1, 0, 1, 0, 1] and all(batch.rows == 1 for batch in seen)
    drawn = {tuple(batch["tokens"][0].tolist()) for batch in seen}
    assert len(drawn) == 6
    assert not drawn & {tuple(row) for row in trained.stream.batch()["tokens"].tolist()}


def test_a_flatter_model_has_a_smaller_trace(trained: Trainer) -> None:
    """Smaller output weights make a flatter distribution, whose gradients by the other weights are shorter."""
    probe, head = HessianTrace(rows=8), trained.learner.model.get_output_embeddings().weight  # type: ignore[operator]
    before = probe.measure(trained.context)
    names = [name for name, weight in trained.learner.masters.items() if weight is head]

    def moved(factor: float) -> dict[str, Tensor]:
        return {name: trained.learner.masters[name].detach() * factor for name in names}

    with trained.learner.at(moved(3.0)):
        assert probe.measure(trained.context)["trace"] > before["trace"]
    assert probe.measure(trained.context) == before
