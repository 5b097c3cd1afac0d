"""Validation: the losses of a plain loop over the split, bits per byte, and freedom from how it is computed."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from foretrain import evaluation
from foretrain.distributed import Group
from foretrain.evaluation import Validation
from foretrain.trainer import Trainer
from tests.tiny import CONTEXT, tiny_trainer


def measure(trainer: Trainer, validation: Validation | None = None) -> dict[str, float]:
    return (validation or trainer.validation).measure(trainer.learner, trainer.objective, Group())


def naive(trainer: Trainer, domain: str, limit: int) -> float:
    """Mean loss of the first `limit` tokens of the split, window after window, one at a time."""
    found = trainer.plan.sets("validation")[domain]
    tokens = torch.from_numpy(found.read(0, found.tokens))
    ring = torch.cat([tokens[-1:], tokens])  # the first token is predicted from the end of the last document
    losses = []
    with torch.no_grad():
        for start in range(0, min(limit, found.tokens), CONTEXT):
            window = ring[start : start + CONTEXT + 1]
            logits = trainer.learner.model(input_ids=window[None, :-1]).logits[0]
            losses += functional.cross_entropy(logits.double(), window[1:], reduction="none").tolist()
    return math.fsum(losses[:limit]) / min(limit, found.tokens)


@pytest.mark.parametrize("limit", [500, 64, 10**9])
def test_it_equals_a_plain_loop(limit: int) -> None:
    trainer = tiny_trainer(evaluation={"tokens": limit})
    trainer.counted_step()
    figures = measure(trainer)
    for domain in ("prose", "sums"):
        assert figures[f"validation/{domain}/loss"] == pytest.approx(naive(trainer, domain, limit), abs=1e-5)
    mixed = (2 * figures["validation/prose/loss"] + figures["validation/sums/loss"]) / 3
    assert figures["validation/loss"] == pytest.approx(mixed, rel=1e-12)
    losses = [figures["validation/prose/loss"], figures["validation/sums/loss"]]
    assert figures["validation/mean_loss"] == pytest.approx(sum(losses) / 2, rel=1e-12)
    assert figures["validation/worst_loss"] == max(losses) > min(losses)


def test_bits_per_byte_need_no_knowledge_of_the_tokenizer() -> None:
    trainer = tiny_trainer(tokenizer={"kind": "bpe", "vocabulary": 512}, evaluation={"tokens": 10**9})
    figures = measure(trainer)
    for domain, found in trainer.plan.sets("validation").items():
        nats = figures[f"validation/{domain}/loss"] * found.tokens
        assert figures[f"validation/{domain}/bits_per_byte"] == pytest.approx(nats / math.log(2) / found.bytes)
        assert found.bytes > 1.2 * found.tokens


def test_it_does_not_depend_on_rows_batch_or_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = tiny_trainer()
    figures = measure(trainer)
    monkeypatch.setattr(evaluation, "ROWS", 3)
    assert measure(trainer) == pytest.approx(figures, rel=1e-6)
    other = tiny_trainer(batch={"tokens": 2 * CONTEXT, "micro": CONTEXT})
    assert measure(other) == pytest.approx(figures, rel=1e-6)


def test_it_leaves_the_model_as_it_was_and_has_no_dropout() -> None:
    model = {"kind": "gpt2", "layers": 2, "width": 32, "heads": 2, "context": CONTEXT, "dropout": 0.5}
    trainer = tiny_trainer(model=model)
    state, weights = torch.get_rng_state(), {n: p.detach().clone() for n, p in trainer.learner.masters.items()}
    assert measure(trainer) == measure(trainer)
    assert torch.equal(state, torch.get_rng_state()) and trainer.learner.model.training
    assert all(p.grad is None and torch.equal(p, weights[n]) for n, p in trainer.learner.masters.items())


def test_ranks_share_the_windows() -> None:
    """What two ranks sum up, one after the other, is what one process finds."""
    trainer = tiny_trainer()
    sums: list[list[float]] = []

    class OneOfTwo(Group):
        def sum(self, *values: object) -> list[float]:
            sums.append([float(value) for value in values])  # type: ignore[arg-type]
            return sums[-1]

    whole = measure(trainer)
    for rank in (0, 1):
        trainer.validation.measure(trainer.learner, trainer.objective, OneOfTwo(rank=rank, world=2))
    for number, domain in enumerate(("prose", "sums")):
        total, count = (sums[number][i] + sums[number + 2][i] for i in (0, 1))
        assert total / count == pytest.approx(whole[f"validation/{domain}/loss"], rel=1e-6)
        assert count == min(2048, trainer.plan.sets("validation")[domain].tokens)


def test_domains_without_weight_are_judged_and_do_not_count() -> None:
    corpus = {
        "prose": {"path": "builtin:biographies", "options": {"people": 150}, "validation": 0.2},
        "other": {"path": "builtin:arithmetic", "options": {"count": 120}, "validation": 0.9, "weight": 0},
    }
    figures = measure(tiny_trainer(corpus=corpus))
    assert figures["validation/loss"] == figures["validation/prose/loss"]
    assert "validation/other/loss" in figures
    corpus["prose"]["validation"] = corpus["other"]["validation"] = 0
    assert measure(tiny_trainer(corpus=corpus)) == {}


def test_separate_documents_are_judged_apart() -> None:
    packed, apart = tiny_trainer(), tiny_trainer(documents="separate")
    assert measure(packed)["validation/sums/loss"] != measure(apart)["validation/sums/loss"]
    # The loss of a document does not depend on what stands before it: a loop over the pieces of each window.
    found = apart.plan.sets("validation")["sums"]
    total = count = 0.0
    with torch.no_grad():
        for batch in found.windows(CONTEXT + 1, CONTEXT, rows=1, limit=2048, segments=True):
            tokens, segments, valid = (batch[name][0] for name in ("tokens", "segments", "valid"))
            for segment in segments.unique():
                piece = tokens[segments == segment]
                if len(piece) > 1:
                    logits = apart.learner.model(input_ids=piece[None, :-1]).logits[0]
                    losses = functional.cross_entropy(logits, piece[1:], reduction="none")
                    keep = valid[segments == segment][1:]
                    total, count = total + float(losses[keep].sum()), count + float(keep.sum())
    assert measure(apart)["validation/sums/loss"] == pytest.approx(total / count, abs=1e-5)
