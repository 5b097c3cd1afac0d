"""Task vectors against explicit arithmetic, and their geometry against whole vectors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from foretrain.errors import RequestError
from foretrain.merging.evaluating import evaluate_merge
from foretrain.merging.task_vectors import TaskVectors
from foretrain.run_directory import RunDirectory
from tests.merging.folders import changed, make, numbers, save


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("vectors")
    base = save(make(), folder / "base")
    return [base, *(changed(base, folder / str(seed), seed) for seed in (1, 2))]


def test_it_is_the_base_and_weighted_differences(folders: list[Path], tmp_path: Path) -> None:
    base, *tuned = map(str, folders)
    told = TaskVectors(base=base, tuned=tuned, weights=[0.5, -2.0]).write([], tmp_path / "out")
    found, start, (a, b) = numbers(tmp_path / "out"), numbers(folders[0]), map(numbers, folders[1:])
    for name, weight in found.items():
        expected = start[name] + 0.5 * (a[name] - start[name]) - 2.0 * (b[name] - start[name])
        assert torch.equal(weight, expected.float().double())
    assert told["formula"] == "base + 0.5 (tuned 1 - base) + -2 (tuned 2 - base)"
    assert [each["name"] for each in told["inputs"]] == ["base", "tuned", "tuned"]
    assert len({each["hash"] for each in told["inputs"]}) == 3


def test_the_geometry_is_that_of_whole_vectors(folders: list[Path], tmp_path: Path) -> None:
    base, *tuned = map(str, folders)
    TaskVectors(base=base, tuned=tuned).write([], tmp_path / "out")
    told = json.loads((tmp_path / "out" / "merge.json").read_text())
    start, (a, b) = numbers(folders[0]), map(numbers, folders[1:])

    def whole(other: dict[str, torch.Tensor], part: str = "") -> torch.Tensor:
        return torch.cat([(other[name] - start[name]).flatten() for name in start if part in name])

    def cosine(part: str = "") -> float:
        return float(torch.cosine_similarity(whole(a, part), whole(b, part), dim=0))

    assert told["figures"]["cosine"] == pytest.approx(cosine(), abs=1e-9)
    length = torch.cat([weight.flatten() for weight in start.values()]).norm()
    assert told["figures"]["norm_2"] == pytest.approx(float(whole(b).norm() / length), rel=1e-9)
    blocks = told["geometry"]["blocks"]
    assert list(blocks) == ["0", "1", "2", "3", "outside"]
    assert blocks["2"]["cosines"][0][1] == pytest.approx(cosine("layers.2."), abs=1e-9)
    assert blocks["2"]["norms"][0] == pytest.approx(float(whole(a, "layers.2.").norm()), rel=1e-9)
    assert told["geometry"]["overall"]["cosines"][0][0] == pytest.approx(1.0)


def test_plain_sums_move_nothing_twice(runs: list[RunDirectory], tmp_path: Path) -> None:
    """Of the base alone it is the base; a run is a tuned model of its own; figures are figures of the merge."""
    own = str(runs[0].model_path)
    result = evaluate_merge(TaskVectors(base=own, tuned=[own], runs=False), runs[:1], tmp_path / "same")
    assert result["validation"] == pytest.approx((runs[0].result() or {})["validation"], rel=1e-6)
    evaluate_merge(TaskVectors(base=own), runs[1:], tmp_path / "other")
    for a, b in zip(numbers(tmp_path / "other" / "model").values(), numbers(runs[1].model_path).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
    merged = RunDirectory.open(tmp_path / "other")
    assert merged.final()["merge/norm_1"] > 0
    assert json.loads(merged.merge_path.read_text())["inputs"][1]["hash"]


def test_what_does_not_fit_is_said(folders: list[Path], tmp_path: Path) -> None:
    base, first, _ = map(str, folders)
    with pytest.raises(RequestError, match="3 weights are given for 1 task vectors"):
        TaskVectors(base=base, tuned=[first], weights=[1, 1, 1]).write([], tmp_path / "out")
    with pytest.raises(RequestError, match="there is no tuned model; name one under `tuned`"):
        TaskVectors(base=base).write([], tmp_path / "out")
    wide = save(make(width=32), tmp_path / "wide")
    with pytest.raises(RequestError, match=r"merge\.tuned .* are not the same network"):
        TaskVectors(base=base, tuned=[str(wide)]).write([], tmp_path / "out")
    assert not (tmp_path / "out").exists()
