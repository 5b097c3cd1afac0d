"""Every part of every axis: where it stands, what it says of itself, and that its class is a part at all.

What parts do (state, neutrality, seeds) is the contract sweep's; this is about what a recipe and a reader see.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from pydantic import Field, ValidationError

from foretrain.errors import RequestError
from foretrain.parts import Facts, Part, families, find, kinds
from foretrain.schedules.base import Schedule
from foretrain.section import Section

PARTS = [
    part
    for base in families().values()
    for part in kinds(base).values()
    if part.__module__.startswith("foretrain.")  # and no plug-in that another test loaded
]
SWEEP = pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.axis}-{part.name()}")


def test_every_axis_is_found() -> None:
    assert set(families()) >= {
        "builtin",
        "model",
        "objective",
        "optimizer",
        "parametrization",
        "probe",
        "schedule",
        "steering",
        "task",
        "tokenizer",
        "tracker",
    }


def test_the_parts_that_the_design_names_are_there() -> None:
    named = {
        "model": {"llama", "gpt2", "bert", "pretrained"},
        "objective": {"causal_lm"},
        "optimizer": {"adamw", "muon"},
        "parametrization": {"full", "lora", "low_rank", "sltrain", "spdf"},
        "schedule": {"constant", "cosine", "infinite", "linear", "wsd"},
        "task": {"completion_loss", "exact_match", "linear_probe", "multiple_choice"},
        "tokenizer": {"bpe", "byte", "pretrained"},
        "tracker": {"mlflow", "tensorboard", "trackio", "wandb"},
    }
    for axis, wanted in named.items():
        assert set(kinds(families()[axis])) >= wanted


@SWEEP
def test_file_is_named_after_the_kind(part: type[Part]) -> None:
    folder = families()[part.axis].__module__.rpartition(".")[0]
    assert part.__module__ == f"{folder}.{part.name()}"


@SWEEP
def test_one_file_one_part(part: type[Part]) -> None:
    module = inspect.getmodule(part)
    assert [other for other in PARTS if inspect.getmodule(other) is module] == [part]


@SWEEP
def test_it_says_what_it_is(part: type[Part]) -> None:
    first = (part.__doc__ or "").strip().partition("\n")[0]
    assert part.__doc__ != part.__mro__[1].__doc__, "its docstring is its own"
    assert len(first) > 10 and first.endswith((".", "?")), first
    undocumented = [name for name, field in part.model_fields.items() if name != "kind" and not field.description]
    assert undocumented == []


@SWEEP
def test_its_facts_hold_together(part: type[Part]) -> None:
    facts = part.facts
    assert isinstance(facts, Facts)
    assert "facts" in vars(part), "the row of facts is its own and not inherited"
    assert facts.answers or facts.paper, "it says which question it answers, or which paper it follows"
    assert not facts.arxiv or re.fullmatch(r"\d{4}\.\d{4,5}|[a-z-]+/\d{7}", facts.arxiv), facts.arxiv
    assert not facts.arxiv or (facts.paper and facts.year), "an arXiv id comes with the paper's title and year"
    assert facts.year is None or 1950 <= facts.year <= 2100
    assert set(facts.needs) <= {"batch_losses"}


@SWEEP
def test_it_is_frozen_and_refuses_unknown_keys(part: type[Part]) -> None:
    assert part.model_config["frozen"] is True and part.model_config["extra"] == "forbid"
    with pytest.raises(ValidationError, match="there is no key 'no_such_key_anywhere'"):
        part.model_validate({"kind": part.name(), "no_such_key_anywhere": 1})


@SWEEP
def test_its_defaults_are_valid_and_survive_plain_data(part: type[Part]) -> None:
    try:
        made = part.model_validate({"kind": part.name()})
    except ValidationError as error:
        # Its defaults were checked with the values a recipe must give; only the class can say which those are.
        required = any(field.is_required() for field in part.model_fields.values())
        assert ("Field required" if required else "needs") in str(error)
        return
    data = made.model_dump(mode="json")
    assert part.model_validate(data) == made
    assert part.model_validate(data).model_dump(mode="json") == data


@SWEEP
def test_neutral_settings_are_settings(part: type[Part]) -> None:
    assert part.neutral is None or set(part.neutral) <= set(part.model_fields) - {"kind"}


@SWEEP
def test_kind_cannot_be_another(part: type[Part]) -> None:
    with pytest.raises(ValidationError):
        part.model_validate({"kind": part.name() + "x"})


def test_finding_imports_one_file_only() -> None:
    assert find(Schedule, "cosine").name() == "cosine"
    with pytest.raises(RequestError, match="there is no schedule of kind 'cosin'; did you mean 'cosine'"):
        find(Schedule, "cosin")
    for odd in ("", "base", "__init__", "../x", "foretrain.recipe", "os"):
        with pytest.raises(RequestError):
            find(Schedule, odd)


def test_a_part_without_state_refuses_one() -> None:
    part = find(Schedule, "constant")()
    assert part.state_dict() == {}
    part.load_state_dict({})
    with pytest.raises(RequestError, match="schedule 'constant' keeps no state"):
        part.load_state_dict({"count": 1})


def test_no_module_asks_for_the_kind_of_a_part(repository: Path) -> None:
    """Adding a part is adding a file: what depends on the kind of a part is asked of the part."""
    names = "|".join(sorted({part.name() for part in PARTS}))
    asks = re.compile(rf"\bkind\b\s*(==|!=|in)\s*[(\[{{]?[\"']({names})[\"']")
    for path in (repository / "foretrain").rglob("*.py"):
        assert not asks.search(path.read_text(encoding="utf-8")), path


class TestSections:
    class Inner(Section):
        size: int = Field(1, gt=0)
        """Size."""

    class Outer(Section):
        inner: dict[str, TestSections.Inner] = {}
        """Inner ones."""
        word: Literal["a", "b"] = "a"
        """Word."""
        count: ClassVar[int] = 0

    def test_every_unknown_key_and_every_other_fault_is_named(self) -> None:
        with pytest.raises(ValidationError) as caught:
            self.Outer.model_validate({"wrod": "a", "word": "c", "inner": {"x": {"sise": 1, "size": 0}}, "zzz": 1})
        found = {(fault["loc"], fault["msg"]) for fault in caught.value.errors()}
        assert found == {
            ((), "there is no key 'wrod'; did you mean 'word'?"),
            ((), "there is no key 'zzz'; there are: inner, word."),
            (("word",), "Input should be 'a' or 'b'"),
            (("inner", "x"), "there is no key 'sise'; did you mean 'size'?"),
            (("inner", "x", "size"), "Input should be greater than 0"),
        }

    def test_keywords_are_checked_like_keys(self) -> None:
        with pytest.raises(ValidationError, match="did you mean 'size'"):
            self.Inner(sise=1)  # type: ignore[call-arg]


TestSections.Outer.model_rebuild(_types_namespace={"TestSections": TestSections})
