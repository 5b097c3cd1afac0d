"""The documents: what they show is run, what they name exists, and what is generated is up to date.

Every fenced block tagged `bash` or `python` is run, in order, in one temporary folder per document. A block tagged
`... file=NAME` is saved there under that name instead, and a `yaml recipe` block is read as a recipe. A block that only
illustrates says why in a comment on the line above it: `<!-- not run: it needs two machines -->`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.main import get_command

from foretrain import reference
from foretrain.cli import app
from foretrain.plain_yaml import parse_yaml
from foretrain.recipe import load_recipe, make_recipe

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
_FENCE = re.compile(r"^(?P<before>[^\n]*)\n```(?P<tag>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
# The notebook is a record of what was tried on a day; its commands are history.
_HISTORY = {"notebook.md"}

_COMMAND = """#!{python}
import sys
words = sys.argv[1:]
# The one change to what a document shows: minutes become a few steps.
if "--minutes" in words:
    place = words.index("--minutes")
    words[place : place + 2] = ["--set", "budget.steps=3"]
sys.argv = ["foretrain", *words]
from foretrain.cli import main
main()
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: its tag, text, line number and whether it is only shown."""

    tag: str
    text: str
    line: int
    shown_only: bool

    @property
    def runs(self) -> bool:
        return self.tag in ("bash", "python") and not self.shown_only

    @property
    def file(self) -> str | None:
        found = re.search(r"\bfile=(\S+)", self.tag)
        return found[1] if found else None


def blocks(document: Path) -> list[Block]:
    text = "\n" + document.read_text(encoding="utf-8")
    return [
        Block(
            found["tag"].strip(),
            found["text"],
            text.count("\n", 0, found.start("tag")),
            found["before"].startswith("<!-- not run:"),
        )
        for found in _FENCE.finditer(text)
    ]


def run(block: Block, folder: Path, environment: dict[str, str]) -> None:
    words = ["bash", "-euo", "pipefail"] if block.tag == "bash" else [sys.executable]
    done = subprocess.run(
        [*words, "-"],
        input=block.text,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"line {block.line}:\n{block.text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


# The others have several commands each, and every command the start of an interpreter.
_FAST = {"README.md", "CONTRIBUTING.md", "claims-howto.md", "data.md"}
RUN = [
    pytest.param(path, id=path.name, marks=[] if path.name in _FAST else [pytest.mark.slow])
    for path in DOCUMENTS
    if path.name not in _HISTORY and any(block.runs for block in blocks(path))
]


@pytest.mark.parametrize("document", RUN)
def test_shown_commands_work(document: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    programs = tmp_path / ".bin"
    programs.mkdir()
    command = programs / "foretrain"
    command.write_text(_COMMAND.format(python=sys.executable))
    command.chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "FORETRAIN_CACHE": str(tmp_path / ".cache"),
    }
    for block in blocks(document):
        if block.file is not None:
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")
        elif block.runs:
            run(block, tmp_path, environment)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:|#", target):
            assert (document.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_targets_exist(document: Path) -> None:
    commands = vars(get_command(app))["commands"]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = document.read_text(encoding="utf-8")
    shown = "\n".join([*re.findall(r"`([^`\n]+)`", text), *(block.text for block in blocks(document))])
    for name in re.findall(r"(?:^|[;&|]\s*)foretrain ([a-z]+)\b", shown, re.MULTILINE):
        assert name in commands, f"foretrain {name}"
    for name in re.findall(r"(?:^|[;&|]\s*)make ([a-z-]+)\b", shown, re.MULTILINE):
        assert name in targets, f"make {name}"


def validate(data: Any) -> None:
    jsonschema.Draft202012Validator(reference.schema()).validate(data)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(reference.schema())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipes_are_valid(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    validate({"name": path.stem, **parse_yaml(path.read_text(encoding="utf-8"))})
    validate(recipe.plain())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_shown_recipes_are_valid(document: Path, tmp_path: Path) -> None:
    for block in blocks(document):
        if block.tag == "yaml recipe":
            data = parse_yaml(block.text)
            make_recipe(data, folder=tmp_path)
            validate(data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimiser": "adamw"},
        {"schedule": "cosin"},
        {"schedule": {"kind": "cosine", "warm": 1}},
        {"optimizer": {"weigth_decay": 1}},
        {"budget": {"steps": "many"}},
        {"budget": {"steps": 0}},
        {"corpus": {}},
        {"corpus": {"a": {"path": "a.txt", "wieght": 1}}},
        {"seed": -1},
    ],
)
def test_the_schema_refuses_what_the_recipe_refuses(wrong: dict[str, Any]) -> None:
    right = {"budget": {"steps": "4K"}, "model": {"kind": "llama", "preset": "1M"}, "corpus": {"a": "a.txt"}}
    validate(right)
    with pytest.raises(jsonschema.ValidationError):
        validate({**right, **wrong})


@pytest.mark.parametrize("name", reference.PAGES)
def test_generated_pages_are_up_to_date(name: str) -> None:
    path = ROOT / "docs" / name
    assert path.read_text(encoding="utf-8") == reference.PAGES[name](), "run `make docs`"


def test_every_key_and_part_is_on_its_page() -> None:
    recipe, parts = reference.recipe_page(), reference.parts_page()
    for section in reference.sections():
        for field in reference.describe_fields(section):
            assert f"| `{field['name']}` |" in recipe
            assert field["doc"], f"{section.__name__}.{field['name']} says nothing of itself"
    for part in reference.describe_parts():
        if part["module"].startswith("foretrain."):
            assert f"### {part['axis']} `{part['kind']}`" in parts
