"""What is wrong with a study is said before anything of it is trained, in words that help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foretrain.errors import RequestError
from foretrain.run_directory import RunDirectory
from foretrain.studies.commands import study
from foretrain.studies.conducting import conduct
from tests.studies.tiny_study import tiny_study

TWO = {"plain": {}, "slow": {"optimizer.lr": 1e-5}}


def refused(**changes: Any) -> str:
    with pytest.raises(RequestError) as error:
        tiny_study(**changes)
    return str(error.value)


def with_arm(arm: Any, **changes: Any) -> str:
    return refused(arms={"plain": {}, "other": arm}, **changes)


class TestInTheFile:
    @pytest.mark.parametrize("seeds", [[True, False], True, "three", [1.5], 0, -3, [-1], [2, 2]])
    def test_seeds_that_are_none(self, seeds: Any) -> None:
        assert "seeds" in refused(seeds=seeds)

    @pytest.mark.parametrize("name", ["..", "a/b", "é", "a" * 101, "", " a", "a\n", 1, False])
    def test_names_that_are_no_folders(self, name: Any) -> None:
        assert "arms" in refused(arms={"plain": {}, name: {}})

    def test_names_that_differ_by_case(self) -> None:
        assert "'slow' and 'Slow'" in refused(arms={"plain": {}, "slow": {}, "Slow": {}})

    def test_the_name_of_a_control(self) -> None:
        assert "one-off costs" in refused(arms={"plain": {}, "x": {"one_off": 1e9}, "plain-given-x": {}})

    def test_a_pair_that_is_compared_twice(self) -> None:
        assert "twice" in refused(contrasts=[["slow", "plain"], ["plain", "slow"]])

    @pytest.mark.parametrize("arm", [{"seed": 3}, {"members": [{"seed": 3}, {}], "merge": "ensemble"}])
    def test_an_arm_with_a_seed_of_its_own(self, arm: Any) -> None:
        assert "arms.other: sets `seed`" in with_arm(arm)

    def test_an_arm_with_a_budget_in_minutes(self) -> None:
        assert "arm 'other' has a budget in minutes" in with_arm({"budget.minutes": 1})

    @pytest.mark.parametrize("difference", [0, -1, float("inf"), float("nan"), "much"])
    def test_a_smallest_difference_that_is_none(self, difference: Any) -> None:
        assert "difference" in refused(metrics={"validation/loss": {"difference": difference}})

    @pytest.mark.parametrize("alpha", [0, 0.5, -0.1, float("nan"), "5%"])
    def test_a_rate_of_error_that_is_none(self, alpha: Any) -> None:
        assert "alpha" in refused(alpha=alpha)

    def test_products_that_there_are_not(self) -> None:
        assert "did you mean 'general'" in with_arm({"corpus.prose.path": "product:genral"}, products={"general": {}})

    def test_a_product_that_uses_a_product(self) -> None:
        products = {"one": {}, "two": {"set": {"model": {"kind": "pretrained", "path": "product:one"}}}}
        assert "cannot use the product 'one'" in with_arm({"start": "two"}, products=products)


class TestInAGrid:
    @pytest.mark.parametrize("key", ["seed", "budget.steps", "evaluation.split"])
    def test_what_cannot_be_chosen(self, key: str) -> None:
        assert f"tune: `{key.partition('.')[0]}`" in refused(tune={key: [1, 2]})

    def test_an_unknown_key(self) -> None:
        assert "did you mean 'lr'" in refused(tune={"optimizer.lrr": [1e-3, 1e-2]})

    def test_a_value_of_the_wrong_type(self) -> None:
        assert "optimizer.lr" in refused(tune={"optimizer.lr": [1e-3, "high"]})

    def test_a_product(self) -> None:
        tune = {"model": [{"kind": "pretrained", "path": "product:p"}]}
        assert "make each an arm" in refused(tune=tune, products={"p": {}})


class TestBeforeTraining:
    def refused(self, folder: Path, **changes: Any) -> str:
        with pytest.raises(RequestError) as error:
            conduct(tiny_study(**changes), folder / "study", report=False)
        assert not list(folder.rglob("metrics.jsonl"))
        assert not (folder / "study" / "study.yaml").exists()
        return str(error.value)

    def test_a_figure_is_refused_before_a_product_is_made(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setenv("FORETRAIN_CACHE", str(tmp_path / "cache"))
        arms = {"plain": {"start": "before"}, "slow": {"start": "before", "set": {"optimizer.lr": 1e-5}}}
        text = self.refused(tmp_path, arms=arms, products={"before": {"set": {"seed": 9}}}, metrics=["validation/los"])
        assert "did you mean 'validation/loss'" in text

    def test_members_that_cannot_be_merged(self, tmp_path: Path) -> None:
        arms = {"plain": {}, "pair": {"members": [{}, {"model.context": 16}], "merge": "ensemble"}}
        assert "arms.pair: its runs cannot be merged" in self.refused(tmp_path, arms=arms)

    def test_members_whose_whole_steps_do_not_match(self, tmp_path: Path) -> None:
        arms = {"plain": {}, "many": {"members": [{}] * 5, "merge": "ensemble"}}
        text = self.refused(tmp_path, arms=arms, match="steps")  # 8 steps are 2 for each of 5, which is 10
        assert "of more steps" in text and "Leave out" not in text

    def test_less_validation_text(self, tmp_path: Path) -> None:
        arms = {"plain": {}, "other": {"evaluation.tokens": 256}}
        assert "text it is measured on differs" in self.refused(tmp_path, arms=arms)

    def test_other_items_of_a_task(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            (tmp_path / f"{name}.jsonl").write_text(f'{{"text": "the {name}th of some words"}}\n' * 2)
        task = {"kind": "completion_loss", "path": str(tmp_path / "one.jsonl")}
        changes = {
            "base": {**tiny_study().base, "tasks": {"words": task}},
            "metrics": ["task/words/loss"],
        }
        other = {"tasks.words.path": str(tmp_path / "two.jsonl")}
        assert "the task differs" in self.refused(tmp_path, arms={"plain": {}, "other": other}, **changes)


def test_bits_per_byte_of_two_tokenizers_compare(tmp_path: Path) -> None:
    bpe = {"tokenizer": {"kind": "bpe", "vocabulary": 400}}
    base = {**tiny_study().base, "budget": {"steps": 2}}
    changes = {"arms": {"plain": {}, "bpe": bpe}, "seeds": 1, "metrics": ["validation/prose/bits_per_byte"]}
    with pytest.raises(RequestError, match=r"evaluation\.tokens.*or more"):
        conduct(tiny_study(base=base, **changes), tmp_path, report=False)
    found = conduct(tiny_study(base={**base, "evaluation": {"every": 1000}}, **changes), tmp_path, report=False)
    assert found["contrasts"][0]["seeds"] == [0]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a study with a merge, of one seed and few steps."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "notes.txt").write_text("some words of a note\n\n" * 400)
    conduct(of_notes(folder), folder / "study", report=False)
    return folder


def of_notes(folder: Path, **changes: Any) -> Any:
    """A study on a file in a folder."""
    corpus = {"prose": {"path": str(folder / "notes.txt"), "validation": 0.3}}
    base = {**tiny_study().base, "budget": {"steps": 2}, "corpus": corpus, **changes.pop("base", {})}
    return tiny_study(folder, **{"arms": TWO, "seeds": 1, "base": base, **changes})


class TestADirectoryThatIsTaken:
    def refused(self, folder: Path, found: Any) -> str:
        before = {path: path.read_bytes() for path in (folder / "study").glob("*.*")}
        with pytest.raises(RequestError) as error:
            conduct(found, folder / "study", report=False)
        assert before == {path: path.read_bytes() for path in (folder / "study").glob("*.*")}
        return str(error.value)

    def test_by_a_study_of_another_name(self, done: Path) -> None:
        text = self.refused(done, of_notes(done, name="other", arms={"fast": {"optimizer.lr": 1e-2}}))
        assert "name was 'tiny' and is 'other'" in text

    def test_by_a_study_on_another_base(self, done: Path) -> None:
        found = of_notes(done, arms={"fast": {}}, base={"batch": {"tokens": 128}})
        assert "base.batch.tokens was 256 and is 128" in self.refused(done, found)

    def test_by_an_arm_with_another_value(self, done: Path) -> None:
        found = of_notes(done, arms={"plain": {}, "slow": {"optimizer.lr": 1e-4}})
        assert "optimizer.lr was 1e-05 and is 0.0001" in self.refused(done, found)

    def test_by_an_arm_that_began_elsewhere(self, done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FORETRAIN_CACHE", str(done / "cache"))
        arms = {"plain": {}, "slow": {"set": {"optimizer.lr": 1e-5}, "start": "before"}}
        text = self.refused(done, of_notes(done, arms=arms, products={"before": {"set": {"seed": 9}}}))
        assert "began with other weights" in text

    def test_by_trials_on_other_text(self, done: Path) -> None:
        text = (done / "notes.txt").read_text()
        (done / "notes.txt").write_text(text + "\n\nand one more note")
        try:
            assert "other text" in self.refused(done, of_notes(done, seeds=2))
        finally:
            (done / "notes.txt").write_text(text)

    def test_by_trials_whose_scores_were_others(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FORETRAIN_CACHE", str(tmp_path / "cache"))
        reference = tmp_path / "reference.txt"
        reference.write_text("A plain sentence.\n\nAnother one.")
        base = tiny_study().base
        name = next(iter(base["corpus"]))
        score = {"score": {"kind": "ngram_perplexity", "reference": str(reference)}, "order": {"kind": "sorted"}}
        corpus = {**base["corpus"], name: {**base["corpus"][name], **score}}
        settings = {"arms": {"plain": {}}, "base": {**base, "budget": {"steps": 1}, "corpus": corpus}}
        study(tiny_study(**settings, seeds=1), out=tmp_path / "study", quiet=True)
        reference.write_text("zqx zqx zqx zqx")
        assert "other text" in self.refused(tmp_path, tiny_study(**settings, seeds=2))

    def test_by_a_run(self, done: Path) -> None:
        with pytest.raises(RequestError, match="directory of a run"):
            study(of_notes(done), out=done / "study" / "trials" / "plain" / "seed-0", quiet=True)

    def test_restart_deletes_nothing_where_no_study_is(self, tmp_path: Path) -> None:
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs" / "mine.txt").write_text("kept")
        with pytest.raises(RequestError, match="no figure"):
            study(tiny_study(metrics=["nothing"]), out=tmp_path, restart=True, quiet=True)
        assert (tmp_path / "logs" / "mine.txt").read_text() == "kept"

    def test_restart_forgets_a_study(self, tmp_path: Path) -> None:
        for value in (1e-5, 1e-4):
            arms = {"plain": {"optimizer.lr": value}}
            found = tiny_study(arms=arms, seeds=1, base={**tiny_study().base, "budget": {"steps": 1}})
            study(found, out=tmp_path, restart=True, quiet=True)
        assert RunDirectory(tmp_path / "trials" / "plain" / "seed-0").recipe()["optimizer"]["lr"] == 1e-4

    def test_no_seeds(self, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match="at least one"):
            study(tiny_study(), out=tmp_path, seeds=0, quiet=True)
