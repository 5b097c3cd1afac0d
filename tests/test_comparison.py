"""Comparisons of runs, and of recipes key by key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.comparison import compare, flat, higher_is_better, recipe_difference
from foretrain.run_directory import RunDirectory


def write(
    folder: Path, lr: str, final: dict[str, float], tokenizer: str = "t", text: str = "1", **result: Any
) -> RunDirectory:
    folder.mkdir()
    (folder / "recipe.yaml").write_text(f"name: {folder.name}\noptimizer: {{kind: adamw, lr: {lr}}}\n")
    (folder / "plan.json").write_text(
        json.dumps({"hashes": {"recipe": folder.name, "tokenizer": tokenizer, "corpus": {"a": text}}})
    )
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 9, "tokens": 90, "flops": 900, **final}) + "\n")
    (folder / "result.json").write_text(json.dumps({"status": "done", **result}))
    return RunDirectory(folder)


def test_recipe_difference() -> None:
    a = {"seed": 0, "model": {"kind": "llama", "layers": 2}, "steering": [], "tasks": {"q": {"every": 5}}}
    b = {"seed": 0, "model": {"kind": "llama", "layers": 4}, "steering": [{"kind": "x"}], "tasks": {}}
    assert recipe_difference(a, b) == [
        ("model.layers", 2, 4),
        ("steering", [], None),
        ("tasks.q.every", 5, None),
        ("steering.0.kind", None, "x"),
        ("tasks", None, {}),
    ]
    assert recipe_difference(a, a) == []


plain = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.sampled_from("xyz"), plain, max_size=3))
def test_flat_keys_lead_to_their_values(data: dict[str, Any]) -> None:
    for key, value in flat(data).items():
        node: Any = data
        for piece in key.split(".") if key else []:
            node = node[int(piece)] if isinstance(node, list) else node[piece]
        assert node == value and not (isinstance(value, dict | list) and value)


def test_directions() -> None:
    told = {"tasks": {"q": {"score": {"higher_is_better": True}, "error": {"higher_is_better": False}}}}
    assert higher_is_better("task/q/score", [None, told]) is True
    assert higher_is_better("task/q/error", [told]) is False
    assert higher_is_better("task/q/other", [told]) is None
    assert higher_is_better("validation/prose/loss") is False


def test_runs_side_by_side(tmp_path: Path) -> None:
    tasks = {"tasks": {"q": {"accuracy": {"higher_is_better": True, "items": 10}}}}
    bounds = {"task/q/accuracy/low": 0.3, "task/q/accuracy/high": 0.5}
    a = write(tmp_path / "a", "1e-3", {"loss": 3.0, "validation/loss": 3.1, "task/q/accuracy": 0.4, **bounds}, **tasks)
    b = write(
        tmp_path / "b", "2e-3", {"loss": 3.0, "validation/loss": 2.9, "task/q/accuracy": 0.2}, cost={"seconds": 5}
    )
    compared = compare([a, b])
    json.dumps(compared, allow_nan=False)
    metrics = {row["name"]: row for row in compared["metrics"]}
    assert list(metrics) == ["loss", "validation/loss", "task/q/accuracy"]
    assert metrics["validation/loss"]["values"] == [3.1, 2.9] and metrics["validation/loss"]["best"] == 1
    assert (
        metrics["task/q/accuracy"] | {"low": [0.3, None], "high": [0.5, None], "best": 0} == metrics["task/q/accuracy"]
    )
    assert metrics["loss"]["best"] is None, "a tie has no best"
    assert compared["recipe"] == [{"key": "optimizer.lr", "values": [0.001, 0.002]}]
    assert {row["name"]: row["values"] for row in compared["cost"]}["seconds"] == [None, 5]
    assert compared["notes"] == []


def test_what_makes_runs_incomparable_is_said(tmp_path: Path) -> None:
    a = write(tmp_path / "a", "1e-3", {"loss": 3.0})
    other = {"tokenizer": "other", "text": "2", "status": "failed"}
    b = write(tmp_path / "b", "1e-3", {"loss": 3.0, "flops": 1800.0}, **other)
    tokenizers, text, budgets, unfinished = compare([a, b])["notes"]
    assert "tokenizers differ" in tokenizers and "The text of a differs" in text
    assert "2.00 times" in budgets and unfinished == "Not finished: b."
