"""Static mixtures: the shares they bring about, and the average of another run they can be."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch

from foretrain.checks.trial import finished
from foretrain.errors import RequestError
from foretrain.parts import Facts
from foretrain.recipe import make_recipe
from foretrain.steering.base import Steering
from foretrain.steering.static_mixture import average_weights
from foretrain.studies.planning import Products
from foretrain.studies.study import Study
from foretrain.tokens.stream import LAG
from foretrain.trainer import Trainer
from tests.tiny import tiny_data, tiny_trainer

STEPS = 12


class TryMoving(Steering):
    """Moves the mixture from one domain to the other."""

    kind: Literal["try_moving"] = "try_moving"
    facts: ClassVar[Facts] = Facts(answers="mix: does the average follow?")

    def mix(self, weights: Mapping[str, float], step: int) -> Mapping[str, float]:
        return {"prose": 1.0 + step, "sums": 3.0}


def trainer(steps: int = STEPS, **settings: Any) -> Trainer:
    steering = [{"kind": "static_mixture", **settings}] if settings else []
    return tiny_trainer(steps, budget={"steps": steps}, steering=steering)


def written(folder: Path, lines: list[dict[str, Any]], status: str | None = "done") -> Path:
    """A run directory with these lines of figures."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text("name: other\n")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if status:
        (folder / "result.json").write_text(json.dumps({"status": status}))
    return folder


def line(step: int, prose: float) -> dict[str, Any]:
    return {"step": step, "loss": 1.0, "domain/prose/weight": prose, "domain/sums/weight": 1 - prose}


def test_shares_are_those_of_the_weights_from_the_first_step_on() -> None:
    one = trainer(50, weights={"prose": 1, "sums": 4})
    seen = []
    for _ in range(50):
        seen.append(Counter(one.stream.batch()["domain"].tolist()))
        one.train_step()
    prose = one.stream.domains.index("prose")
    assert sum(found[prose] for found in seen[:LAG]) == pytest.approx(LAG * 8 / 5, abs=1.5)
    assert sum(found[prose] for found in seen) == pytest.approx(50 * 8 / 5, abs=1.5)
    assert one.stream.weights == {"prose": 0.2, "sums": 0.8}


@pytest.mark.parametrize("weights", [{"prose": 2, "sums": 1}, {"prose": 0.2, "sums": 0.1}, {"prose": 1.4, "sums": 0.7}])
def test_the_recipes_own_weights_change_nothing(weights: dict[str, float]) -> None:
    one, plain = trainer(weights=weights), trainer()
    for _ in range(STEPS):
        ours, theirs = one.counted_step()[0], plain.counted_step()[0]
        assert {name: ours[name] for name in theirs} == theirs
    assert one.stream.weights == plain.stream.weights
    for name, weight in one.learner.masters.items():
        assert torch.equal(weight, plain.learner.masters[name])


def test_the_average_is_over_all_steps(tmp_path: Path) -> None:
    lines = [
        {"step": 0, "validation/loss": 5.0},
        *(line(step, prose) for step, prose in ((1, 0.5), (2, 0.5), (3, 0.8))),
    ]
    run = written(tmp_path / "other", [*lines, {"step": 3, "validation/loss": 4.0}, line(4, 0.1)])
    expected = {"prose": (0.5 + 0.5 + 0.8 + 0.1) / 4, "sums": (0.5 + 0.5 + 0.2 + 0.9) / 4}
    for path in (run, run / "model"):
        assert average_weights(path, ("sums", "prose")) == pytest.approx(expected)


def test_it_trains_on_what_the_other_run_used(tmp_path: Path) -> None:
    run = finished({"steering": [{"kind": "try_moving"}], "checkpoint": {"every": 6}}, tmp_path / "other")
    lines = [one for one in run.metrics() if "loss" in one]
    # What is decided at a step acts from the second one after it on, and in the first ones too at the very first.
    used = [1 / 4, 1 / 4, 1 / 4, 2 / 5, 3 / 6, 4 / 7]
    assert [one["domain/prose/weight"] for one in lines] == pytest.approx(used)
    one = trainer(run=str(run.path))
    one.train_step()
    own = one.steering[0].state_dict()["weights"]
    assert own == pytest.approx({"prose": sum(used) / 6, "sums": 1 - sum(used) / 6})
    for _ in range(LAG):
        one.train_step()
    assert one.stream.weights == pytest.approx(own)


def test_a_resumed_run_does_not_read_the_other_again(tmp_path: Path) -> None:
    other = written(tmp_path / "other", [line(1, 0.2), line(2, 0.4)])
    whole = trainer(run=str(other))
    lines = [whole.counted_step()[0] for _ in range(STEPS)]
    cut = trainer(run=str(other))
    for _ in range(5):
        cut.counted_step()
    shutil.rmtree(other)
    again = trainer(run=str(other))
    again.load_state_dict(cut.state_dict())
    assert [again.counted_step()[0] for _ in range(STEPS - 5)] == lines[5:]
    for name, weight in whole.learner.masters.items():
        assert torch.equal(weight, again.learner.masters[name])


def test_a_product_of_a_study_is_one_of_its_runs(tmp_path: Path) -> None:
    run = written(tmp_path / "made", [line(1, 0.25)])
    steering = [{"kind": "static_mixture", "run": "product:mixture"}]
    study = Study.model_validate(
        {
            "base": tiny_data(),
            "arms": {"plain": {}, "static": {"steering": steering}},
            "products": {"mixture": {"set": {"steering": [{"kind": "try_moving"}]}}},
            "seeds": [0],
        }
    )
    products = Products(study)
    assert products.used("static") == ["mixture"]
    products.made["mixture", None] = {"model": str(run / "model")}
    resolved = products.resolve(study.arms["static"].set, 0)
    recipe = make_recipe({**tiny_data(), **resolved})
    one = trainer(**recipe.steering[0].model_dump())
    one.train_step()
    assert one.steering[0].state_dict()["weights"] == {"prose": 0.25, "sums": 0.75}


@pytest.mark.parametrize(
    ("lines", "status", "said"),
    [
        ([{"step": 1, "loss": 1.0}], "done", "no figures such as domain/NAME/weight"),
        ([line(1, 0.5)], None, "is interrupted, and its average mixture is known at its end"),
        ([line(1, 0.5)], "failed", "is failed"),
        ([{"step": 1, "domain/pros/weight": 0.5, "domain/sums/weight": 0.5}], "done", "'pros'; did you mean 'prose'"),
        ([{"step": 1, "domain/prose/weight": 1.0}], "done", "there is no weight for domain 'sums'"),
    ],
)
def test_a_run_that_does_not_fit_is_refused_before_the_first_step(
    lines: list[dict[str, Any]], status: str | None, said: str, tmp_path: Path
) -> None:
    one = trainer(run=str(written(tmp_path / "other", lines, status)))
    with pytest.raises(RequestError, match=said):
        one.train_step()
    assert one.step == 0 and not one.optimizer.state


def test_a_run_that_is_not_there_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "doremi", [line(1, 0.5)])
    with pytest.raises(RequestError, match=r"Did you mean .*doremi"):
        trainer(run=str(tmp_path / "dorem")).train_step()


def test_wrong_settings_are_refused_in_words(tmp_path: Path) -> None:
    def refused(said: str, **settings: Any) -> None:
        with pytest.raises(RequestError, match=said):
            tiny_trainer(steering=[{"kind": "static_mixture", **settings}])

    refused("needs either `weights` .* or `run`, and not both")
    refused("needs either `weights` .* or `run`, and not both", weights={"prose": 1, "sums": 1}, run="somewhere")
    refused(r"weights.sums: should be 0 or more", weights={"prose": 1, "sums": -1})
    refused("at least one should be above 0", weights={"prose": 0, "sums": 0})
    refused("weights: there is no domain 'pros'; did you mean 'prose'", weights={"pros": 1, "sums": 1})
    refused("weights: there is no weight for domain 'sums'", weights={"prose": 1})
