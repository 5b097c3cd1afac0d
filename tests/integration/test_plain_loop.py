"""The trainer equals plain loops written independently of it: the same losses for the same data and weights."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.peers import run_hf_trainer
from tests.tiny import tiny_trainer

STEPS = 50


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_losses_equal_those_of_a_minimal_loop(kind: str) -> None:
    model = {"kind": kind, "layers": 2, "width": 32, "heads": 2, "feedforward": 64, "context": 32}
    trainer = tiny_trainer(
        STEPS,
        model=model,
        optimizer={"kind": "adamw", "lr": 3e-3},
        schedule={"kind": "cosine", "warmup": 5},
        stability={"spike": None},
    )
    plain = copy.deepcopy(trainer.learner.model)
    batches = []
    stream = trainer.plan.stream()
    for _ in range(STEPS):
        batches.append(stream.batch()["tokens"])
        stream.advance()

    matrices = [
        p
        for name, p in plain.named_parameters()
        if p.ndim == 2 and "embed" not in name and "wte" not in name and "wpe" not in name and "lm_head" not in name
    ]
    others = [p for p in plain.parameters() if not any(p is matrix for matrix in matrices)]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
        eps=1e-8,
    )
    losses = []
    for step, tokens in enumerate(batches):
        factor = (step + 1) / 5 if step < 5 else 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - 5) / (STEPS - 5)))
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * factor
        loss = nn.functional.cross_entropy(
            plain(input_ids=tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten()
        )
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())

    ours = [trainer.counted_step()[0]["loss"] for _ in range(STEPS)]
    assert ours == pytest.approx(losses, abs=1e-5)
    assert losses[-1] < losses[0] - 0.5


def test_losses_equal_those_of_the_transformers_trainer(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate")
    rate = 1e-3
    trainer = tiny_trainer(
        STEPS,
        optimizer={"kind": "adamw", "lr": rate, "decay_embeddings": True},
        schedule={"kind": "constant", "warmup": 0},
        stability={"spike": None},
    )
    plain = copy.deepcopy(trainer.learner.model)
    stream, batches = trainer.plan.stream(), []
    for _ in range(STEPS):
        batches.append(stream.batch()["tokens"])
        stream.advance()
    theirs: list[float] = []

    def hear(seconds: float | None, loss: float | None) -> None:
        if loss is not None:
            theirs.append(loss)

    run_hf_trainer(plain, iter(batches), STEPS, bf16=False, lr=rate, folder=tmp_path, on=hear)
    ours = [trainer.counted_step()[0]["loss"] for _ in range(STEPS)]
    # It reports four decimals.
    assert ours == pytest.approx(theirs, abs=2e-3)
