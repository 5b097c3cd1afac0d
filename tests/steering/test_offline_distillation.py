"""Offline distillation: what is kept against the teacher asked anew, places, replaced rows, and the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.files import cache_folder
from foretrain.steering.offline_distillation import OfflineDistillation
from foretrain.trainer import Trainer
from tests.steering.teachers import logits_of, prepared, save_teacher, taught, whole
from tests.tiny import CONTEXT, PROBLEMS

K = 6
SMALL = {
    "prose": {"path": "builtin:biographies", "options": {"people": 12}, "validation": 0.2},
    "sums": {"path": "builtin:arithmetic", "options": {"count": 14}, "validation": 0.2},
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_teacher(tmp_path_factory.mktemp("teacher"), steps=12)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETRAIN_CACHE", str(tmp_path / "cache"))


def offline(teacher: str, *others: dict[str, Any], **settings: Any) -> Trainer:
    top = {key: settings.pop(key) for key in ("documents", "feedback", "overlap", "corpus") if key in settings}
    part = {"kind": "offline_distillation", "model": "teacher", "candidates": K, **settings}
    return taught([*others, part], teacher, **{"corpus": SMALL, **top})


def part_of(one: Trainer) -> OfflineDistillation:
    part = one.steering[-1]
    assert isinstance(part, OfflineDistillation)
    return part


def expected(one: Trainer, teacher: str, domain: str, place: int) -> tuple[int, Tensor]:
    """A token of a set, and what the teacher says before it: read in the window that judges it."""
    tokens, half = one.stream.sets[domain], CONTEXT // 2
    start = place // half * half - (CONTEXT + 1 - half)
    window = torch.from_numpy(tokens.read(start % tokens.tokens, CONTEXT + 1))  # type: ignore[attr-defined]
    model = AutoModelForCausalLM.from_pretrained(teacher)
    batch = Batch({"inputs": window[None, :-1]}, seed=0, step=0, positions=torch.zeros(1), domains=())
    offset = (place - start) % tokens.tokens
    return int(window[offset]), logits_of(model, batch)[0, offset - 1].log_softmax(-1)


def test_every_place_holds_what_the_teacher_says_there(teacher: str) -> None:
    one = offline(teacher)
    for domain, table in part_of(one)._tables.items():
        assert len(table) == one.stream.sets[domain].tokens
        for place in (0, 1, 15, 16, 17, 100, len(table) - 1):
            label, scores = expected(one, teacher, domain, place)
            ids, known = table.rows(torch.tensor([place]), 1)
            assert int(ids[0, 0, 0]) == label
            others = scores.index_fill(0, torch.tensor(label), -torch.inf).topk(K - 1)
            assert ids[0, 0, 1:].tolist() == others.indices.tolist()
            torch.testing.assert_close(known[0, 0], scores[ids[0, 0]], atol=5e-3, rtol=1e-3)


def test_rows_get_what_stands_at_their_places(teacher: str) -> None:
    """Over several epochs, whose windows begin elsewhere, and round the end of the ring."""
    one = offline(teacher)
    for step in range(30):
        batch = prepared(one)
        made = part_of(one).mixed(part_of(one).known(batch), step)
        assert torch.equal(made.ids[..., 0], batch["labels"]) and int(made.ids.min()) >= 0
        row, column = step % batch.rows, step % CONTEXT
        domain = batch.domains[int(batch["domain"][row])]
        place = (int(batch["start"][row]) + 1 + column) % one.stream.sets[domain].tokens
        _, scores = expected(one, teacher, domain, place)
        r = scores[made.ids[row, column]].softmax(-1)
        q = 0.5 * r + 0.5 * torch.eye(K)[0]
        torch.testing.assert_close(made.probabilities[row, column], q, atol=5e-3, rtol=0)
        one.stream.advance()
    assert one.stream.epoch("sums") > 1


def test_rows_that_were_replaced_have_their_labels(teacher: str) -> None:
    feedback = {"problems": {**PROBLEMS, "options": {"count": 30, "seed": 7}}}
    mixing = {"kind": "mix_feedback", "feedback": "problems", "share": 0.5}
    one = offline(teacher, mixing, feedback=feedback, overlap="warn", weight=1.0)
    batch = one.objective.prepare(one.steering[0].replace(one.stream.batch()))
    made = part_of(one).mixed(part_of(one).known(batch), 0)
    replaced = ~batch["valid"].all(1)
    assert 2 <= int(replaced.sum()) <= 6
    found = whole(made.ids, made.probabilities, 384)
    onehot = torch.nn.functional.one_hot(batch["labels"], 384).float()
    for row in range(batch.rows):
        assert torch.equal(found[row], onehot[row]) == bool(replaced[row])
    line = one.train_step()
    assert line["offline_distillation/known"] == pytest.approx(1 - float(replaced.double().mean()))


def test_one_token_that_is_another_makes_a_row_unknown(teacher: str) -> None:
    one = offline(teacher)
    own = one.stream.batch()
    for column in (0, 10, CONTEXT):
        tokens = own["tokens"].clone()
        tokens[2, column] = (tokens[2, column] + 1) % 256
        ids, _ = part_of(one).known(one.objective.prepare(own.with_(tokens=tokens)))
        assert (ids[..., 1] >= 0).all(1).tolist() == [row != 2 for row in range(own.rows)]


def test_documents_apart_are_read_apart(teacher: str) -> None:
    one, other = offline(teacher, documents="separate"), offline(teacher)
    same = [
        torch.equal(*(table.rows(torch.arange(200), 1)[1] for table in tables))
        for tables in zip(part_of(one)._tables.values(), part_of(other)._tables.values(), strict=True)
    ]
    assert not any(same)
    assert all("loss" in one.train_step() for _ in range(2))


def test_it_is_made_once(teacher: str, tmp_path: Path) -> None:
    kept = cache_folder() / "taught"

    def made() -> set[str]:
        return {path.name for path in kept.iterdir() if not path.name.startswith(".")}

    first = offline(teacher).train_step()
    before = made()
    assert len(before) == 2  # a folder per domain
    again = offline(teacher, weight=0.3).train_step()
    assert (
        made() == before and again["offline_distillation/one_off_flops"] == first["offline_distillation/one_off_flops"]
    )
    offline(save_teacher(tmp_path / "other", seed=8))
    assert len(made()) == 4
    offline(teacher, candidates=K + 1)
    assert len(made()) == 6


def test_the_run_pays_nothing_and_says_what_was_paid(teacher: str) -> None:
    one, plain = offline(teacher), taught([], teacher, corpus=SMALL)
    lines = [one.counted_step()[0] for _ in range(2)]
    plain.counted_step()
    assert one.meter.per_kind[""] == plain.meter.per_kind[""]
    # Twice over all tokens, as forward passes: a third of what training on them would cost.
    tokens = sum(found.tokens for found in one.stream.sets.values())
    step = plain.meter.per_kind[""] / one.plan.tokens_per_step
    assert lines[0]["offline_distillation/one_off_flops"] == pytest.approx(2 * tokens * step / 3, rel=0.1)
    assert "offline_distillation/one_off_flops" not in lines[1] and lines[1]["offline_distillation/known"] == 1


def test_where_every_token_is_predicted_from_those_before(teacher: str) -> None:
    part = OfflineDistillation(model="teacher")
    one = taught([], teacher)
    object.__setattr__(one.context, "objective", type("Other", (), {"kind": "denoising"})())
    with pytest.raises(RequestError, match="objective 'denoising' predicts something else; take 'distillation'"):
        part.setup(one.context)
