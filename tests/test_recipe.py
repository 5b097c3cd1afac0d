"""The recipe: what it accepts, what it refuses and with which words, overrides, and its way through YAML and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretrain.errors import RequestError
from foretrain.overrides import with_override
from foretrain.plain_yaml import format_yaml, parse_yaml
from foretrain.recipe import Recipe, load_recipe, make_recipe
from foretrain.section import parse_count, parse_number

SMALLEST: dict[str, Any] = {
    "budget": {"steps": 5},
    "model": {"kind": "llama", "layers": 2, "width": 32, "heads": 2, "context": 32},
    "corpus": {"general": "general.txt"},
}


def refused(changes: dict[str, Any], *overrides: str) -> str:
    with pytest.raises(RequestError) as caught:
        make_recipe({**SMALLEST, **changes}, overrides=list(overrides))
    assert caught.value.exit_code == 2
    return str(caught.value)


def made(changes: dict[str, Any], *overrides: str, folder: Path = Path()) -> Recipe:
    return make_recipe({**SMALLEST, **changes}, folder=folder, overrides=list(overrides))


class TestNumbers:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("4M", 4e6),
            ("4m", 4e6),
            ("1.5B", 1.5e9),
            ("2e15", 2e15),
            ("16_384", 16384.0),
            ("3K", 3e3),
            ("1E", 1e18),
            (" 7 ", 7.0),
        ],
    )
    def test_suffixes(self, text: str, value: float) -> None:
        assert parse_number(text) == value

    @pytest.mark.parametrize("text", ["", "M", "4 apples", "-3", "1.2.3", "0x10", "4MM", "nan", "inf"])
    def test_other_texts_stay_texts(self, text: str) -> None:
        assert parse_number(text) == text

    def test_counts_are_whole(self) -> None:
        assert parse_count("4M") == 4_000_000 and isinstance(parse_count("4M"), int)
        assert parse_count("0.5K") == 500
        assert "whole number" in refused({"budget": {"steps": "2.5"}})

    @given(st.integers(0, 10**15))
    def test_every_count_survives(self, number: int) -> None:
        assert parse_count(f"{number}") == number == parse_count(f"{number:_}")

    def test_in_a_recipe(self) -> None:
        recipe = made(
            {"budget": {"tokens": "4M"}, "optimizer": {"kind": "adamw", "lr": "2e-3"}, "batch": {"tokens": 16384.0}}
        )
        assert (recipe.budget.tokens, recipe.batch.tokens) == (4_000_000, 16384)
        assert recipe.optimizer.lr == 2e-3
        assert made({"budget": {"flops": "2e15"}}).budget.flops == 2e15

    def test_bounds_and_infinity(self) -> None:
        assert "greater than 0" in refused({"budget": {"steps": 0}})
        assert "finite" in refused({"budget": {"flops": float("inf")}})


class TestYaml:
    def test_numbers_without_a_dot(self) -> None:
        assert parse_yaml("a: 1e-3\nb: 2e15\nc: -1E+2") == {"a": 1e-3, "b": 2e15, "c": -100.0}

    def test_a_key_given_twice_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="line 3, column 1: the key 'a' is given twice"):
            parse_yaml("a: 1\nb: 2\na: 3")

    def test_only_plain_data(self) -> None:
        with pytest.raises(ValueError):
            parse_yaml("a: !!python/object/apply:os.getcwd []")

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(min_size=1), inner),
            max_leaves=12,
        )
    )
    def test_what_is_written_is_read_back(self, data: Any) -> None:
        assert parse_yaml(format_yaml(data)) == data

    @pytest.mark.parametrize(
        "text",
        ["1e3", "4M", "true", "null", "1_000e3", "0x1f", "2020-01-01", "~", "=", "<<", "a\x85b", "\u2028", "\r", "ä"],
    )
    def test_texts_that_look_like_something_else(self, text: str) -> None:
        assert parse_yaml(format_yaml({"a": text, text: 1})) == {"a": text, text: 1}


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "wrong", "right"),
        [
            ({"optimiser": {"kind": "adamw"}}, "optimiser", "optimizer"),
            ({"budget": {"step": 3}}, "step", "steps"),
            ({"corpus": {"general": {"path": "a.txt", "wieght": 1}}}, "wieght", "weight"),
            ({"optimizer": {"kind": "adamw", "weight_decy": 1}}, "weight_decy", "weight_decay"),
            ({"schedule": {"kind": "cosine", "warm": 1}}, "warm", "warmup"),
            ({"tasks": {"t": {"kind": "completion_loss", "path": "a.jsonl", "evry": 1}}}, "evry", "every"),
            ({"stability": {"clipp": 1}}, "clipp", "clip"),
            ({"track": [{"kind": "tensorbord"}]}, "tensorbord", "tensorboard"),
            ({"schedule": "cosin"}, "cosin", "cosine"),
            ({"model": {"kind": "lama"}}, "lama", "llama"),
        ],
    )
    def test_unknown_names_at_every_depth(self, changes: dict[str, Any], wrong: str, right: str) -> None:
        text = refused(changes)
        assert f"'{wrong}'; did you mean '{right}'?" in text
        assert "1 fault:" in text

    def test_a_name_far_from_all_lists_what_there_is(self) -> None:
        text = refused({"schedule": "zzzz"})
        assert "there are:" in text and "cosine" in text and "wsd" in text

    def test_all_faults_in_one_message(self) -> None:
        text = refused(
            {
                "sede": 1,
                "seed": -1,
                "precision": "fp8",
                "optimizer": {"kind": "adamw", "lr": "fast", "weigth_decay": 0.1},
                "corpus": {"general": {"path": 5, "limit": "2.5"}},
                "model": {"kind": "lama"},
            }
        )
        for piece in (
            "9 faults",
            "there is no key 'sede'; did you mean 'seed'?",
            "seed: Input should be greater than or equal to 0 (given: -1)",
            "precision: ",
            "optimizer.lr: ",
            "optimizer: there is no key 'weigth_decay'; did you mean 'weight_decay'?",
            "corpus.general.path: ",
            "corpus.general.limit: should be a whole number",
            "model: there is no model of kind 'lama'; did you mean 'llama'?",
        ):
            assert piece in text, piece
        assert "function-" not in text

    @pytest.mark.parametrize("budget", [{}, {"steps": 1, "tokens": 2}, {"steps": None}])
    def test_a_budget_has_one_unit(self, budget: dict[str, Any]) -> None:
        assert "exactly one of steps, tokens, flops, minutes" in refused({"budget": budget})

    def test_weights_that_sum_to_zero(self) -> None:
        corpus = {"a": {"path": "a.txt", "weight": 0}, "b": {"path": "b.txt", "weight": 0}}
        assert "sum to zero" in refused({"corpus": corpus})
        corpus["b"]["weight"] = 0.1
        assert made({"corpus": corpus})

    @pytest.mark.parametrize("shares", [{"validation": 1.0}, {"validation": 0.6, "steer": 0.4}, {"steer": -0.1}])
    def test_shares_leave_something_to_train_on(self, shares: dict[str, float]) -> None:
        assert "leave something to train on" in refused({"corpus": {"a": {"path": "a.txt", **shares}}})

    @pytest.mark.parametrize("corpus", [{}, [], None, "a.txt"])
    def test_a_corpus_has_domains(self, corpus: Any) -> None:
        assert "corpus" in refused({"corpus": corpus})

    @pytest.mark.parametrize("missing", ["budget", "model", "corpus"])
    def test_what_has_no_default(self, missing: str) -> None:
        with pytest.raises(RequestError, match=f"{missing}: Field required"):
            make_recipe({key: value for key, value in SMALLEST.items() if key != missing})

    def test_files(self, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match=r"none\.yaml cannot be read: No such file"):
            load_recipe(tmp_path / "none.yaml")
        (tmp_path / "broken.yaml").write_text("budget: {steps: 5\nmodel: x\n")
        with pytest.raises(RequestError, match=r"broken\.yaml is not valid YAML: line 2"):
            load_recipe(tmp_path / "broken.yaml")
        (tmp_path / "list.yaml").write_text("- a\n")
        with pytest.raises(RequestError, match="should be a YAML mapping"):
            load_recipe(tmp_path / "list.yaml")
        (tmp_path / "bytes.yaml").write_bytes(b"name: \xff\xfe\n")
        with pytest.raises(RequestError, match=r"bytes\.yaml"):
            load_recipe(tmp_path / "bytes.yaml")


class TestDefaults:
    def test_only_three_keys_are_needed(self) -> None:
        recipe = made({})
        kinds = [part.kind for part in (recipe.objective, recipe.parametrization, recipe.optimizer, recipe.schedule)]
        assert kinds == ["causal_lm", "full", "adamw", "cosine"]
        assert recipe.tokenizer is None and recipe.steering == []

    def test_a_section_without_kind_is_of_the_default_one(self) -> None:
        recipe = made({"optimizer": {"lr": 0.5}, "schedule": {"warmup": 3}})
        assert (recipe.optimizer.kind, recipe.optimizer.lr) == ("adamw", 0.5)
        assert (recipe.schedule.kind, recipe.schedule.warmup) == ("cosine", 3)

    def test_a_part_without_default_needs_its_kind(self) -> None:
        assert "tokenizer: should name a tokenizer, such as {kind: bpe}" in refused({"tokenizer": {"vocabulary": 300}})

    def test_a_recipe_is_frozen(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            made({}).seed = 3  # type: ignore[misc]

    def test_the_name_is_that_of_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "my-run.yaml").write_text(format_yaml(SMALLEST))
        assert load_recipe(tmp_path / "my-run.yaml").name == "my-run"

    @pytest.mark.parametrize("name", ["", "a b", "../x", ".hidden", "a/b"])
    def test_a_name_is_a_folder_name(self, name: str) -> None:
        assert "name: " in refused({"name": name})


class TestPaths:
    def test_relative_ones_start_at_the_recipe(self, tmp_path: Path) -> None:
        corpus = {
            "a": "a.txt",
            "b": ["b.txt", "/c.txt"],
            "c": {"path": "../d", "validation": "v.txt"},
            "d": "builtin:english",
        }
        recipe = made({"corpus": {**corpus, "e": "hub:owner/name"}}, folder=tmp_path / "sub")
        assert recipe.corpus["a"].path == str(tmp_path / "sub/a.txt")
        assert recipe.corpus["b"].path == [str(tmp_path / "sub/b.txt"), "/c.txt"]
        assert recipe.corpus["c"].path == str(tmp_path / "d")
        assert recipe.corpus["c"].validation == str(tmp_path / "sub/v.txt")
        assert recipe.corpus["d"].path == "builtin:english"
        assert recipe.corpus["e"].path == "hub:owner/name"

    def test_a_share_written_as_text_is_a_share(self) -> None:
        assert made({"corpus": {"a": {"path": "a.txt", "validation": "5e-2"}}}).corpus["a"].validation == 0.05


class TestOverrides:
    def test_values_are_yaml(self) -> None:
        recipe = made({}, "optimizer.lr=1e-3", "checkpoint.best=false", "stability.clip=null", "seed=7", "track=[]")
        assert (recipe.optimizer.lr, recipe.checkpoint.best, recipe.stability.clip, recipe.seed) == (
            1e-3,
            False,
            None,
            7,
        )

    def test_the_original_stays_as_it_was(self) -> None:
        data = {"steering": [{"kind": "x", "every": 1}], "a": {"b": {"c": 1}}}
        changed = with_override(with_override(data, "steering.0.every=8"), "a.b.c=2")
        assert data == {"steering": [{"kind": "x", "every": 1}], "a": {"b": {"c": 1}}}
        assert changed == {"steering": [{"kind": "x", "every": 8}], "a": {"b": {"c": 2}}}

    def test_a_budget_keeps_one_unit(self) -> None:
        recipe = made({}, "budget.tokens=4M")
        assert (recipe.budget.steps, recipe.budget.tokens) == (None, 4_000_000)

    def test_a_new_kind_drops_the_fields_of_the_former(self) -> None:
        schedule = {"kind": "wsd", "decay": 0.3}
        assert made({"schedule": schedule}, "schedule.kind=cosine").schedule.kind == "cosine"
        same = made({"schedule": schedule}, "schedule.kind=wsd").schedule
        assert same.model_dump()["decay"] == 0.3

    def test_bare_words_become_mappings(self) -> None:
        recipe = made({"optimizer": "adamw"}, "optimizer.lr=0.5", "corpus.general.weight=2", "corpus.more=more.txt")
        assert (recipe.optimizer.kind, recipe.optimizer.lr) == ("adamw", 0.5)
        assert recipe.corpus["general"].weight == 2 and str(recipe.corpus["general"].path).endswith("general.txt")
        assert str(recipe.corpus["more"].path).endswith("more.txt")

    def test_a_list_of_paths_gets_a_weight(self) -> None:
        recipe = made({"corpus": {"general": ["a.txt", "b.txt"]}}, "corpus.general.weight=2")
        assert recipe.corpus["general"].weight == 2 and len(recipe.corpus["general"].path) == 2

    @pytest.mark.parametrize("override", ["seed", "=3", " =3", "seed=[1"])
    def test_what_is_no_override(self, override: str) -> None:
        assert "--set" in refused({}, override)

    def test_items_of_lists(self) -> None:
        assert "'3' should be the number of an item, from 0 to 0" in refused(
            {"probes": [{"kind": "x"}]}, "probes.3.every=1"
        )
        assert "the list is empty" in refused({"probes": []}, "probes.0.every=1")

    def test_misspelt_ones_are_refused_like_any_key(self) -> None:
        assert "there is no key 'optimiser'; did you mean 'optimizer'?" in refused({}, "optimiser.lr=1")
        assert "budget" in refused({}, "budget.tokens.x=1")


class TestRoundTrip:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"name": "1e3", "seed": 3, "budget": {"flops": "2e15"}, "precision": "fp32"},
            {"tokenizer": "byte", "optimizer": {"kind": "muon", "lr": 1e-5}, "schedule": {"kind": "wsd"}},
            {"corpus": {"ä ö": ["a.txt", "b.txt"], "b": {"path": "builtin:english", "steer": 0.1, "weight": 1e-9}}},
            {"feedback": {"q": {"path": "q.jsonl", "prompt": "question"}}, "track": ["tensorboard"]},
        ],
    )
    def test_yaml_gives_back_an_equal_recipe(self, changes: dict[str, Any], tmp_path: Path) -> None:
        recipe = made(changes, folder=tmp_path)
        (tmp_path / "elsewhere").mkdir()
        path = tmp_path / "elsewhere" / "recipe.yaml"
        path.write_text(recipe.to_yaml(), encoding="utf-8")
        again = load_recipe(path)
        assert again == recipe
        assert again.to_yaml() == recipe.to_yaml()

    def test_the_complete_recipe_is_written(self) -> None:
        data = parse_yaml(made({}).to_yaml())
        assert set(data) == set(Recipe.model_fields)
        assert data["optimizer"]["lr"] == made({}).optimizer.lr


class TestPlugins:
    SOURCE = '''
from typing import Literal
from foretrain.schedules.base import Schedule

class Sawtooth(Schedule):
    """Falls and jumps back."""
    kind: Literal["sawtooth_of_a_test"] = "sawtooth_of_a_test"
    teeth: int = 3
    """How many."""
    def shape(self, step, start, total):
        return 1 - ((step - start) * self.teeth / (total - start)) % 1
'''

    def test_a_file_beside_the_recipe(self, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text(self.SOURCE)
        recipe = made(
            {"plugins": ["mine.py"], "schedule": {"kind": "sawtooth_of_a_test", "teeth": 2, "warmup": 0}},
            folder=tmp_path,
        )
        assert recipe.schedule.factor(0, 100) == 1.0 and recipe.schedule.factor(25, 100) == 0.5
        # The resolved recipe finds its plug-in from any folder.
        assert make_recipe(parse_yaml(recipe.to_yaml()), folder=tmp_path / "other") == recipe

    def test_an_edited_file_replaces_its_older_self(self, tmp_path: Path) -> None:
        changes = {"plugins": ["mine.py"], "schedule": {"kind": "sawtooth_of_a_test"}}
        (tmp_path / "mine.py").write_text(self.SOURCE)
        assert made(changes, folder=tmp_path).schedule.model_dump()["teeth"] == 3
        (tmp_path / "mine.py").write_text(self.SOURCE.replace("teeth: int = 3", "teeth: int = 5"))
        assert made(changes, folder=tmp_path).schedule.model_dump()["teeth"] == 5

    def test_what_cannot_be_imported(self, tmp_path: Path) -> None:
        (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
        for name, piece in (
            ("broken.py", "nothing_of_this_name"),
            ("none.py", "there is no file"),
            ("no_module_x", "no_module_x"),
        ):
            with pytest.raises(RequestError, match=f"plugins: .*{piece}"):
                made({"plugins": [name]}, folder=tmp_path)

    def test_plugins_are_a_list(self) -> None:
        assert "plugins: Input should be a valid list" in refused({"plugins": "mine.py"})
