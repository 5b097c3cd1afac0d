"""Text that a teacher writes: drawn from its own distribution, put in at a share of the places, and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from foretrain.files import cache_folder
from foretrain.steering.sequence_distillation import SequenceDistillation, write
from foretrain.subject import Subject
from foretrain.trainer import Trainer
from tests.steering.teachers import save_teacher, taught
from tests.tiny import CONTEXT, tiny_trainer


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_teacher(tmp_path_factory.mktemp("teacher"), steps=12)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETRAIN_CACHE", str(tmp_path / "cache"))


def written(teacher: Any, **settings: Any) -> Trainer:
    top = {key: settings.pop(key) for key in ("documents", "seed") if key in settings}
    part = {"kind": "sequence_distillation", "model": "teacher", "tokens": 20 * CONTEXT, **settings}
    return taught([part], teacher, **top)


def part_of(one: Trainer) -> SequenceDistillation:
    part = one.steering[0]
    assert isinstance(part, SequenceDistillation)
    return part


def test_an_ensemble_writes_by_the_mean_of_its_logits(teacher: str, tmp_path: Path) -> None:
    """Token by token from the softmax of the mean, read anew at each token; so cold that only the likeliest is left."""
    other = save_teacher(tmp_path / "other", seed=8)
    one = written([teacher, other])
    reference = one.context.named("teacher")
    subjects = [Subject(model, one.context.tokenizer, CONTEXT) for model in reference.models]
    found = write(reference, subjects, 0, 2, 12, 1e-6)
    models = [AutoModelForCausalLM.from_pretrained(path) for path in (teacher, other)]
    ids = torch.zeros(2, 1, dtype=torch.int64)
    for _ in range(11):
        with torch.no_grad():
            mean = sum(model(input_ids=ids).logits[:, -1] for model in models)
        assert isinstance(mean, torch.Tensor)
        ids = torch.cat([ids, mean.argmax(-1, keepdim=True)], 1)
    assert torch.equal(found, ids)


def test_what_is_written_is_as_likely_as_the_teacher_holds(teacher: str) -> None:
    """Frequencies of the first token against the teacher's distribution after the end of a document."""
    one = written(teacher)
    reference = one.context.named("teacher")
    subjects = [Subject(model, one.context.tokenizer, CONTEXT) for model in reference.models]
    eos = one.context.tokenizer.eos
    assert eos is not None
    drawn = write(reference, subjects, eos, 4000, 2, 1.0)
    assert bool((drawn[:, 0] == eos).all())
    found = torch.bincount(drawn[:, 1], minlength=384) / 4000
    with torch.no_grad():
        expected = (
            AutoModelForCausalLM.from_pretrained(teacher)(input_ids=torch.tensor([[eos]])).logits[0, 0].softmax(-1)
        )
    deviation = (expected * (1 - expected) / 4000).sqrt()
    assert bool(((found - expected).abs() <= 5 * deviation + 1e-3).all())


@pytest.mark.parametrize(("share", "counts"), [(0.5, {4}), (0.25, {2}), (0.1, {0, 1}), (1.0, {8}), (0.0, {0})])
def test_its_share_of_the_windows(teacher: str, share: float, counts: set[int]) -> None:
    one = written(teacher, share=share)
    known = {tuple(window) for window in part_of(one)._windows.tolist()}
    total, seen = 0, []
    for _ in range(10):
        own = one.stream.batch()
        batch = part_of(one).replace(own)
        put = [row for row in range(8) if tuple(batch["tokens"][row].tolist()) in known]
        for row in set(range(8)) - set(put):
            assert torch.equal(batch["tokens"][row], own["tokens"][row])
        assert len(put) in counts
        total += len(put)
        seen += [tuple(batch["tokens"][row].tolist()) for row in put]
        one.stream.advance()
    assert total == pytest.approx(80 * share, abs=1)
    if share >= 0.5:  # a pass brings each window once
        assert set(seen[:20]) == known and len(known) == 20


def test_documents_apart(teacher: str) -> None:
    """A new document begins after each token that ends one."""
    one = written(teacher, share=1.0, documents="separate")
    batch, eos = part_of(one).replace(one.stream.batch()), one.context.tokenizer.eos
    for row in range(8):
        number, tokens = 0, batch["tokens"][row].tolist()
        for place, token in enumerate(tokens):
            assert int(batch["segments"][row, place]) == number
            number += token == eos
    one.train_step()


def test_it_is_written_once(teacher: str, tmp_path: Path) -> None:
    first = written(teacher).train_step()
    again = written(teacher, seed=4, share=0.25).train_step()
    assert first["sequence_distillation/one_off_flops"] == again["sequence_distillation/one_off_flops"] > 0
    assert len([path for path in (cache_folder() / "written").iterdir() if not path.name.startswith(".")]) == 1
    written(save_teacher(tmp_path / "other", seed=8))
    assert len([path for path in (cache_folder() / "written").iterdir() if not path.name.startswith(".")]) == 2


def test_the_run_pays_nothing(teacher: str) -> None:
    one, plain = written(teacher), tiny_trainer(8)
    one.counted_step(), plain.counted_step()
    assert one.meter.per_kind == plain.meter.per_kind
