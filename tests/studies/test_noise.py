"""The noise of seeds: measured by itself, kept, cited by a study, and refused where it is another recipe's."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest

from foretrain.errors import RequestError
from foretrain.plain_yaml import format_yaml
from foretrain.studies.commands import noise
from foretrain.studies.conducting import conduct
from foretrain.studies.noise import noise_study
from tests.studies.tiny_study import study_data, tiny_study


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("noise")
    (folder / "study.yaml").write_text(format_yaml(study_data(arms={"plain": {}, "slow": {"optimizer.lr": 1e-5}})))
    return folder / "noise", noise(folder / "study.yaml", out=folder / "noise", seeds=4, quiet=True)


def test_the_floor_is_the_spread_over_seeds(measured: tuple[Path, dict[str, Any]]) -> None:
    folder, found = measured
    metric = found["metrics"]["validation/loss"]
    assert len(set(metric["values"])) == 4
    assert metric["sd"] == pytest.approx(stdev(metric["values"]))
    assert metric["low"] < metric["sd"] < metric["high"]
    assert json.loads((folder / "noise.json").read_text()) == json.loads(json.dumps(found))
    assert not (folder / "trials" / "slow").exists()  # the baseline alone


def test_equal_arms_are_seldom_called_different(measured: tuple[Path, dict[str, Any]]) -> None:
    rate = measured[1]["metrics"]["validation/loss"]["false_positives"]
    assert rate["seeds"] == 2 and rate["values"] == 4
    assert 0 <= rate["rate"] <= 1


def test_a_study_cites_it(measured: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, found = measured
    arms = {"plain": {}, "slow": {"optimizer.lr": 1e-5}}
    cited = conduct(tiny_study(arms=arms, noise=str(folder)), tmp_path, report=False)
    floor = cited["noise"]["validation/loss"]
    assert floor["sd"] == found["metrics"]["validation/loss"]["sd"] and floor["seeds"] == 4
    assert floor["source"] == found["name"]
    assert cited["metrics"]["validation/loss"]["smallest"] == floor["sd"]
    row = cited["contrasts"][0]
    assert row["in_noise"] == pytest.approx(row["difference"] / floor["sd"])


def test_noise_of_another_recipe_is_refused(measured: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    base = {**study_data()["base"], "batch": {"tokens": 128}}
    with pytest.raises(RequestError, match=r"another recipe.*batch\.tokens was 256 there and is 128"):
        conduct(tiny_study(noise=str(measured[0]), base=base), tmp_path)


def test_no_noise_study_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--noise BASE"):
        conduct(tiny_study(noise=str(tmp_path / "nothing")), tmp_path / "study")


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="at least two seeds"):
        noise(tmp_path / "study.yaml", seeds=1)


def test_a_bare_recipe_with_overrides(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(format_yaml(study_data()["base"]))
    study = noise_study(tmp_path / "recipe.yaml", [3, 5], ["optimizer.lr=0.5"])
    assert study.seeds == [3, 5] and list(study.arms) == ["plain"]
    assert study.base["optimizer"]["lr"] == 0.5
