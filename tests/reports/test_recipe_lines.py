"""Which lines of a recipe are marked as chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import Field

from foretrain.recipe import make_recipe
from foretrain.reports.recipe_lines import chosen_settings, recipe_lines
from foretrain.run_directory import RunDirectory
from foretrain.section import Section


class Inner(Section):
    kind: Literal["plain", "fancy"] = "plain"
    size: int = 3
    tags: list[str] = []


class Outer(Section):
    name: str
    seed: int = 0
    one: Inner = Inner()
    part: Any = Field({"kind": "plain"})
    by_name: dict[str, Inner] = {}
    listed: list[Inner] = []
    unset: Inner | None = None


def test_what_differs_from_its_default_is_chosen() -> None:
    nothing = Outer(name="x", part=Inner())
    assert chosen_settings(nothing) == {"name"}, "what has no default was chosen"
    some = Outer(
        name="x",
        seed=1,
        one=Inner(size=4),
        part=Inner(kind="fancy"),
        by_name={"a": Inner(), "b": Inner(tags=["t"])},
        listed=[Inner(), Inner(size=9)],
    )
    expected = {"name", "seed", "one.size", "part.kind", "by_name.b.tags", "listed.1.size"}
    put_there = {"by_name.a.kind", "by_name.b.kind", "listed.0.kind", "listed.1.kind"}
    assert chosen_settings(some) == expected | put_there


def test_lines_of_a_resolved_recipe(tmp_path: Path) -> None:
    data = {
        "name": "demo",
        "budget": {"steps": 7},
        "corpus": {"prose": {"path": "builtin:prose"}},
        "model": {"kind": "llama"},
        "optimizer": {"lr": 0.5, "kind": "adamw"},
        "schedule": "linear",
    }
    recipe = make_recipe(data, folder=tmp_path)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    lines = recipe_lines(RunDirectory(tmp_path))
    assert yaml.safe_load("\n".join(line for line, _ in lines))["name"] == "demo"
    marked = {line.strip() for line, chosen in lines if chosen}
    assert {"name: demo", "steps: 7", "path: builtin:prose", "lr: 0.5", "kind: linear"} <= marked
    assert not {"seed: 0", "kind: adamw", "validation: 0.02", "clip: 1.0"} & marked


def test_a_recipe_that_no_longer_loads_is_shown_without_marks(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: demo\nold_key: 1\n")
    assert recipe_lines(RunDirectory(tmp_path)) == [("name: demo", False), ("old_key: 1", False)]
    assert recipe_lines(RunDirectory(tmp_path / "none")) == []


@pytest.mark.parametrize("text", ["a: {b: 1}\n", "- 1\n- 2\n", ""])
def test_other_yaml_does_no_harm(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    assert not any(marked for _, marked in recipe_lines(RunDirectory(tmp_path)))
