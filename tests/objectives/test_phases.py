"""One objective after another: nothing but what is predicted changes, and it changes at the right step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForMaskedLM

import foretrain as ft
from foretrain.errors import RequestError
from foretrain.objectives.phases import Phases
from foretrain.recipe import make_recipe
from foretrain.run_directory import RunDirectory
from tests.tiny import CONTEXT, tiny_data, tiny_plan, tiny_trainer

MODEL: dict[str, Any] = {
    "kind": "eurobert",
    "layers": 2,
    "width": 32,
    "heads": 2,
    "feedforward": 64,
    "context": CONTEXT,
}
MASKED: dict[str, Any] = {"kind": "masked_lm", "new_mask": False}
TWO: dict[str, Any] = {
    "kind": "phases",
    "phases": {"causal": {"share": 0.25, "objective": "causal_lm"}, "masked": {"share": 0.75, "objective": MASKED}},
}


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in trainer.learner.masters.items()}


def test_the_objective_changes_at_its_share_and_the_rest_goes_on() -> None:
    """Against two plain trainers by hand: the second takes over weights, optimizer and place in the data."""
    both = tiny_trainer(8, model=MODEL, objective=TWO)
    lines = [both.train_step() for _ in range(8)]
    assert [both.kind(step) for step in range(8)] == ["causal"] * 2 + ["masked"] * 6
    causal = tiny_trainer(8, model=MODEL, objective="causal_lm")
    for line in lines[:2]:
        assert causal.train_step() == line
    # Windows of the stream are one token longer than masked training needs: its rows are their ends.
    masked = tiny_trainer(8, model=MODEL, objective=MASKED)
    masked.stream = both.plan.stream()
    masked.stream.advance(2)
    masked.step = 2
    masked.load_weights(causal.state_dict())
    inner = masked.objective.prepare
    object.__setattr__(
        masked.objective,
        "prepare",
        lambda batch: inner(batch.with_(tokens=batch["tokens"][:, 1:])),
    )
    for line in lines[2:]:
        assert masked.train_step() == line
    for name, weight in weights(masked).items():
        assert torch.equal(weight, weights(both)[name])
    factor = both.timeline.factor
    assert [line["lr"] for line in lines] == [1e-3 * factor(step) for step in range(8)]


def test_validation_is_of_the_phase_that_was_trained() -> None:
    trainer = tiny_trainer(8, model=MODEL, objective=TWO)
    causal, masked = (tiny_trainer(8, model=MODEL, objective=kind) for kind in ("causal_lm", MASKED))

    def measured(other: Any) -> float:
        other.load_weights(trainer.state_dict())
        return float(other.measure(True)["validation/prose/loss"])

    for steps, plain in ((0, causal), (2, causal), (3, masked)):
        while trainer.step < steps:
            trainer.train_step()
        assert trainer.measure(True)["validation/prose/loss"] == pytest.approx(measured(plain), rel=1e-6)


def test_a_new_mask_begins_at_the_change_and_only_then() -> None:
    objective = {**TWO, "phases": {**TWO["phases"], "masked": {"share": 0.75, "objective": "masked_lm"}}}
    trainer = tiny_trainer(8, model=MODEL, objective=objective)
    embedding = trainer.context.weights["model.embed_tokens.weight"]
    for _ in range(2):
        trainer.train_step()
    mean = embedding[128:].mean(0).clone()
    assert not torch.allclose(embedding[2], mean, atol=1e-3)
    trainer.objective.before_step(2)
    torch.testing.assert_close(embedding[2], mean)


def test_a_run_that_is_cut_in_either_phase_goes_on_bit_for_bit() -> None:
    objective = {**TWO, "phases": {**TWO["phases"], "masked": {"share": 0.75, "objective": "masked_lm"}}}
    whole = tiny_trainer(8, model=MODEL, objective=objective)
    lines, states = [], {}
    for step in range(8):
        states[step] = torch.utils._pytree.tree_map(  # type: ignore[attr-defined]
            lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, whole.state_dict()
        )
        lines.append(whole.train_step())
    for cut in (1, 2, 5):
        again = tiny_trainer(8, model=MODEL, objective=objective)
        again.load_state_dict(states[cut])
        assert [again.train_step() for _ in range(cut, 8)] == lines[cut:]


def test_each_phase_takes_as_much_of_a_row_as_it_needs() -> None:
    trainer = tiny_trainer(8, model=MODEL, objective=TWO)
    assert trainer.plan.window == CONTEXT + 1
    for _ in range(3):
        prepared = trainer.objective.prepare(trainer.stream.batch())
        assert prepared["inputs"].shape[1] == CONTEXT
        trainer.train_step()


def test_tokens_that_a_phase_asks_for_are_named_and_its_rows_counted() -> None:
    ul2 = {"kind": "ul2", "denoisers": {"r": {"rate": 0.25, "span": 2, "mode": "R"}}}
    phases = {"masked": {"objective": "masked_lm"}, "denoise": {"objective": ul2}, "causal": {"objective": "causal_lm"}}
    trainer = tiny_trainer(6, model=MODEL, objective={"kind": "phases", "phases": phases})
    assert trainer.context.tokenizer.named["R"] > 2
    lines = [trainer.train_step() for _ in range(6)]
    assert ["loss_tokens" in line for line in lines] == [True] * 4 + [False] * 2
    assert "raw_tokens" in lines[2] and "raw_tokens" not in lines[0]


def test_one_phase_is_the_objective_alone() -> None:
    alone, phase = (
        tiny_trainer(4, model=MODEL, objective=objective)
        for objective in (MASKED, {"kind": "phases", "phases": {"all": {"objective": MASKED}}})
    )
    assert [alone.train_step() for _ in range(4)] == [phase.train_step() for _ in range(4)]


def test_what_cannot_be_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(RequestError, match=r"'masked_lm' trains an encoder, but model 'llama' is a decoder"):
        tiny_plan(objective=TWO)
    with pytest.raises(RequestError, match=r"objective.phases.causal: its share of the 3 steps is less than one"):
        tiny_trainer(3, budget={"steps": 3}, model=MODEL, objective={**TWO, "phases": shares(causal=0.01)})
    with pytest.raises(ValidationError, match="learn from text, not image"):
        Phases(phases={"views": {"objective": "dino"}})


def shares(**changes: float) -> dict[str, Any]:
    return {name: {**phase, "share": changes.get(name, phase["share"])} for name, phase in TWO["phases"].items()}


# Runs ----------------------------------------------------------------------------------------------------------------


def data(**changes: Any) -> dict[str, Any]:
    return tiny_data(model=MODEL, objective=TWO, checkpoint={"every": 2, "keep": 9}, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return ft.run(make_recipe(data()), out=tmp_path_factory.mktemp("runs") / "phases", quiet=True)


def test_the_export_loads_in_plain_transformers(finished: RunDirectory) -> None:
    loaded = AutoModelForMaskedLM.from_pretrained(finished.model_path)
    assert type(loaded).__name__ == "EuroBertForMaskedLM"
    card = (finished.model_path / "README.md").read_text(encoding="utf-8")
    assert "AutoModelForMaskedLM.from_pretrained" in card


def test_an_extended_run_stays_in_its_last_phase(finished: RunDirectory, tmp_path: Path) -> None:
    out = tmp_path / "longer"
    ft.run(make_recipe(data()), out=out, quiet=True)
    longer = ft.run(make_recipe(data(budget={"steps": 12})), out=out, quiet=True)
    plan, result = longer.plan(), longer.result()
    assert plan["start"] == 8 and result is not None and result["cost"]["steps"] == 12
    per_kind = [line["flops"] for line in longer.metrics() if "lr" in line]
    costs = [b - a for a, b in zip([0, *per_kind], per_kind, strict=False)]
    assert len(set(costs[:2])) == 1 and len(set(costs[2:])) == 1 and costs[0] != costs[2]


def test_a_causal_run_is_the_start_of_a_masked_one(finished: RunDirectory, tmp_path: Path) -> None:
    """The card's conversion: a finished decoder by `--from`, weights and optimizer in an encoder of its size."""
    decoder = ft.run(
        make_recipe(tiny_data(model={**MODEL, "kind": "llama"})), out=tmp_path / "decoder", quiet=True, keep="figures"
    )
    converted = ft.run(
        make_recipe(tiny_data(model=MODEL, objective={"kind": "masked_lm", "new_mask": True}, budget={"steps": 2})),
        out=tmp_path / "encoder",
        start_from=str(decoder.path),
        quiet=True,
        keep="figures",
    )
    assert converted.plan()["parent"]["step"] == 8
    branched = ft.run(
        make_recipe(data(budget={"steps": 4})),
        out=tmp_path / "branch",
        start_from=f"{finished.path}@2",
        quiet=True,
        keep="figures",
    )
    result = branched.result()
    assert result is not None and result["cost"]["steps"] == 4


def test_rows_are_shown_as_the_first_phase_prepares_them() -> None:
    shown = ft.show_data(make_recipe(data()), rows=1)
    assert shown[0]["loss_tokens"] == CONTEXT
