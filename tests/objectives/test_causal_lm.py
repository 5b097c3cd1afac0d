"""Causal language modelling: what is predicted from what, packed and with documents apart."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from foretrain.batch import Batch
from foretrain.models.attention import attention_mask, positions_within
from foretrain.objectives.base import Targets
from foretrain.objectives.causal_lm import CausalLM
from tests.tasks.subjects import write_items
from tests.tiny import CONTEXT, tiny_trainer

DOCUMENTS = torch.tensor([[0, 0, 0, 1, 1, 2], [0, 1, 2, 2, 2, 2]])


def batch(**tensors: Tensor) -> Batch:
    rows = next(iter(tensors.values())).shape[0]
    return Batch(tensors, seed=0, step=0, positions=torch.arange(rows), domains=("a",))


def test_each_token_is_predicted_from_those_before_it() -> None:
    tokens = torch.arange(12).view(2, 6)
    prepared = CausalLM().prepare(batch(tokens=tokens))
    assert torch.equal(prepared["inputs"], tokens[:, :5]) and torch.equal(prepared["labels"], tokens[:, 1:])
    assert prepared["mask"].all() and "documents" not in prepared
    assert CausalLM().window(100) == 101


def test_only_valid_tokens_are_judged() -> None:
    valid = torch.tensor([[True, True, False, True]])
    prepared = CausalLM().prepare(batch(tokens=torch.arange(4)[None], valid=valid))
    assert prepared["mask"].tolist() == [[True, False, True]]


def test_the_first_token_of_a_document_is_not_predicted_from_the_one_before() -> None:
    prepared = CausalLM().prepare(batch(tokens=torch.arange(12).view(2, 6), segments=DOCUMENTS))
    assert prepared["mask"].tolist() == [[True, True, False, True, False], [False, False, True, True, True]]
    assert torch.equal(prepared["documents"], DOCUMENTS[:, :-1])


def test_attention_and_positions_start_anew_at_each_document() -> None:
    mask = attention_mask("causal", 6, DOCUMENTS)
    assert mask.shape == (2, 1, 6, 6)
    for row in range(2):
        for i in range(6):
            for j in range(6):
                assert bool(mask[row, 0, i, j]) == (j <= i and bool(DOCUMENTS[row, i] == DOCUMENTS[row, j]))
    assert positions_within(DOCUMENTS).tolist() == [[0, 1, 2, 0, 1, 0], [0, 0, 0, 1, 2, 3]]


MODELS: dict[str, dict[str, Any]] = {
    "llama": {"kind": "llama", "layers": 2, "width": 32, "heads": 2, "feedforward": 64, "context": CONTEXT},
    "gpt2": {"kind": "gpt2", "layers": 2, "width": 32, "heads": 2, "context": CONTEXT},
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_run_with_documents_apart_equals_one_that_reads_each_document_alone(kind: str, tmp_path: Path) -> None:
    steps = 5
    texts = [{"text": f"number {n} of them "[: 6 + n % 13]} for n in range(400)]
    path = write_items(tmp_path / "short.jsonl", texts)
    changes: dict[str, Any] = {
        "model": MODELS[kind],
        "optimizer": {"lr": 3e-3},
        "schedule": {"kind": "constant", "warmup": 0},
        "corpus": {"short": path},
        "stability": {"clip": None, "spike": None},
    }
    trainer = tiny_trainer(steps, **changes, documents="separate")
    plain = copy.deepcopy(trainer.learner.model)
    stream = trainer.plan.stream()
    optimizer = trainer.plan.recipe.optimizer.build(dict(plain.named_parameters()), trainer.learner.roles)
    losses, documents = [], 0
    for _ in range(steps):
        found = stream.batch()
        stream.advance()
        pieces = []
        for tokens, segments in zip(found["tokens"], found["segments"], strict=True):
            for segment in segments.unique():
                piece = tokens[segments == segment]
                documents += 1
                if len(piece) > 1:
                    logits = plain(input_ids=piece[None, :-1]).logits[0]
                    pieces.append(functional.cross_entropy(logits, piece[1:], reduction="none"))
        loss = torch.cat(pieces).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert documents > 8 * steps * 2, "windows hold several documents"
    assert [trainer.counted_step()[0]["loss"] for _ in range(steps)] == pytest.approx(losses, abs=1e-5)
    packed = tiny_trainer(steps, **changes, documents="packed")
    assert [packed.counted_step()[0]["loss"] for _ in range(steps)] != pytest.approx(losses, abs=1e-3)


def test_soft_targets_take_the_place_of_labels_where_the_mask_is_on() -> None:
    trainer = tiny_trainer()
    objective, model = trainer.objective, trainer.learner.model
    prepared = objective.prepare(trainer.stream.batch()).take(slice(0, 2))
    prepared = prepared.with_(mask=prepared["mask"] & (torch.arange(CONTEXT) % 3 > 0))
    outputs = objective.forward(model, prepared)
    one_hot = Targets(prepared["labels"][..., None], torch.ones(*prepared["labels"].shape, 1))
    hard = objective.losses(outputs, prepared)
    torch.testing.assert_close(objective.losses(outputs, prepared, one_hot), hard)
    assert (hard[~prepared["mask"]] == 0).all() and (hard[prepared["mask"]] > 0).all()
    uniform = Targets(
        torch.arange(384).expand(*prepared["labels"].shape, -1), torch.full((*prepared["labels"].shape, 384), 1 / 384)
    )
    log_p = outputs.logits().log_softmax(-1)[..., :384]
    expected = -log_p.mean(-1) * prepared["mask"]
    torch.testing.assert_close(objective.losses(outputs, prepared, uniform).detach(), expected, rtol=1e-4, atol=1e-4)
