"""The residual against explicit arithmetic, through a study, loaded by plain transformers; and what does not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import foretrain as ft
from foretrain.errors import RequestError
from foretrain.exporting import export_run, load_run_model
from foretrain.merging.evaluating import evaluate_merge
from foretrain.merging.instruction_residual import InstructionResidual
from foretrain.run_directory import RunDirectory
from tests.tiny import tiny_recipe


@pytest.fixture(scope="module")
def earlier(runs: list[RunDirectory], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first run's model as it was half-way, as a folder."""
    return export_run(runs[0], tmp_path_factory.mktemp("earlier") / "model", 4)


def test_it_is_the_run_plus_the_difference(runs: list[RunDirectory], earlier: Path, tmp_path: Path) -> None:
    part = InstructionResidual(plus=str(runs[1].path), minus=str(earlier), scale=0.5)
    part.check(runs[0].load_recipe())
    evaluate_merge(part, runs[:1], tmp_path / "merged")
    run, plus = (load_run_model(each)[0].state_dict() for each in runs)
    minus = load_run_model(runs[0], 4)[0].state_dict()
    # Plain transformers, and nothing of ours.
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "merged" / "model")
    assert AutoTokenizer.from_pretrained(tmp_path / "merged" / "model")("a b")["input_ids"]
    for name, weight in found.state_dict().items():
        expected = run[name].double() + 0.5 * (plus[name].double() - minus[name].double())
        assert torch.equal(weight, expected.float())
        assert weight.ndim < 2 or not torch.allclose(weight, run[name], atol=1e-4)


def test_nothing_is_added_where_nothing_was_tuned(runs: list[RunDirectory], earlier: Path) -> None:
    run = load_run_model(runs[0])[0]
    for part in (
        InstructionResidual(plus=str(runs[1].path), minus=str(earlier), scale=0.0),
        InstructionResidual(plus=str(earlier), minus=str(earlier)),
    ):
        merged = part.merge(runs[:1]).exported
        assert merged is not None
        for a, b in zip(merged.parameters(), run.parameters(), strict=True):
            assert torch.equal(a, b)


def test_of_the_tuned_base_it_is_the_tuned_model(runs: list[RunDirectory], earlier: Path, tmp_path: Path) -> None:
    """A base that was not trained any further becomes the tuned model again, to the last bits of a sum."""
    early = tmp_path / "early"
    shutil.copytree(runs[0].path, early)
    shutil.rmtree(early / "model")
    shutil.copytree(earlier, early / "model")
    merged = InstructionResidual(plus=str(runs[0].model_path), minus=str(earlier)).merge([RunDirectory(early)]).exported
    assert merged is not None
    for a, b in zip(merged.parameters(), load_run_model(runs[0])[0].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_what_does_not_fit_is_said(
    runs: list[RunDirectory], wider: RunDirectory, earlier: Path, tmp_path: Path
) -> None:
    own, other = str(runs[0].path), str(wider.path)
    with pytest.raises(RequestError, match=r"plus: there is no model in .*nowhere"):
        InstructionResidual(plus=str(tmp_path / "nowhere"), minus=own).check(runs[0].load_recipe())
    with pytest.raises(RequestError, match=r"merge.plus .* and merge.minus .* are not the same network \(model_type"):
        InstructionResidual(plus=own, minus=other).check(runs[0].load_recipe())
    with pytest.raises(RequestError, match=r"minus .* and run .*seed-0.* are not the same network"):
        InstructionResidual(plus=other, minus=other).merge(runs[:1])
    spoken = tmp_path / "spoken"
    shutil.copytree(earlier, spoken)
    tokenizer = json.loads((spoken / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {
        {"a": "b", "b": "a"}.get(token, token): number for token, number in tokenizer["model"]["vocab"].items()
    }
    (spoken / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(RequestError, match=r"The tokenizers of merge.plus .* and merge.minus .* differ"):
        InstructionResidual(plus=str(spoken), minus=str(earlier)).check(runs[0].load_recipe())
    with pytest.raises(RequestError, match=r"The tokenizers of merge.minus .* and run .*seed-0 .* differ"):
        InstructionResidual(plus=str(spoken), minus=str(spoken)).merge(runs[:1])


STUDY = """
name: residual
base:
  budget: {steps: 2}
  tokenizer: byte
  model: {kind: llama, layers: 1, width: 16, heads: 1, context: 16}
  corpus: {prose: {path: "builtin:biographies", options: {people: 40}, validation: 0.2}}
  batch: {tokens: 64}
  evaluation: {every: 1.0, tokens: 256}
products:
  base: {set: {budget: {steps: 4}}, until: 0.5, per_seed: true}
  tuned: {set: {budget: {steps: 4}}, per_seed: true}
arms:
  plain: {start: base}
  residual: {start: base, merge: {kind: instruction_residual, plus: "product:tuned", minus: "product:base"}}
seeds: 2
executor: inline
"""


def test_a_study_names_products(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    found = ft.study(tmp_path / "study.yaml", out=tmp_path / "out", quiet=True)
    assert not found["arms"]["residual"]["failed"]
    folders = []
    for seed in (0, 1):
        trial = tmp_path / "out" / "trials" / "residual" / f"seed-{seed}"
        merge = RunDirectory(trial / "merged").plan()["merge"]
        folders += [merge["plus"], merge["minus"]]
        plus, minus = (AutoModelForCausalLM.from_pretrained(merge[which]).state_dict() for which in ("plus", "minus"))
        run = load_run_model(RunDirectory(trial / "member-0"))[0].state_dict()
        merged = AutoModelForCausalLM.from_pretrained(trial / "merged" / "model").state_dict()
        for name, weight in merged.items():
            torch.testing.assert_close(weight, run[name] + plus[name] - minus[name], rtol=1e-5, atol=1e-7)
    assert len(set(folders)) == 4
    assert found["arms"]["residual"]["one_off_flops"] > 0
    with pytest.raises(RequestError, match=r"there is no product 'tunde'.*'tuned'"):
        (tmp_path / "study.yaml").write_text(STUDY.replace("product:tuned", "product:tunde"))
        ft.study(tmp_path / "study.yaml", out=tmp_path / "other", quiet=True)


def test_one_more_run_is_refused_as_for_any_merge(runs: list[RunDirectory], tmp_path: Path) -> None:
    recipe = tiny_recipe(budget={"steps": 2}, evaluation={"every": 0.99, "tokens": 256})
    run = ft.run(recipe, out=tmp_path / "run", quiet=True)
    (run.path / "result.json").unlink()
    with pytest.raises(RequestError, match="its status is"):
        InstructionResidual(plus=str(runs[0].path), minus=str(runs[1].path)).merge([run])
