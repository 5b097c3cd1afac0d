"""The average against an explicit mean, and what cannot be averaged, in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import foretrain as ft
from foretrain.checkpoints import Checkpointer
from foretrain.errors import RequestError
from foretrain.exporting import load_run_model
from foretrain.merging.average import Average
from foretrain.run_directory import RunDirectory
from tests.tiny import tiny_recipe


def test_it_is_the_mean_of_the_checkpoints(runs: list[RunDirectory]) -> None:
    merged = Average(last=3).merge(runs)
    states = [load_run_model(run, step)[0].state_dict() for run in runs for step in (4, 6, 8)]
    assert merged.exported is not None and merged.inference == 1
    found = merged.exported.state_dict()
    for name in found:
        mean = torch.stack([state[name].double() for state in states]).mean(0).float()
        torch.testing.assert_close(found[name], mean, rtol=1e-6, atol=1e-9)
        assert states[0][name].ndim < 2 or not torch.allclose(found[name], states[-1][name], atol=1e-4)


def test_of_one_checkpoint_it_is_that_model(runs: list[RunDirectory]) -> None:
    found = Average(last=1).merge(runs[:1]).exported
    for a, b in zip(found.parameters(), load_run_model(runs[0], 8)[0].parameters(), strict=True):  # type: ignore[union-attr]
        assert torch.equal(a, b)
    thrice = Average(last=1).merge([runs[0]] * 3).exported
    for a, b in zip(thrice.parameters(), found.parameters(), strict=True):  # type: ignore[union-attr]
        assert torch.equal(a, b)


def test_checkpoints_off_the_schedule_are_left_out(runs: list[RunDirectory], tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(runs[0].path, copy)
    checkpointer = Checkpointer(copy / "checkpoints", keep=4)
    tree = checkpointer.load(2)
    shutil.rmtree(copy / "checkpoints" / "step-00000008")
    checkpointer.save(7, tree, passing=True)
    checkpointer.close()
    with pytest.raises(RequestError, match="has 3 checkpoints, fewer than the 4 to be averaged"):
        Average(last=4).merge([RunDirectory(copy)])
    found, plain = Average(last=2).merge([RunDirectory(copy)]).exported, [load_run_model(runs[0], s)[0] for s in (4, 6)]
    for a, b, c in zip(found.parameters(), *(model.parameters() for model in plain), strict=True):  # type: ignore[union-attr]
        torch.testing.assert_close(a, (b + c) / 2)


@pytest.mark.parametrize(
    ("checkpoint", "budget", "steps", "said"),
    [
        ({"keep": 4}, {"steps": 100}, None, "needs checkpoint.keep: 5 or more .the recipe keeps 4."),
        ({"keep": 5, "every": 30}, {"steps": 100}, None, "with checkpoint.every: 30 this one writes 4"),
        ({"keep": 5, "every": 0.3}, {"minutes": 1}, None, "with checkpoint.every: 0.3 this one writes 4"),
        ({"keep": 5, "every": 30}, {"minutes": 1}, 100, "writes 4"),
        ({"keep": 5, "every": 30}, {"minutes": 1}, None, ""),
        ({"keep": 5, "every": 25}, {"steps": 101}, None, ""),
        ({"keep": 5, "every": 0.2}, {"tokens": 10**6}, None, ""),
        ({"keep": 9, "every": 0.1}, {"steps": 4}, None, "writes 4"),
    ],
)
def test_what_a_recipe_will_lack_is_said_before(
    checkpoint: dict[str, Any], budget: dict[str, Any], steps: int | None, said: str
) -> None:
    recipe = tiny_recipe(checkpoint=checkpoint, budget=budget)
    Average(last=1).check(recipe)
    if not said:
        Average(last=5).check(recipe, steps)
        return
    with pytest.raises(RequestError, match=said):
        Average(last=5).check(recipe, steps)


def test_what_does_not_fit_together_is_said(runs: list[RunDirectory], wider: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"not the same network \(model.*none.*merged as an ensemble"):
        Average(last=1).merge([runs[0], wider])
    with pytest.raises(RequestError, match="There is no run to merge"):
        Average().merge([])
    copy = tmp_path / "copy"
    shutil.copytree(runs[0].path, copy)
    config = json.loads((copy / "model" / "config.json").read_text())
    (copy / "model" / "config.json").write_text(
        json.dumps({**config, "num_attention_heads": 4, "head_dim": 8, "num_key_value_heads": 4})
    )
    with pytest.raises(RequestError, match="num_attention_heads: 4 and 2"):
        Average(last=1).merge([runs[0], RunDirectory(copy)])
    plan = json.loads((copy / "plan.json").read_text())
    (copy / "plan.json").write_text(json.dumps({**plan, "model": {**plan["model"], "context": 16}}))
    with pytest.raises(RequestError, match=r"they read 16 and 32 tokens at once \(model.context\)"):
        Average(last=1).merge([runs[0], RunDirectory(copy)])
    (copy / "plan.json").write_text(json.dumps({**plan, "hashes": {**plan["hashes"], "tokenizer": "0"}}))
    with pytest.raises(RequestError, match="their tokenizers differ"):
        Average(last=1).merge([runs[0], RunDirectory(copy)])
    (copy / "result.json").unlink()
    with pytest.raises(RequestError, match="its status is 'interrupted'"):
        Average(last=1).merge([RunDirectory(copy)])


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    model = {"kind": "llama", "layers": 1, "width": 32, "heads": 2, "feedforward": 64, "context": 32, "tied": True}
    recipe = tiny_recipe(model=model, budget={"steps": 2}, checkpoint={"every": 1, "keep": 2}, optimizer={"lr": 0.05})
    run = ft.run(recipe, out=tmp_path / "run", quiet=True)
    merged = Average(last=2).merge([run]).exported
    assert merged is not None and merged.get_output_embeddings().weight is merged.get_input_embeddings().weight
    weights = [next(load_run_model(run, step)[0].parameters()) for step in (1, 2)]
    torch.testing.assert_close(merged.get_input_embeddings().weight, (weights[0] + weights[1]) / 2)
