"""`data:` paths: below the folder that FORETRAIN_DATA names, and kept as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from foretrain.corpus.items import read_items
from foretrain.corpus.paths import locate
from foretrain.corpus.source import open_domain
from foretrain.errors import RequestError
from foretrain.recipe import Domain, make_recipe

LINE = '{"text": "some words"}\n'


def domain(**paths: str) -> Domain:
    return Domain.model_validate({"path": "data:text/a.jsonl", "validation": 0, **paths}, context={"folder": Path("/")})


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.jsonl").write_text(LINE)
    (tmp_path / "text" / "b.jsonl").write_text('{"text": "other words"}\n')
    monkeypatch.setenv("FORETRAIN_DATA", str(tmp_path))
    return tmp_path


def test_every_place_that_takes_a_path_takes_it(data: Path) -> None:
    found = open_domain(domain(validation="data:text/b.jsonl"))
    assert [(document.text, split) for document, split in found.splits()] == [
        ("other words", "validation"),
        ("some words", "train"),
    ]
    assert read_items("data:text/a.jsonl") == [{"text": "some words"}]
    assert [document.text for document in open_domain(domain(path="data:text")).documents()] == [
        "some words",
        "other words",
    ]


def test_recipes_and_hashes_name_no_folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    recipe = make_recipe(
        {
            "budget": {"steps": 1},
            "model": {"kind": "llama", "preset": "1M"},
            "corpus": {"a": {"path": ["data:text/a.jsonl"], "validation": "data:text/b.jsonl"}},
            "feedback": {"b": {"path": "data:text/b.jsonl"}},
            "tasks": {"t": {"kind": "completion_loss", "path": "data:text/b.jsonl"}},
        },
        folder=data,
    )
    written = recipe.to_yaml()
    assert str(data) not in written and written.count("data:text/") == 4
    before = open_domain(domain()).fingerprint()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "text").mkdir()
    (elsewhere / "text" / "a.jsonl").write_text(LINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORETRAIN_DATA", str(elsewhere))
        assert open_domain(domain()).fingerprint() == before


def test_without_the_variable_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORETRAIN_DATA", raising=False)
    with pytest.raises(RequestError, match=r"data:text/a.jsonl .*FORETRAIN_DATA.*not set.*export.*docs/data.md"):
        open_domain(domain())
    with pytest.raises(RequestError, match="FORETRAIN_DATA"):
        read_items("data:text/a.jsonl")


def test_a_file_that_is_missing_names_its_neighbour(data: Path) -> None:
    with pytest.raises(RequestError, match=r"FORETRAIN_DATA is .*did you mean 'a.jsonl'\?.*docs/data.md"):
        locate("data:text/aa.jsonl")


@pytest.mark.parametrize("path", ["data:", "data:/etc/passwd", "data:../x.jsonl", "data:text/../../x.jsonl"])
def test_it_stays_inside_the_folder(data: Path, path: str) -> None:
    with pytest.raises(RequestError, match="a path inside the folder"):
        locate(path)


def test_a_wrong_prefix_is_told_of_it(data: Path) -> None:
    with pytest.raises(RequestError, match="'data:'"):
        open_domain(Domain(path="dat:text/a.jsonl"))


def test_the_origin_of_every_file_that_a_recipe_names_is_told() -> None:
    root = Path(__file__).resolve().parents[2]
    told = (root / "docs" / "data.md").read_text(encoding="utf-8")
    recipes = [path.read_text(encoding="utf-8") for path in (root / "recipes").rglob("*.yaml")]
    named = {name for text in recipes for name in re.findall(r'"data:([^"]+)"', text)}
    assert named, "no recipe names a file of data"
    for name in named:
        assert re.search(rf"^\| {re.escape(name)} \| .+ \| .+ \| .+ \|$", told, re.MULTILINE), f"{name}: no origin"
        assert re.search(rf"^\| {re.escape(name)} \| `[0-9a-f]{{64}}` \|$", told, re.MULTILINE), f"{name}: no hash"
