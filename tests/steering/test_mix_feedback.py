"""Training on feedback: which rows, which items, what of them counts, and that it teaches them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats

from foretrain.errors import RequestError
from foretrain.feedback.text import TextSet
from foretrain.journal import read_journal
from foretrain.objectives.causal_lm import CausalLM
from foretrain.steering.mix_feedback import MixFeedback
from foretrain.trainer import Trainer
from tests.processes import finish, start, write_recipe
from tests.tasks.subjects import byte_tokenizer
from tests.tiny import CONTEXT, tiny_data, tiny_trainer

ROWS, STEPS = 8, 12
ITEMS = [{"question": f"{n} and {n}?", "solution": f"makes {2 * n}!"} for n in range(11, 18)]


@pytest.fixture
def items(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    return {"doubles": {"path": str(path), "prompt": "question", "completion": "solution"}}


def changes(items: dict[str, Any], share: float, **others: Any) -> dict[str, Any]:
    part = {"kind": "mix_feedback", "feedback": "doubles", "share": share}
    return {"budget": {"steps": STEPS}, "feedback": items, "steering": [part], **others}


def trainer(items: dict[str, Any], share: float = 0.25, **others: Any) -> Trainer:
    return tiny_trainer(STEPS, **changes(items, share, **others))


def part_of(one: Trainer) -> MixFeedback:
    part = one.steering[0]
    assert isinstance(part, MixFeedback)
    return part


def placed(one: Trainer, positions: range) -> list[tuple[int, int]]:
    return list(part_of(one)._items(positions))


@pytest.mark.parametrize("share", [0.125, 0.3, 0.01, 0.7, 1.0])
def test_the_share_holds_over_every_stretch(items: dict[str, Any], share: float) -> None:
    one = trainer(items, share)
    found = [position for position, _ in placed(one, range(4000))]
    assert found == sorted(set(found)), "no position is taken twice"
    for first in range(0, 3000, 97):
        for length in (8, 64, 1000):
            count = sum(first <= position < first + length for position in found)
            assert abs(count - share * length) <= 2
    # Asked step by step, the same positions and items.
    steps = [entry for step in range(500) for entry in placed(one, range(step * ROWS, (step + 1) * ROWS))]
    assert steps == placed(one, range(4000))


def test_one_falls_into_each_stretch_at_random(items: dict[str, Any]) -> None:
    found = [position for position, _ in placed(trainer(items, 0.125), range(8000))]
    assert [position // 8 for position in found] == list(range(1000))
    rows = Counter(position % 8 for position in found)
    assert stats.chisquare([rows[row] for row in range(8)]).pvalue > 0.01
    other = placed(trainer(items, 0.125, seed=1), range(8000))
    assert sum(a == b for a, (b, _) in zip(found, other, strict=True)) < 250


def test_items_come_pass_by_pass_shuffled_anew(items: dict[str, Any]) -> None:
    drawn = [item for _, item in placed(trainer(items), range(4 * 7 * 20))]
    passes = [tuple(drawn[first : first + 7]) for first in range(0, 140, 7)]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert len(set(passes)) > 15


@pytest.mark.parametrize("documents", ["together", "separate"])
def test_rows_are_replaced_and_only_completions_count(items: dict[str, Any], documents: str) -> None:
    how: dict[str, Any] = {} if documents == "together" else {"documents": documents}
    one, plain = trainer(items, **how), tiny_trainer(STEPS, budget={"steps": STEPS}, **how)
    tokenizer = byte_tokenizer()
    texts, several = Counter[str](), 0
    for step in range(STEPS):
        batch, before = one.steering[0].replace(one.stream.batch()), plain.stream.batch()
        prepared, expected = CausalLM().prepare(batch), CausalLM().prepare(before)
        listed = {position for position, _ in placed(one, range(step * ROWS, (step + 1) * ROWS))}
        for row, position in enumerate(batch.positions.tolist()):
            if position not in listed:
                assert all(torch.equal(prepared[name][row], expected[name][row]) for name in expected)
                continue
            counted = prepared["labels"][row][prepared["mask"][row]].tolist()
            completion = tokenizer.decode(counted)
            whole = tokenizer.decode(batch["tokens"][row].tolist())
            item = next(item for item in ITEMS if item["solution"] == completion.strip())
            assert whole.startswith(f"{item['question']} {item['solution']}")
            assert batch["tokens"].shape == before["tokens"].shape
            texts[completion.strip()] += 1
            if "segments" in batch:
                assert not batch["segments"][row].any(), "the item is one document"
                several += bool(before["segments"][row].any())
        assert torch.equal(batch["domain"], before["domain"])
        for each in (one, plain):
            each.stream.advance()
    assert bool(several) == (documents == "separate")
    assert sum(texts.values()) == 0.25 * STEPS * ROWS
    assert set(texts) == {item["solution"] for item in ITEMS}


@pytest.mark.parametrize("documents", ["together", "separate"])
def test_the_loss_of_a_replaced_row_is_that_of_the_item_alone(items: dict[str, Any], documents: str) -> None:
    """Padding has no influence, and neither has what stood in the window before."""
    how: dict[str, Any] = {} if documents == "together" else {"documents": documents}
    one, tokenizer = trainer(items, share=1.0, **how), byte_tokenizer()
    batch = one.objective.prepare(one.steering[0].replace(one.stream.batch()))
    with torch.no_grad():
        losses = one.objective.losses(one.objective.forward(one.learner.model, batch), batch)
        for row, (_, item) in enumerate(placed(one, range(ROWS))):
            prompt = tokenizer.encode([ITEMS[item]["question"]])[0]
            ids = torch.tensor(tokenizer.encode([f"{ITEMS[item]['question']} {ITEMS[item]['solution']}"])[0])
            logits = one.learner.model(input_ids=ids[None]).logits[0].log_softmax(-1)
            alone = [-float(logits[place - 1, ids[place]]) for place in range(len(prompt), len(ids))]
            assert losses[row][batch["mask"][row]].tolist() == pytest.approx(alone, abs=1e-5)
    counted = one.train_step()["mix_feedback/tokens"]
    assert counted == float(batch["mask"].sum())


def test_what_earlier_parts_took_out_stays_out(items: dict[str, Any]) -> None:
    one = trainer(items)
    batch = one.stream.batch()
    given = torch.rand(batch["tokens"].shape) < 0.5
    found = one.steering[0].replace(batch.with_(valid=given))
    rows = [position for position, _ in placed(one, range(ROWS))]
    for row in range(ROWS):
        assert torch.equal(found["valid"][row], given[row]) == (row not in rows)


def test_each_rank_replaces_its_own_rows(items: dict[str, Any]) -> None:
    one = trainer(items, 0.3)
    for _ in range(STEPS):
        whole = one.steering[0].replace(one.stream.batch())
        halves = [one.steering[0].replace(one.stream.batch(rank, 2)) for rank in (0, 1)]
        for name in whole:
            assert torch.equal(whole[name], torch.cat([half[name] for half in halves]))
        one.stream.advance()


def test_micro_batches_change_nothing(items: dict[str, Any]) -> None:
    whole, pieces = trainer(items), trainer(items, batch={"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT})
    for _ in range(4):
        assert whole.train_step()["loss"] == pytest.approx(pieces.train_step()["loss"], abs=1e-6)


@pytest.mark.slow
def test_two_processes_equal_one(items: dict[str, Any], tmp_path: Path) -> None:
    """Ranks with other numbers of loss tokens, as some have more replaced rows."""
    data = tiny_data(**changes(items, 0.3), evaluation={"tokens": 1024})
    command = ["run", str(write_recipe(tmp_path, data)), "--out", str(tmp_path / "run")]
    finish(start(command, processes=2, FORETRAIN_CACHE=str(tmp_path / "cache")))
    one = trainer(items, 0.3)
    expected = [one.train_step() for _ in range(STEPS)]
    found = [line for line in read_journal(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    for name in ("loss", "mix_feedback/tokens"):
        assert [line[name] for line in found] == pytest.approx([line[name] for line in expected], abs=1e-5)


def test_resume_is_exact(items: dict[str, Any]) -> None:
    whole = trainer(items)
    lines = [whole.counted_step()[0] for _ in range(STEPS)]
    cut, again = trainer(items), trainer(items)
    for _ in range(5):
        cut.counted_step()
    again.load_state_dict(cut.state_dict())
    assert [again.counted_step()[0] for _ in range(STEPS - 5)] == lines[5:]
    for name, weight in whole.learner.masters.items():
        assert torch.equal(weight, again.learner.masters[name])


def test_it_teaches_the_feedback(items: dict[str, Any]) -> None:
    losses, kept = [], []
    for share in (0.0, 0.125):
        one = tiny_trainer(40, **changes(items, share, budget={"steps": 40}, optimizer={"lr": 5e-3}))
        found = one.context.feedback("doubles")
        first = found.loss(0, 7)
        for _ in range(40):
            one.train_step()
        losses.append(found.loss(0, 7) / first)
        kept.append(one.measure(validate=True)["validation/loss"])
    assert losses[1] < 0.85 * losses[0]
    assert kept[1] < 1.1 * kept[0], "an eighth of the run costs the rest little"


def test_it_is_refused_without_text_feedback(items: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="did you mean 'doubles'"):
        tiny_trainer(steering=[{"kind": "mix_feedback", "feedback": "double"}], feedback=items)
    with pytest.raises(RequestError, match="the recipe has none"):
        tiny_trainer(steering=[{"kind": "mix_feedback", "feedback": "doubles"}])


def test_feedback_of_another_kind_is_refused(items: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    one = trainer(items)
    opened = one.context.feedback("doubles")
    assert isinstance(opened, TextSet)
    monkeypatch.setattr("foretrain.steering.mix_feedback.TextSet", type("OtherSet", (), {}))
    with pytest.raises(RequestError, match="feedback 'doubles' is 'text'; name one of kind"):
        one.steering[0].setup(one.context)
