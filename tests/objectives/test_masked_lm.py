"""Masked language modelling: which tokens are chosen, what stands in their place, what is predicted."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.objectives._corruption import Corrupted, Replacement, corrupt
from foretrain.objectives.masked_lm import MaskedLM
from foretrain.tokens.tokenizer import TextTokenizer
from tests.tasks.subjects import byte_tokenizer
from tests.tiny import CONTEXT, tiny_trainer

MODEL: dict[str, Any] = {
    "kind": "eurobert",
    "layers": 2,
    "width": 32,
    "heads": 2,
    "feedforward": 64,
    "context": CONTEXT,
}
MASK, PAD, END = 2, 1, 0


def batch(tokens: Tensor, seed: int = 0, step: int = 0, first: int = 0, **tensors: Tensor) -> Batch:
    positions = torch.arange(first, first + len(tokens))
    return Batch({"tokens": tokens, **tensors}, seed=seed, step=step, positions=positions, domains=("a",))


def text(rows: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(128, 384, (rows, length), generator=torch.Generator().manual_seed(seed))


def fitted(**fields: Any) -> MaskedLM:
    part = MaskedLM(**fields)
    part.fit(byte_tokenizer(), CONTEXT)
    return part


def test_chosen_tokens_are_hidden_and_asked_for_and_no_others() -> None:
    tokens = text(40, 250)
    prepared = fitted(rate=0.3).prepare(batch(tokens))
    chosen = prepared["mask"]
    assert (prepared["inputs"][chosen] == MASK).all()
    assert torch.equal(prepared["inputs"][~chosen], tokens[~chosen]) and torch.equal(prepared["labels"], tokens)
    # 10,000 independent draws: five standard deviations are 0.023; and rows differ in their number as draws do.
    assert float(chosen.float().mean()) == pytest.approx(0.3, abs=0.023)
    spread = float(chosen.float().sum(1).var()) / (250 * 0.3 * 0.7)
    assert 0.4 < spread < 1.9


def test_berts_replacement_is_80_10_10() -> None:
    tokens = text(60, 500)
    prepared = fitted(rate=0.5, random=0.1, kept=0.1).prepare(batch(tokens))
    chosen, inputs = prepared["mask"], prepared["inputs"]
    masked = inputs[chosen] == MASK
    same = inputs[chosen] == tokens[chosen]
    assert float(masked.float().mean()) == pytest.approx(0.8, abs=0.02)
    assert float(same.float().mean()) == pytest.approx(0.1 + 0.1 / 256, abs=0.015)
    others = inputs[chosen][~masked & ~same]
    assert int(others.min()) >= 128 and len(others.unique()) > 200


@given(st.integers(0, 2**31), st.floats(0.05, 0.95), st.integers(0, 10**9))
@settings(max_examples=10, deadline=None)
def test_a_higher_rate_hides_more_of_the_same_and_rows_are_pure(seed: int, rate: float, first: int) -> None:
    tokens = text(4, 60)
    low, high = (fitted(rate=r).prepare(batch(tokens, seed, first=first)) for r in (rate * 0.9, rate))
    assert not (low["mask"] & ~high["mask"]).any()
    alone = fitted(rate=rate).prepare(batch(tokens, seed, first=first).take(torch.tensor([2])))
    for name in ("inputs", "labels", "mask"):
        assert torch.equal(alone[name][0], high[name][2])


def test_special_and_invalid_tokens_are_never_asked_for() -> None:
    tokens = text(8, 200)
    tokens[:, ::5] = END
    valid = torch.arange(200) < 120
    prepared = fitted(rate=0.9).prepare(batch(tokens, valid=valid.expand(8, -1)))
    assert not prepared["mask"][:, ::5].any() and not prepared["mask"][:, 120:].any()
    assert float(prepared["mask"][:, :120].float().mean()) == pytest.approx(0.9 * 0.8, abs=0.05)
    assert "documents" not in prepared
    given_ = torch.arange(200) < 50
    learned = fitted(rate=0.9).prepare(batch(tokens, given=given_.expand(8, -1)))["mask"]
    assert not learned[:, :50].any() and learned[:, 50:].any()


def test_padding_is_nobodys_context() -> None:
    tokens = text(2, 6)
    tokens[0, 4:] = PAD
    assert fitted().prepare(batch(tokens))["documents"].tolist() == [[0, 0, 0, 0, -1, -1], [0] * 6]
    segments = torch.tensor([[0, 0, 1, 1, 1, 1]] * 2, dtype=torch.int32)
    assert fitted().prepare(batch(tokens, segments=segments))["documents"].tolist() == [
        [0, 0, 1, 1, -1, -1],
        [0, 0, 1, 1, 1, 1],
    ]


def test_the_rate_moves_on_a_straight_line() -> None:
    trainer = tiny_trainer(11, model=MODEL, objective={"kind": "masked_lm", "rate": 0.4, "final_rate": 0.2})
    tokens = text(50, 400)
    for step, rate in ((0, 0.4), (5, 0.3), (10, 0.2), (30, 0.2)):
        found = float(trainer.objective.prepare(batch(tokens, step=step))["mask"].float().mean())
        assert found == pytest.approx(rate, abs=0.02)


def test_losses_are_those_of_transformers_at_the_chosen_tokens() -> None:
    trainer = tiny_trainer(model=MODEL, objective="masked_lm")
    prepared = trainer.objective.prepare(trainer.stream.batch())
    model: Any = trainer.learner.model.eval()
    losses = trainer.objective.losses(trainer.objective.forward(model, prepared), prepared)
    logits = model(input_ids=prepared["inputs"]).logits
    each = functional.cross_entropy(logits.flatten(0, 1), prepared["labels"].flatten(), reduction="none")
    torch.testing.assert_close(losses, each.view_as(losses) * prepared["mask"], atol=1e-5, rtol=1e-5)
    expected = model(input_ids=prepared["inputs"], labels=prepared["labels"].masked_fill(~prepared["mask"], -100)).loss
    torch.testing.assert_close(losses.sum() / prepared["mask"].sum(), expected, atol=1e-5, rtol=1e-5)


def test_documents_apart_are_read_apart() -> None:
    trainer = tiny_trainer(model=MODEL, objective="masked_lm", documents="separate")
    while not (prepared := trainer.objective.prepare(trainer.stream.batch()))["documents"].any():
        trainer.stream.advance()
    model: Any = trainer.learner.model.eval()
    before = trainer.objective.forward(model, prepared).logits()
    row = int((prepared["documents"].amax(1) > 0).nonzero()[0])
    other = prepared["documents"][row] != prepared["documents"][row, 0]
    changed = prepared["inputs"].clone()
    changed[row, other] = 200
    after = trainer.objective.forward(model, prepared.with_(inputs=changed)).logits()
    torch.testing.assert_close(before[row, ~other], after[row, ~other], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(before[row, other], after[row, other], atol=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_mask_that_is_new_begins_as_the_mean_once(precision: str) -> None:
    settings: dict[str, Any] = {"model": MODEL, "precision": precision}
    trainer = tiny_trainer(**settings, objective={"kind": "masked_lm", "new_mask": True})
    embedding = trainer.context.weights["model.embed_tokens.weight"]
    mean, before = embedding[128:].mean(0).clone(), embedding.detach().clone()
    trainer.objective.before_step(0)
    torch.testing.assert_close(embedding[MASK], mean)
    used: Any = trainer.learner.model
    torch.testing.assert_close(used.get_input_embeddings().weight[MASK].float(), mean, atol=1e-2, rtol=1e-2)
    embedding.data.copy_(before)
    trainer.objective.before_step(1)
    assert torch.equal(embedding, before) and trainer.objective.state_dict() == {}


def test_without_being_new_the_mask_stays() -> None:
    trainer = tiny_trainer(model=MODEL, objective="masked_lm")
    before = trainer.context.weights["model.embed_tokens.weight"].detach().clone()
    trainer.objective.before_step(0)
    assert torch.equal(trainer.context.weights["model.embed_tokens.weight"], before)
    trainer.objective.take_over()
    assert not torch.equal(trainer.context.weights["model.embed_tokens.weight"], before)


def test_learning_finds_what_both_sides_tell() -> None:
    """Text in which each middle token is the sum of its neighbours: only reading both ways tells it."""
    trainer = tiny_trainer(1, model=MODEL, objective="masked_lm", optimizer={"kind": "adamw", "lr": 0.01})
    model: Any = trainer.learner.model
    ends = torch.cartesian_prod(torch.arange(6), torch.arange(6))
    tokens = torch.stack([ends[:, 0], (ends[:, 0] + ends[:, 1]) % 6, ends[:, 1]], 1) + 128
    middle = torch.tensor([False, True, False]).expand_as(tokens)
    prepared = Batch(
        {"inputs": tokens.masked_fill(middle, MASK), "labels": tokens, "mask": middle},
        seed=0,
        step=0,
        positions=torch.arange(36),
        domains=("a",),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(120):
        optimizer.zero_grad()
        loss = trainer.objective.losses(trainer.objective.forward(model, prepared), prepared).sum() / 36
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValidationError, match="shares of the chosen tokens"):
        MaskedLM(random=0.6, kept=0.6)
    fast = copy.deepcopy(byte_tokenizer().fast)
    fast.mask_token = None
    with pytest.raises(RequestError, match="hides tokens behind a mask, and this tokenizer has no mask token"):
        MaskedLM().fit(TextTokenizer(fast), CONTEXT)


def test_a_policy_sees_its_row_alone_and_may_give_a_prefix() -> None:
    tokens = text(3, 5)

    def policy(row: Any, generator: np.random.Generator) -> Corrupted:
        replaced = Replacement(MASK, np.array([128]))(row["tokens"], row["marks"], generator)
        return Corrupted(replaced, row["tokens"], row["marks"], prefix=int(row["marks"].sum()))

    marks = torch.tensor([[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0] * 5], dtype=torch.bool)
    found = corrupt(batch(tokens, marks=marks), policy, "test")
    assert torch.equal(found["inputs"], tokens.masked_fill(marks, MASK)) and found["prefix"].tolist() == [1, 2, 0]
