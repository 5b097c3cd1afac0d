"""SALT's choice of windows: the score by an explicit loop, where candidates come from, and what stays as it was."""

from __future__ import annotations

import math
from statistics import median_low
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.objectives.outputs import Outputs
from foretrain.steering.salt_selection import SaltSelection, learnable_median
from foretrain.trainer import Trainer
from tests.steering.teachers import logits_of, save_teacher, taught
from tests.tiny import PROBLEMS, tiny_trainer

ONE_DOMAIN = {"prose": {"path": "builtin:biographies", "options": {"people": 300}, "validation": 0.2}}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_teacher(tmp_path_factory.mktemp("teacher"), steps=12)


def choosing(teacher: str, steps: int = 8, **settings: Any) -> Trainer:
    top = {key: settings.pop(key) for key in ("corpus", "batch", "feedback", "overlap", "documents") if key in settings}
    part = {"kind": "salt_selection", "model": "teacher", "until": 0.25, **settings}
    return taught([part], teacher, steps, **top)


def part_of(one: Trainer) -> SaltSelection:
    part = one.steering[0]
    assert isinstance(part, SaltSelection)
    return part


def score(logits: Tensor, labels: Tensor, mask: Tensor, top: int) -> float:
    """The score of one row, as the paper has it."""
    losses = []
    for place in range(len(labels)):
        scores, label = logits[place].double().tolist(), int(labels[place])
        rank = sum(other > scores[label] for other in scores)
        if bool(mask[place]) and rank < top:
            total = math.log(sum(math.exp(each - max(scores)) for each in scores)) + max(scores)
            losses.append(total - scores[label])
    return median_low(losses) if losses else -math.inf


@pytest.mark.parametrize("top", [1, 3, 10])
def test_the_score_of_a_window(top: int) -> None:
    generator = torch.Generator().manual_seed(top)
    logits = 3 * torch.randn(6, 9, 30, generator=generator)
    labels = torch.randint(0, 30, (6, 9), generator=generator)
    labels[:3] = logits[:3].topk(5).indices[..., 2]  # likely ones
    mask = torch.rand(6, 9, generator=generator) < 0.8
    mask[5] = False
    batch = Batch({"labels": labels, "mask": mask}, seed=0, step=0, positions=torch.arange(6), domains=("a",))
    found = learnable_median(Outputs(logits=logits.clone()), batch, top)
    expected = [score(logits[row], labels[row], mask[row], top) for row in range(6)]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    assert found[5] == -math.inf


def test_every_row_is_the_best_of_its_pool(teacher: str) -> None:
    """With one domain, the others of row p are windows 3p, 3p + 1 and 3p + 2 after those of stage 1."""
    one = choosing(teacher, corpus=ONE_DOMAIN, pool=4)
    model = AutoModelForCausalLM.from_pretrained(teacher)
    ahead = 2 * one.stream.rows  # a quarter of 8 steps is stage 1
    moved = 0
    for step in range(2):
        own = one.stream.batch()
        chosen = part_of(one).replace(own)
        for row in range(step, own.rows, 2):
            first = ahead + 3 * (step * one.stream.rows + row)
            others = one.stream.windows_at("prose", torch.arange(first, first + 3).numpy())["tokens"]
            pool = torch.cat([own["tokens"][row][None], others])
            logits = logits_of(model, Batch({"inputs": pool[:, :-1]}, **_nowhere(4)))
            scores = [score(logits[i], pool[i, 1:], torch.ones(32), 10) for i in range(4)]
            best = max(range(4), key=lambda i: scores[i])
            assert torch.equal(chosen["tokens"][row], pool[best])
            moved += best > 0
        one.stream.advance()
    assert moved >= 4  # three of four are to be expected


def _nowhere(rows: int) -> dict[str, Any]:
    return {"seed": 0, "step": 0, "positions": torch.arange(rows), "domains": ("a",)}


def test_the_mixture_and_the_places_stay(teacher: str) -> None:
    one = choosing(teacher, pool=3, documents="separate")
    own = one.stream.batch()
    chosen = part_of(one).replace(own)
    assert chosen.keys() == own.keys() and torch.equal(chosen["domain"], own["domain"])
    assert torch.equal(chosen.positions, own.positions) and not torch.equal(chosen["tokens"], own["tokens"])
    for row in range(own.rows):  # each row is the window of its domain that begins at its place
        tokens = one.stream.sets[own.domains[int(own["domain"][row])]]
        found = tokens.gathered(chosen["start"][row : row + 1].numpy(), one.stream.window, True)
        for name in ("tokens", "segments"):
            assert torch.equal(found[name][0], chosen[name][row])


def test_windows_are_looked_at_once(teacher: str) -> None:
    one = choosing(teacher, pool=3, until=3)
    seen: dict[int, list[int]] = {0: [], 1: []}
    for _ in range(3):
        batch = one.stream.batch()
        for domain, number in zip(batch["domain"].tolist(), part_of(one)._numbers(batch).tolist(), strict=True):
            seen[domain] += [number, number + 1]
        one.stream.advance()
    for domain, numbers in seen.items():
        first, name = min(numbers), one.stream.domains[domain]
        assert sorted(numbers) == list(range(first, first + len(numbers)))
        assert abs(first - one.stream.seen(name)) <= 1  # they begin where stage 1 ends, to rounding


def test_it_ends_with_stage_one(teacher: str) -> None:
    one, plain = choosing(teacher, pool=2), tiny_trainer(8)
    lines = [one.counted_step()[0] for _ in range(8)]
    assert [step for step, line in enumerate(lines) if "salt_selection/score" in line] == [0, 1]
    assert 0 < lines[0]["salt_selection/changed"] < 1
    plain.counted_step()
    assert one.meter.per_kind[""] == plain.meter.per_kind[""]
    # Two forward passes of a model as large as the learner, beside a step of three.
    assert one.meter.per_kind["selecting"] / one.meter.per_kind[""] == pytest.approx(1 + 2 / 3, abs=0.03)


def test_a_pool_of_one_changes_nothing(teacher: str) -> None:
    one, plain = choosing(teacher, pool=1), tiny_trainer(8)
    for _ in range(3):
        assert one.train_step()["loss"] == plain.train_step()["loss"]


def test_rows_that_another_part_put_there_stay(teacher: str) -> None:
    feedback = {"problems": {**PROBLEMS, "options": {"count": 30, "seed": 7}}}
    parts: list[dict[str, Any]] = [
        {"kind": "mix_feedback", "feedback": "problems", "share": 0.5},
        {"kind": "salt_selection", "model": "teacher", "pool": 6},
    ]
    one = taught(parts, teacher, feedback=feedback, overlap="warn")
    before = one.steering[0].replace(one.stream.batch())
    after = one.steering[1].replace(before)
    put = ~before["valid"].all(1)
    assert 2 <= int(put.sum()) <= 6
    changed = (before["tokens"] != after["tokens"]).any(1)
    assert not bool((changed & put).any()) and bool((changed & ~put).any())
    assert torch.equal(before["valid"], after["valid"])


def test_more_likely_tokens_than_there_are_are_refused(teacher: str) -> None:
    with pytest.raises(RequestError, match="all 384 ids of the vocabulary are among the 384"):
        choosing(teacher, top=384)
