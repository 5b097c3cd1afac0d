"""Selection by teacher and learner: against loops over tokens, its thresholds, its empty steps, and its control."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from foretrain.batch import Batch
from foretrain.checks import check_part
from foretrain.checks.trial import CONTEXT, trial
from foretrain.errors import RequestError
from foretrain.steering._class_thresholds import ClassThresholds
from foretrain.steering.llkd import Llkd
from foretrain.steering.random_selection import RandomSelection
from foretrain.trainer import Trainer
from tests.tasks.subjects import byte_tokenizer, model

ROWS = 8


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a model whose opinions differ clearly from token to token."""
    folder = tmp_path_factory.mktemp("teacher")
    model().save_pretrained(folder)
    byte_tokenizer().save(folder)
    return str(folder)


def _trainer(teacher: str, **settings: Any) -> Trainer:
    part = {"kind": "llkd", "model": "teacher", "burn_in": 0, **settings}
    changes = {key: part.pop(key) for key in ("batch",) if key in part}
    return trial({"models": {"teacher": teacher}, "steering": [part], **changes})


def _batch(trainer: Trainer) -> Batch:
    return trainer.objective.prepare(trainer.stream.batch())


def _learners(trainer: Trainer, batch: Batch) -> Tensor:
    """The learner's losses on the true tokens."""
    with torch.no_grad():
        logits = trainer.learner.model(input_ids=batch["inputs"]).logits
    return -logits.log_softmax(-1).gather(-1, batch["labels"][..., None])[..., 0]


def _signals(trainer: Trainer, batch: Batch) -> tuple[Tensor, Tensor]:
    """c and u of every token, from probabilities."""
    with torch.no_grad():
        told = model()(input_ids=batch["inputs"]).logits.double().softmax(-1)
        learnt = trainer.learner.model(input_ids=batch["inputs"]).logits.double().softmax(-1)
    labels = batch["labels"][..., None]
    return told.gather(-1, labels)[..., 0], 1 - learnt.gather(-1, labels)[..., 0]


def _expected(c: Tensor, u: Tensor, domain: Tensor) -> Tensor:
    """The weights of a first batch, unit by unit."""
    units = [(row, at) for row in range(c.shape[0]) for at in range(c.shape[1])]

    def passing(signal: Tensor, among: list[tuple[int, int]]) -> list[tuple[int, int]]:
        classes = [[float(signal[unit]) for unit in among if int(domain[unit[0]]) == d] for d in (0, 1)]
        own = [sum(values) / len(values) for values in classes]
        mean = sum(map(sum, classes)) / len(among)
        return [unit for unit in among if signal[unit] >= mean * own[int(domain[unit[0]])] / max(own)]

    weights = torch.zeros_like(c)
    for unit in passing(u, passing(c, units)):
        weights[unit] = c[unit] * u[unit]
    return weights / weights.mean()


# The formula --------------------------------------------------------------------------------------------------------


def test_tokens_are_selected_and_weighed(teacher: str) -> None:
    trainer = _trainer(teacher, level="token")
    batch = _batch(trainer)
    weights = trainer.steering[0].weigh(_learners(trainer, batch), batch)
    c, u = _signals(trainer, batch)
    expected = _expected(c, u, batch["domain"])
    assert weights is not None and torch.allclose(weights.double(), expected, rtol=1e-4)
    figures, share = trainer.figures, float((expected > 0).double().mean())
    assert 0.02 < share < 0.6 and figures["llkd/used"] == pytest.approx(share)
    assert figures["llkd/tokens"] == pytest.approx(share * ROWS * CONTEXT)
    assert figures["llkd/ess"] == pytest.approx(float(1 / expected.square().mean()), rel=1e-4)
    assert figures["llkd/confidence"] == pytest.approx(float(c.mean()), rel=1e-5)
    assert figures["llkd/uncertainty"] != pytest.approx(float(u.mean()), rel=1e-6)
    for number, name in enumerate(batch.domains):
        own = (expected[batch["domain"] == number] > 0).double().mean()
        assert figures[f"llkd/{name}/used"] == pytest.approx(float(own))


def test_rows_are_selected_by_the_means_of_their_tokens(teacher: str) -> None:
    trainer = _trainer(teacher, level="row")
    batch = _batch(trainer)
    weights = trainer.steering[0].weigh(_learners(trainer, batch), batch)
    c, u = (signal.mean(1, keepdim=True) for signal in _signals(trainer, batch))
    expected = _expected(c, u, batch["domain"])
    assert weights is not None and weights.shape == (ROWS, 1)
    assert torch.allclose(weights.double(), expected, rtol=1e-4)
    assert 0 < float((expected > 0).double().mean()) < 1


@pytest.mark.parametrize(("off", "on"), [("confidence", "uncertainty"), ("uncertainty", "confidence")])
def test_a_gate_that_is_off_neither_selects_nor_weighs(off: str, on: str, teacher: str) -> None:
    plain = _trainer(teacher)
    batch = _batch(plain)
    signal = _signals(plain, batch)[("confidence", "uncertainty").index(on)]
    middle = float(signal.median()) + 1e-9
    weights = (
        _trainer(teacher, **{"level": "token", off: 0, f"{on}_threshold": middle})
        .steering[0]
        .weigh(_learners(plain, batch), batch)
    )
    expected = torch.where(signal >= middle, signal, 0.0)
    assert weights is not None and torch.allclose(weights.double(), expected / expected.mean(), rtol=1e-4)


def test_constant_thresholds_are_of_the_probability_itself(teacher: str) -> None:
    trainer = _trainer(teacher, level="token", confidence=2.0, confidence_threshold=0.003, uncertainty_threshold=0.997)
    batch = _batch(trainer)
    weights = trainer.steering[0].weigh(_learners(trainer, batch), batch)
    c, u = _signals(trainer, batch)
    assert weights is not None and torch.equal(weights > 0, (c >= 0.003) & (u >= 0.997))
    assert 0.05 < float((weights > 0).double().mean()) < 0.95


def test_what_has_no_loss_is_not_counted(teacher: str) -> None:
    trainer = _trainer(teacher, level="token", confidence_threshold=0)
    batch = _batch(trainer)
    mask = torch.arange(CONTEXT)[None] < torch.arange(4, 4 + 4 * ROWS, 4)[:, None]
    weights = trainer.steering[0].weigh(_learners(trainer, batch) * mask, batch.with_(mask=mask))
    c, u = _signals(trainer, batch)
    assert trainer.figures["llkd/confidence"] == pytest.approx(float(c[mask].mean()), rel=1e-5)
    assert trainer.figures["llkd/uncertainty"] == pytest.approx(float(u[mask].mean()), rel=1e-5)
    assert weights is not None and float(weights[mask].mean()) == pytest.approx(1, rel=1e-5)
    assert trainer.figures["llkd/used"] == pytest.approx(float((weights[mask] > 0).double().mean()))


# Thresholds ---------------------------------------------------------------------------------------------------------


def _follow(found: ClassThresholds, sums: list[float], counts: list[float]) -> None:
    first, second = torch.tensor([sums, counts], dtype=torch.float64)
    found.follow(first, second, ("a", "b", "c"))


def test_thresholds_follow_running_means() -> None:
    found = ClassThresholds(0.9)
    assert found.of(("a",)).tolist() == [0.0]
    _follow(found, [0.8, 1.2, 0.0], [1, 3, 0])
    assert found.mean == pytest.approx(0.5)
    assert found.of(("a", "b", "c")).tolist() == pytest.approx([0.5, 0.25, 0.5])
    _follow(found, [0, 0, 0], [0, 0, 0])
    _follow(found, [0.4, 0.0, 0.0], [1, 0, 0])
    mean, a, b = 0.9 * 0.5 + 0.1 * 0.4, 0.9 * 0.8 + 0.1 * 0.4, 0.4
    assert found.mean == pytest.approx(mean)
    assert found.of(("a", "b")).tolist() == pytest.approx([mean, mean * b / a])
    again = ClassThresholds(0.9)
    again.load_state_dict(found.state_dict())
    assert torch.equal(again.of(("a", "b")), found.of(("a", "b")))


def test_a_signal_that_is_always_one_has_the_threshold_one() -> None:
    found = ClassThresholds(0.7)
    for step in range(1, 50):
        _follow(found, [step, 7, 3 * step], [step, 7, 3 * step])
        assert found.of(("a", "b", "c")).tolist() == [1.0, 1.0, 1.0]


def test_thresholds_are_learned_before_anything_is_selected(teacher: str) -> None:
    plain, gated = trial({}), _trainer(teacher, burn_in=2, momentum=0.5)
    for step in range(4):
        a, b = plain.train_step(), gated.train_step()
        assert (a["gradient_norm"] == b["gradient_norm"]) == (step < 2)
        assert ("llkd/used" in b) == (step >= 2) and "llkd/confidence" in b


# In the run ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [Llkd, RandomSelection])
@pytest.mark.parametrize("level", ["token", "row"])
def test_it_keeps_the_promises_of_parts(part: type[Llkd], level: str, teacher: str) -> None:
    made = part(model="teacher", burn_in=1, level=level)  # type: ignore[arg-type]
    check_part(made, {"models": {"teacher": teacher}})


@pytest.mark.parametrize("kind", ["llkd", "random_selection"])
def test_micro_batches_change_nothing(kind: str, teacher: str) -> None:
    sizes = ({"tokens": 8 * CONTEXT, "micro": micro * CONTEXT} for micro in (8, 3))
    whole, pieces = (_trainer(teacher, kind=kind, batch=size) for size in sizes)
    for _ in range(4):
        a, b = whole.train_step(), pieces.train_step()
        for name in ("loss", "gradient_norm", f"{kind}/used", f"{kind}/uncertainty"):
            assert a[name] == pytest.approx(b[name], rel=2e-3), name


def test_a_step_in_which_nothing_passes_has_no_gradient(teacher: str) -> None:
    trainer = _trainer(teacher, confidence_threshold=1.0)
    for _ in range(2):
        figures = trainer.train_step()
        assert figures["gradient_norm"] == 0 and figures["llkd/used"] == figures["llkd/ess"] == 0
        assert "skipped" not in figures and figures["loss"] > 0
    assert len(trainer.warnings) == 1 and "passed both gates" in trainer.warnings[0]


def test_the_control_deals_the_same_weights_to_others(teacher: str) -> None:
    found = []
    for kind in ("llkd", "random_selection"):
        trainer = _trainer(teacher, kind=kind, level="token")
        batch = _batch(trainer)
        mask = batch["mask"].clone()
        mask[0, :9] = False
        weights = trainer.steering[0].weigh(_learners(trainer, batch) * mask, batch.with_(mask=mask))
        assert weights is not None
        found.append((weights * mask, trainer.figures[f"{kind}/used"], trainer.figures[f"{kind}/ess"]))
    (chosen, used, ess), (dealt, same, even) = found
    assert used == same and ess == pytest.approx(even)
    assert torch.allclose(chosen.flatten().sort().values, dealt.flatten().sort().values)
    both = ((chosen > 0) & (dealt > 0)).sum() / (chosen > 0).sum()
    assert float(both) == pytest.approx(used, abs=0.15), "no more in common than by chance"


def test_the_teachers_pass_is_counted(teacher: str) -> None:
    plain, gated = trial({}), _trainer(teacher)
    for trainer in (plain, gated):
        trainer.counted_step()
    assert plain.meter.total * 1.2 < gated.meter.total < plain.meter.total * 1.6


def test_a_teacher_that_is_not_there_is_named(teacher: str) -> None:
    with pytest.raises(RequestError, match="did you mean 'teacher'"):
        _trainer(teacher, model="teachr")
