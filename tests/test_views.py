"""What people see of results: every figure that the JSON holds is there, and text is never read as markup."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from foretrain import views
from foretrain.console import THEME, Terminal


def shown(view: views.View) -> str:
    out = io.StringIO()
    terminal = Terminal(out=Console(file=out, width=160, color_system=None, theme=THEME, highlight=False))
    for piece in view:
        terminal.show(piece)
    return out.getvalue()


RESULT: dict[str, Any] = {
    "name": "small",
    "loss": 1.25,
    "validation": {"a/loss": 2.5, "loss": 2.5},
    "tasks": {"sums": {"exact_match": {"value": 0.75, "low": 0.625, "high": 0.875, "items": 40}}},
    "cost": {"steps": 60, "tokens": 4_000_000, "flops": 2e13, "seconds": 200.0, "peak_memory": 1 << 30},
}


def test_the_end_of_a_run() -> None:
    text = shown(views.result({"path": "runs/small", "result": RESULT}))
    for piece in (
        "small",
        "1.250",
        "2.500",
        "0.7500",
        "0.6250 to 0.8750",
        "60 steps",
        "4M tokens",
        "3 min 20 s",
        "1 GiB",
    ):
        assert piece in text, piece
    assert views.result({"path": "runs/small", "result": None}) == []


def test_measures() -> None:
    text = shown(views.measures(RESULT["tasks"]))
    for piece in ("sums", "exact match", "0.7500", "0.6250 to 0.8750", "40"):
        assert piece in text, piece


def test_a_plan_with_and_without_a_length() -> None:
    plan: dict[str, Any] = {
        "name": "small",
        "total_steps": 60,
        "tokens_per_step": 2048,
        "tokens": 122_880,
        "flops_per_step": 2.9e9,
        "flops": 1.7e11,
        "parameters": 184_768,
        "parameters_without_embeddings": 160_192,
        "memory_estimate": 28 << 20,
        "model": {"type": "llama", "layers": 3, "width": 64, "context": 128, "vocabulary": 384},
        "precision": "bf16",
        "domains": {"a": {"train": {"tokens": 1_000_000, "documents": 400, "bytes": 1}}},
        "weights": {"a": 1.0},
        "notes": ["overlap [3]"],
    }
    text = shown(views.plan(plan))
    for piece in ("60 steps", "2,048 tokens", "185K", "28 MiB", "1M tokens in 400 documents", "note: overlap [3]"):
        assert piece in text, piece
    assert "as many steps as fit" in shown(views.plan({**plan, "total_steps": None}))


def test_brackets_are_text() -> None:
    assert "[bold]x" in shown(views.samples([{"prompt": "", "text": "[bold]x"}]))
    row = {"step": 0, "position": 7, "domain": "a", "documents": ["f:1"], "loss_tokens": 3, "tokens": 4, "text": "[/b]"}
    text = shown(views.batches([row]))
    assert "[/b]" in text and "position 7" in text and "3 of 4 tokens with loss" in text and "f:1" in text


def test_nothing_to_list() -> None:
    assert "no runs" in shown(views.runs([]))
