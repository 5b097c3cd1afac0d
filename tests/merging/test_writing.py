"""`foretrain merge`: its file, the folders that it writes, and what reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

import foretrain as ft
from foretrain.cli import app
from foretrain.errors import RequestError
from foretrain.run_directory import RunDirectory
from tests.merging.folders import changed, load, make, numbers, save

RULE = '''"""Take the largest."""

from typing import ClassVar, Literal

import torch

from foretrain.merging.rules.base import Combine, Rule
from foretrain.parts import Facts


class Largest(Rule):
    """The change of the largest magnitude."""

    kind: Literal["largest"] = "largest"
    facts: ClassVar[Facts] = Facts(answers="which change? the largest")

    def over(self, vectors) -> Combine:
        def combine(name, differences):
            stacked = torch.stack(list(differences))
            return stacked.gather(0, stacked.abs().argmax(0, keepdim=True))[0]

        return combine
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("writing")
    base = save(make(), home / "base")
    for seed in (1, 2):
        changed(base, home / f"tuned{seed}", seed)
    return home


def test_a_file_becomes_a_model(folder: Path) -> None:
    (folder / "largest.py").write_text(RULE)
    lines = (
        "merge: {kind: lines, base: base, tuned: [tuned1, tuned2], rule: largest, beta: 0.5}\nplugins: [largest.py]\n"
    )
    (folder / "both.yaml").write_text(lines)
    done = CliRunner().invoke(app, ["merge", str(folder / "both.yaml"), "--out", str(folder / "both")])
    assert done.exit_code == 0, done.output
    assert "largest(tuned - base)" in done.output and "alpha" in done.output
    told = json.loads((folder / "both" / "merge.json").read_text())
    assert told["merge"]["base"] == str(folder / "base") and len(told["inputs"]) == 3
    start, made = (numbers(folder / each) for each in ("base", "both"))
    tuned = [numbers(folder / f"tuned{seed}") for seed in (1, 2)]
    name, alpha = "model.layers.3.mlp.up_proj.weight", told["figures"]["alpha"]
    a, b = (each[name] - start[name] for each in tuned)
    expected = start[name] + (alpha + 0.5) * a.where(a.abs() >= b.abs(), b)
    assert made[name].sub(expected).abs().max() < 1e-6
    # The folder is a model like any other: it is sampled from, and can be merged again.
    (folder / "again.yaml").write_text("merge: {kind: task_vectors, base: base, tuned: [both], weights: [0]}")
    ft.merge(folder / "again.yaml", out=folder / "again")
    texts = [ft.sample(folder / each, ["a b"], tokens=5, seed=3) for each in ("base", "again", "both")]
    assert texts[0] == texts[1] != texts[2]


def test_an_arithmetic_of_logits_is_sampled_from(folder: Path) -> None:
    (folder / "logits.yaml").write_text(
        "merge: {kind: emulated_fine_tuning, large: base, base: base, tuned: [tuned1], weights: [1]}"
    )
    told = ft.merge(folder / "logits.yaml", out=folder / "logits")
    assert told["figures"]["times_large"] == pytest.approx(3)
    assert [path.name for path in (folder / "logits").iterdir()] == ["merge.json"]
    found, expected = (ft.sample(folder / each, ["a b"], tokens=8, temperature=0) for each in ("logits", "tuned1"))
    assert found == expected
    again = load(folder / "tuned1")
    again.model.norm.weight.data += 1.0  # type: ignore[union-attr, operator]
    save(again, folder / "tuned1")
    with pytest.raises(RequestError, match=r"tuned1 is another model than .*logits was made of; merge again"):
        ft.sample(folder / "logits")


def test_runs_are_merged_too(runs: list[RunDirectory], folder: Path) -> None:
    names = f"[{runs[0].path}, {runs[1].path}]"
    (folder / "mean.yaml").write_text(f"merge: {{kind: average, last: 1}}\nruns: {names}")
    told = ft.merge(folder / "mean.yaml", out=folder / "mean")
    a, b, mean = (numbers(path) for path in (runs[0].model_path, runs[1].model_path, folder / "mean"))
    for name, weight in mean.items():
        assert weight.sub((a[name] + b[name]) / 2).abs().max() < 1e-7
    assert [each["name"] for each in told["inputs"]] == ["tiny", "tiny"]
    (folder / "residual.yaml").write_text(
        f"merge: {{kind: instruction_residual, plus: {runs[1].path}, minus: {runs[0].path}}}\nruns: [{runs[0].path}]"
    )
    ft.merge(folder / "residual.yaml", out=folder / "residual")
    for name, weight in numbers(folder / "residual").items():
        assert weight.sub(b[name]).abs().max() < 1e-7
    assert AutoModelForCausalLM.from_pretrained(folder / "residual")
    (folder / "ensemble.yaml").write_text(f"merge: ensemble\nruns: {names}")
    ft.merge(folder / "ensemble.yaml", out=folder / "ensemble")
    assert ft.sample(folder / "ensemble", ["1 + 1"], tokens=3)


def test_faults_of_a_file_are_said(folder: Path, tmp_path: Path) -> None:
    def refused(text: str, words: str) -> None:
        (tmp_path / "merge.yaml").write_text(text)
        with pytest.raises(RequestError, match=words):
            ft.merge(tmp_path / "merge.yaml", out=tmp_path / "out")

    refused("merge: {kind: lies}", r"no merge of kind 'lies'; did you mean 'lines'")
    refused("merge: {kind: lines, base: x, rul: sum}", r"no key 'rul'; did you mean 'rule'")
    refused("merge: {kind: lines, base: x, rule: tie}", r"no rule of kind 'tie'; did you mean 'ties'")
    refused("lines: {}", "is not a merge file: it should have `merge:`")
    refused("merge: {kind: instruction_residual, plus: x, minus: y}", "moves the weights of a run; name one")
    refused("merge: [", "is not valid YAML")
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        ft.merge(tmp_path / "nowhere.yaml", out=tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "merge.yaml").write_text(f"merge: {{kind: task_vectors, base: {folder / 'base'}}}")
    with pytest.raises(RequestError, match=r"full: the folder holds other things; name a new one"):
        ft.merge(tmp_path / "merge.yaml", out=tmp_path / "full")
