from __future__ import annotations

from pathlib import Path

import pytest

from foretrain.errors import RequestError
from foretrain.overrides import with_changes
from foretrain.plain_yaml import format_yaml, parse_yaml
from foretrain.recipe import make_recipe
from foretrain.studies.study import load_study, make_study
from tests.studies.tiny_study import study_data, tiny_study
from tests.tiny import tiny_data


def refused(**changes: object) -> str:
    with pytest.raises(RequestError) as error:
        tiny_study(**changes)
    return str(error.value)


class TestSchema:
    def test_bare_changes_are_an_arm(self) -> None:
        study = tiny_study()
        assert study.arms["slow"].set == {"optimizer.lr": 1e-5}
        assert study.seeds == [0, 1]
        assert study.baseline == "plain"
        assert study.planned() == [("slow", "plain"), ("wsd", "plain")]

    def test_metrics_may_be_a_list_or_have_no_settings(self) -> None:
        assert list(tiny_study(metrics=["validation/loss"]).metrics) == ["validation/loss"]
        assert tiny_study(metrics={"validation/loss": None}).metrics["validation/loss"].at == "end"

    def test_a_study_is_read_back_from_its_yaml(self, tmp_path: Path) -> None:
        study = tiny_study(tune={"optimizer.lr": [1e-3, 1e-2]}, contrasts=[["wsd", "slow"]], question="Which?")
        (tmp_path / "study.yaml").write_text(study.to_yaml())
        assert load_study(tmp_path / "study.yaml") == study

    def test_base_in_a_file_keeps_its_own_folder(self, tmp_path: Path) -> None:
        (tmp_path / "bases").mkdir()
        (tmp_path / "bases" / "notes.txt").write_text("words " * 500)
        base = tiny_data(corpus={"notes": {"path": "notes.txt"}})
        (tmp_path / "bases" / "base.yaml").write_text(format_yaml(base))
        (tmp_path / "more.txt").write_text("more " * 500)
        data = study_data(base="bases/base.yaml", arms={"plain": {}, "more": {"corpus.notes.path": "more.txt"}})
        study = make_study(data, tmp_path)
        assert study.base["corpus"]["notes"]["path"] == str(tmp_path / "bases" / "notes.txt")
        assert study.recipe([study.arms["more"].set], "more").corpus["notes"].path == str(tmp_path / "more.txt")

    def test_overrides(self, tmp_path: Path) -> None:
        (tmp_path / "study.yaml").write_text(format_yaml(study_data()))
        (tmp_path / "plain.yaml").write_text(format_yaml(study_data(executor={"slots": 3})))
        assert load_study(tmp_path / "plain.yaml").executor.model_dump()["slots"] == 3
        study = load_study(tmp_path / "study.yaml", ["seeds=7", "base.optimizer.lr=0.5"])
        assert study.seeds == list(range(7))
        assert study.base["optimizer"]["lr"] == 0.5

    def test_every_combination_of_a_grid_is_tried(self) -> None:
        tuning = tiny_study(tune={"optimizer.lr": [1, 2], "batch.tokens": [3, 4]}).tuning("plain")
        assert tuning is not None
        pairs = [tuple(each.values()) for each in tuning.combinations()]
        assert pairs == [(1, 3), (1, 4), (2, 3), (2, 4)]


class TestRefusals:
    def test_unknown_key_of_an_arm(self) -> None:
        text = refused(arms={"plain": {}, "heavy": {"optimizer.weight_decoy": 3}})
        assert "arm 'heavy'" in text and "weight_decay" in text

    def test_baseline_that_is_no_arm(self) -> None:
        assert "did you mean 'plain'" in refused(baseline="plane")

    def test_contrast_of_unknown_arms(self) -> None:
        assert "did you mean 'wsd'" in refused(contrasts=[["wsdd", "plain"]])
        assert "compared with itself" in refused(contrasts=[["wsd", "wsd"]])

    def test_unmatched_without_a_reason(self) -> None:
        assert "reason" in refused(match="none")
        tiny_study(match="none", reason="they differ on purpose")

    def test_budget_in_minutes(self) -> None:
        assert "minutes" in refused(base=tiny_data(budget={"minutes": 1}))

    def test_seeds_given_twice(self) -> None:
        assert "seeds" in refused(seeds=[1, 1])

    def test_arms_with_other_numbers_of_tuning_trials(self) -> None:
        arms = {"plain": {"tune": {"optimizer.lr": [1, 2]}}, "slow": {"tune": {"optimizer.lr": [1]}}}
        assert "same number" in refused(arms=arms)

    def test_start_from_an_unknown_product(self) -> None:
        arms = {"plain": {}, "later": {"start": "genral"}}
        assert "did you mean 'general'" in refused(arms=arms, products={"general": {}})

    def test_members_without_merge(self) -> None:
        assert "merge" in refused(arms={"plain": {}, "many": {"members": [{}, {}]}})

    def test_two_sizes_that_matter(self) -> None:
        assert "once" in refused(metrics={"validation/loss": {"noise": 1, "difference": 0.1}})

    def test_a_recipe_is_not_a_study(self, tmp_path: Path) -> None:
        (tmp_path / "recipe.yaml").write_text(format_yaml(tiny_data()))
        with pytest.raises(RequestError, match="not a study"):
            load_study(tmp_path / "recipe.yaml")

    def test_all_faults_in_one_message(self) -> None:
        text = refused(seeds=[], alpha=2, mtach="flops")
        assert "3 faults" in text and "did you mean 'match'" in text


class TestChanges:
    def test_dotted_and_nested_say_the_same(self) -> None:
        data = make_recipe(tiny_data()).plain()
        nested = with_changes(data, {"optimizer": {"lr": 0.5}})
        assert nested == with_changes(data, {"optimizer.lr": 0.5})
        assert nested["optimizer"]["weight_decay"] == data["optimizer"]["weight_decay"]

    def test_another_kind_keeps_nothing_of_the_former(self) -> None:
        data = make_recipe(tiny_data()).plain()
        changed = with_changes(data, {"schedule": {"decay": 0.2, "kind": "wsd"}})
        assert changed["schedule"] == {"kind": "wsd", "decay": 0.2}

    def test_lists_are_replaced_and_null_unsets(self) -> None:
        data = with_changes(make_recipe(tiny_data()).plain(), {"stability.clip": None, "probes": [{"kind": "x"}]})
        assert data["stability"]["clip"] is None and data["probes"] == [{"kind": "x"}]

    def test_a_unit_of_the_budget_replaces_the_other(self) -> None:
        data = with_changes(make_recipe(tiny_data()).plain(), {"budget.tokens": 4096})
        assert make_recipe(data).budget.steps is None

    def test_what_was_given_is_left_alone(self) -> None:
        data = make_recipe(tiny_data()).plain()
        before = parse_yaml(format_yaml(data))
        with_changes(data, {"optimizer.lr": 0.5, "corpus.prose.weight": 3})
        assert data == before
