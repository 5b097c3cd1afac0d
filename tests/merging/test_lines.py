"""LiNeS against the formula written out, its search against one by hand, and its controls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import foretrain as ft
from foretrain.errors import RequestError
from foretrain.exporting import export_run
from foretrain.merging import lines as module
from foretrain.merging.evaluating import evaluate_merge
from foretrain.merging.lines import Lines
from foretrain.merging.searching import Judge
from foretrain.merging.task_vectors import TaskVectors
from foretrain.models.roles import parameter_roles
from foretrain.run_directory import RunDirectory
from tests.merging.folders import changed, load, make, numbers, save
from tests.tiny import tiny_data, tiny_recipe

SEARCH: dict[str, Any] = {"figures": {"steer/prose/loss": 1, "steer/sums/loss": 2}, "points": 3}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("lines")
    base = save(make(), folder / "base")
    return [base, *(changed(base, folder / str(seed), seed) for seed in (1, 2))]


def factor(part: Lines, folders: list[Path], out: Path) -> dict[int | None, float]:
    """What each block's changes were multiplied by, found from what was written."""
    part.write([], out)
    made, start = numbers(out), numbers(folders[0])
    tuned = [numbers(Path(path)) for path in part.tuned]
    found: dict[int | None, list[float]] = {}
    for name, role in parameter_roles(load(out)).items():
        change = sum(each[name] - start[name] for each in tuned)
        assert isinstance(change, torch.Tensor)
        found.setdefault(role.block, []).append(
            float(((made[name] - start[name]) * change).sum() / change.pow(2).sum())
        )
    for values in found.values():
        assert max(values) - min(values) < 1e-5
    return {block: sum(values) / len(values) for block, values in found.items()}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"alpha": 0.1}, [0.1, 0.4, 0.7, 1.0]),
        ({"alpha": 0.1, "beta": 0.3}, [0.1, 0.2, 0.3, 0.4]),
        ({"alpha": 0.1, "slope": "reversed"}, [1.0, 0.7, 0.4, 0.1]),
        ({"alpha": 0.1, "slope": "flat"}, [0.1, 0.1, 0.1, 0.1]),
        ({"alpha": 1.0}, [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_one_model_is_scaled_by_depth(
    folders: list[Path], settings: dict[str, Any], expected: list[float], tmp_path: Path
) -> None:
    part = Lines(base=str(folders[0]), tuned=[str(folders[1])], **settings)
    found = factor(part, folders, tmp_path / "out")
    assert [found[block] for block in range(4)] == pytest.approx(expected, abs=1e-5)
    assert found[None] == pytest.approx(settings["alpha"], abs=1e-5)  # embeddings and the last norm


def test_permuted_factors_are_the_same_ones(folders: list[Path]) -> None:
    rising, permuted = (Lines(base="", slope=slope) for slope in ("rising", "permuted"))  # type: ignore[arg-type]
    found = permuted.factors(0.1, 0.9, 4)
    assert sorted(found) == rising.factors(0.1, 0.9, 4) != found == permuted.factors(0.1, 0.9, 4)
    assert found != Lines(base="", slope="permuted", seed=1).factors(0.1, 0.9, 4)
    assert rising.factors(0.3, 0.9, 1) == [0.3], "a single block has alpha"


@pytest.mark.parametrize("rule", ["sum", "mean", "ties"])
def test_of_several_alpha_is_by_their_norms(folders: list[Path], rule: str, tmp_path: Path) -> None:
    base, *tuned = map(str, folders)
    told = Lines(base=base, tuned=tuned, rule={"kind": rule}, beta=0.5).write([], tmp_path / "out")  # type: ignore[arg-type]
    start, (a, b) = numbers(folders[0]), map(numbers, folders[1:])
    flat = torch.stack([torch.cat([(each[n] - start[n]).flatten() for n in start]) for each in (a, b)])
    if rule == "ties":
        kept = [row * (row.abs() >= row.abs().sort(descending=True).values[round(0.2 * len(row)) - 1]) for row in flat]
        one, two = kept
        agree = torch.where(one * two > 0, (one + two) / 2, torch.where(one.abs() > two.abs(), one, two))
        merged = agree
    else:
        merged = flat.sum(0) if rule == "sum" else flat.mean(0)
    alpha = float(flat.sum(0).abs().sum() / merged.abs().sum() / 2)
    assert told["figures"]["alpha"] == pytest.approx(alpha, rel=1e-6)
    assert rule != "sum" or alpha == pytest.approx(0.5)
    assert rule != "mean" or alpha == pytest.approx(1.0)
    made, place = numbers(tmp_path / "out"), 0
    for name, role in parameter_roles(load(folders[0])).items():
        size = start[name].numel()
        change = merged[place : place + size].reshape(start[name].shape)
        place += size
        scale = alpha + (0.0 if role.block is None else 0.5 * role.block / 3)
        torch.testing.assert_close(made[name], start[name] + scale * change, rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, Path]:
    """A run with a steer split, and the model that it was half-way."""
    folder = tmp_path_factory.mktemp("searched")
    data = tiny_data(
        evaluation={"every": 0.99, "tokens": 1024}, checkpoint={"every": 4, "keep": 2}, optimizer={"lr": 0.01}
    )
    data["model"] |= {"layers": 3}
    for domain in data["corpus"].values():
        domain |= {"steer": 0.2}
    run = ft.run(tiny_recipe(**data), out=folder / "run", quiet=True)
    return run, export_run(run, folder / "base", 4)


@pytest.mark.parametrize("slope", ["rising", "flat"])
def test_the_search_takes_the_best_of_the_grid(searched: tuple[RunDirectory, Path], slope: Any, tmp_path: Path) -> None:
    run, base = searched
    part = Lines(base=str(base), slope=slope, search=SEARCH)  # type: ignore[arg-type]
    part.check(run.load_recipe())
    evaluate_merge(part, [run], tmp_path / "found")
    told = json.loads((tmp_path / "found" / "merge.json").read_text())
    assert told["search"]["for"] == "alpha" and told["search"]["values"] == [0.0, 0.5, 1.0]

    def losses(merge: Any, name: str) -> dict[str, float]:
        """On the steer split, by the evaluation of a run that is judged there."""
        recipe = run.recipe()
        other = RunDirectory(tmp_path / "other")
        if not other.path.exists():
            import shutil

            shutil.copytree(run.path, other.path)
            from foretrain.plain_yaml import format_yaml

            recipe["evaluation"]["split"] = "steer"
            other.recipe_path.write_text(format_yaml(recipe))
        return dict(evaluate_merge(merge, [other], tmp_path / name)["validation"])

    at = {a: losses(Lines(base=str(base), slope=slope, alpha=a), f"at-{a}") for a in (0.0, 0.5, 1.0)}
    alone = [losses(TaskVectors(base=str(base), weights=[weight]), f"alone-{weight}") for weight in (0, 1)]
    best = {name: min(each[name] for each in alone) for name in ("prose/loss", "sums/loss")}
    scores = [
        (best["prose/loss"] / each["prose/loss"] + 2 * best["sums/loss"] / each["sums/loss"]) / 3
        for each in at.values()
    ]
    assert told["search"]["scores"] == pytest.approx(scores, rel=1e-5)
    assert told["figures"]["alpha"] == [0.0, 0.5, 1.0][scores.index(max(scores))]
    assert RunDirectory.open(tmp_path / "found").final()["merge/alpha"] == told["figures"]["alpha"]


def test_a_search_over_several_is_for_beta(searched: tuple[RunDirectory, Path], tmp_path: Path) -> None:
    run, base = searched
    task = {"kind": "completion_loss", "path": "builtin:arithmetic", "options": {"count": 4, "seed": 9}}
    recipe = tiny_recipe(
        **{**run.recipe(), "tasks": {"sums": {**task, "prompt": "question", "completion": "solution"}}}
    )
    search = {"figures": {"task/sums/token_accuracy": 1}, "points": 2}
    part = Lines(base=str(base), tuned=[str(base)], search=search)  # type: ignore[arg-type]
    part.check(recipe)
    with pytest.raises(RequestError, match=r"no task 'sum'; did you mean 'sums'"):
        Lines(base=str(base), search={"figures": {"task/sum/loss": 1}}).check(recipe)  # type: ignore[arg-type]
    again = ft.run(recipe.model_copy(update={"name": "again"}), out=tmp_path / "run", quiet=True)
    evaluate_merge(part, [again], tmp_path / "found")
    told = json.loads((tmp_path / "found" / "merge.json").read_text())
    assert told["search"]["for"] == "beta" and told["figures"]["alpha"] == 0.5


def test_one_factor_for_several_goes_as_far_as_their_sum(
    searched: tuple[RunDirectory, Path], folders: list[Path], tmp_path: Path
) -> None:
    """Whatever a rule leaves of the vectors, the baseline's largest candidate has the L1 norm of the plain sum."""
    run, base = searched
    tuned = [str(changed(base, tmp_path / str(seed), seed)) for seed in (1, 2)]
    judge, start = Judge(run), numbers(base)
    plain = sum(
        float(sum(numbers(Path(path))[name] - start[name] for path in tuned).abs().sum())  # type: ignore[union-attr]
        for name in start
    )
    for rule in ("sum", "mean", "ties"):
        search = {"figures": {"steer/sums/loss": 1}, "points": 2}
        settings: dict[str, Any] = {"rule": rule, "search": search, "slope": "flat"}
        part = Lines(base=str(base), tuned=tuned, runs=False, **settings)
        kept: list[float] = []
        with pytest.MonkeyPatch.context() as patch:
            # The better of the two is whichever is asked about last.
            patch.setattr(module, "score", lambda *args, kept=kept: kept.append(0.0) or len(kept))
            found = part.formula([], judge)
        moved = sum(float((found.made(name) - start[name]).abs().sum()) for name in start)
        assert moved == pytest.approx(plain, rel=1e-5)


def test_what_cannot_be_searched_is_said(folders: list[Path], runs: list[RunDirectory], tmp_path: Path) -> None:
    base, tuned = map(str, folders[:2])
    with pytest.raises(RequestError, match=r"nothing says what alpha is: give it, or what it is searched by"):
        Lines(base=base, tuned=[tuned]).write([], tmp_path / "out")
    search = {"figures": {"steer/prose/loss": 1}}
    with pytest.raises(RequestError, match=r"merge\.search: there is no run whose tasks and text"):
        Lines(base=base, tuned=[tuned], search=search).write([], tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"'steer/prose/loss' needs corpus\.prose\.steer"):
        Lines(base=str(runs[0].path), search=search).check(runs[0].load_recipe())  # type: ignore[arg-type]
    for figure, words in (("validation/loss", "text that judges"), ("loss", "no figure to search by")):
        with pytest.raises(ValueError, match=words):
            Lines(base=base, search={"figures": {figure: 1}})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a flat slope has no beta"):
        Lines(base=base, slope="flat", beta=0.5)
