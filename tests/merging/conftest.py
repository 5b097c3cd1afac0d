from __future__ import annotations

from pathlib import Path

import pytest

import foretrain as ft
from foretrain.run_directory import RunDirectory
from tests.tasks.subjects import write_items
from tests.tiny import tiny_data, tiny_recipe

ITEMS = [{"prompt": f"{n} + 1 =", "completion": f" {n + 1}."} for n in range(12)]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunDirectory]:
    """Two runs that differ in their seed, with four checkpoints each; limited text, so that losses differ."""
    folder = tmp_path_factory.mktemp("merging")
    task = {"kind": "completion_loss", "path": write_items(folder / "items.jsonl", ITEMS), "prompt": "prompt"}
    found = []
    for seed in (0, 1):
        recipe = tiny_recipe(
            **{**tiny_data(), "evaluation": {"every": 0.99, "tokens": 1024}},
            seed=seed,
            checkpoint={"every": 2, "keep": 4},
            optimizer={"lr": 0.01},
            tasks={"sums": {**task, "completion": "completion"}},
        )
        found.append(ft.run(recipe, out=folder / f"seed-{seed}", quiet=True))
    return found


@pytest.fixture(scope="session")
def wider(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run of another network over the same ids."""
    model = {"kind": "gpt2", "layers": 1, "width": 32, "heads": 2, "context": 32}
    recipe = tiny_recipe(model=model, budget={"steps": 2}, evaluation={"every": 0.99, "tokens": 256})
    return ft.run(recipe, out=tmp_path_factory.mktemp("wider") / "run", quiet=True)


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
