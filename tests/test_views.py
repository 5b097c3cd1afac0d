"""What people see of results: every figure that the JSON holds is there, and text is never read as markup."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from foretrain import study_views, views
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


def contrast(arm: str, verdict: str | None, **told: Any) -> dict[str, Any]:
    row = {
        "arm": arm,
        "against": "plain",
        "metric": "validation/loss",
        "seeds": [0, 1, 2, 3, 4],
        "difference": -0.03123,
    }
    row |= {"interval": [-0.0363, -0.0262], "in_noise": 2.6, "smallest": 0.012, "more_seeds": None, "share": 1.0}
    return row | {"verdict": verdict, **told}


def studied() -> dict[str, Any]:
    arm = {"steps": 1200.0, "tokens": 4_000_000, "flops": 1.2e13, "seconds": 31.0, "peak_memory": 1 << 30}
    arm |= {"one_off_flops": 0, "tuning_flops": 0, "stopped": None, "failed": 0, "trials": []}
    arm["metrics"] = {
        name: {"mean": 2.5, "sd": 0.125, "seeds": 5} for name in ("validation/loss", "task/quiz/accuracy")
    }
    trial = {"seed": 3, "status": "failed", "error": "Bad [steps].", "path": "trials/soup/seed-3"}
    return {
        "name": "decay",
        "baseline": "plain",
        "metrics": {
            "task/quiz/accuracy": {"direction": "higher", "at": "end", "judged": False},
            "validation/loss": {"direction": "lower", "at": "end", "judged": True},
        },
        "arms": {
            "plain": arm,
            "wsd": {**arm, "tuning_flops": 2e12, "stopped": 0.25},
            "soup": {**arm, "one_off_flops": 4e12, "failed": 1, "trials": [trial]},
        },
        "contrasts": [
            contrast("wsd", "worse", against="soup", share=0.25),
            contrast("wsd", "better"),
            contrast("soup", "undecided", more_seeds=3),
            contrast("wsd", None, metric="task/quiz/accuracy", interval=None, in_noise=None),
        ],
        "second": [contrast("soup", "no difference", against="plain-given-soup")],
        "notes": ["Read [this]."],
    }


def test_the_verdicts_of_a_study() -> None:
    text = shown(study_views.study(studied()))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "validation loss (lower is better)", "judged metrics come first"
    numbers = "−0.0312 −0.0363 to −0.0262 −2.6 5"
    found = [line for line in lines if numbers in line]
    assert found == [
        f"wsd {numbers} better",
        f"soup {numbers} undecided: about 3 more seeds would decide",
        f"wsd against soup {numbers} worse (at 25 % of the budget)",
        f"soup against plain-given-soup {numbers} no difference larger than 0.012",
    ]
    assert "wsd −0.03123 – – 5 not judged" in lines, "four digits where there is no interval"
    assert "plain 1,200 steps, 4M tokens, 1.2e13 FLOPs, 31 s, 1 GiB" in lines
    assert "wsd 1,200 steps, 4M tokens, 1.2e13 FLOPs, 31 s, 1 GiB; tuning 2.0e12 FLOPs; stopped at 25 %" in lines
    assert "failed: soup, seed 3: Bad [steps]." in lines and lines[-1] == "note: Read [this]."


def test_a_study_of_the_baseline_alone() -> None:
    plain = studied()
    plain |= {"arms": {"plain": plain["arms"]["plain"]}, "contrasts": [], "second": [], "notes": []}
    lines = [" ".join(line.split()) for line in shown(study_views.study(plain)).splitlines()]
    assert "plain 2.500 0.1250 5" in lines


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_keeps_numbers_whole(width: int) -> None:
    out = io.StringIO()
    terminal = Terminal(out=Console(file=out, width=width, color_system=None, theme=THEME, highlight=False))
    terminal.show(study_views.study(studied())[0])
    assert out.getvalue().count("−0.0363 to −0.0262") == 4
    assert max(map(len, out.getvalue().splitlines())) <= width


def test_seed_noise() -> None:
    found = {"sd": 0.0125, "low": 0.007, "high": 0.034, "seeds": 10}
    unknown = {"sd": None, "low": None, "high": None, "seeds": 1, "false_positives": None}
    plain = {"name": "small-noise", "metrics": {"validation/loss": {**found, "false_positives": {"rate": 0.043}}}}
    plain["metrics"]["task/quiz/accuracy"] = unknown
    lines = [" ".join(line.split()) for line in shown(study_views.noise(plain)).splitlines()]
    assert "validation loss 0.01250 0.007 to 0.034 10 4.3 %" in lines and "quiz · accuracy – – 1 –" in lines


def test_claims() -> None:
    row = {"title": "One Epoch", "arxiv": "1906.06669", "year": 2019, "stale": False, "commit": "abc"}
    ran = {"verdict": "not reproduced", "effect": 0.0112, "interval": [-0.0101, 0.0325], "seeds": 5, "scale": "small"}
    idle = dict.fromkeys(("effect", "interval", "seeds", "date", "scale"))
    rows = [
        {**row, **ran, "slug": "one-epoch", "date": "2026-11-21"},
        {**row, **idle, "slug": "b", "verdict": "not run"},
    ]
    text = shown(study_views.claims(rows))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    for piece in ("one-epoch", "not reproduced", "+0.011", "−0.010 to +0.033", "5", "not run"):
        assert piece in text, piece
    assert "no claims" in shown(study_views.claims([]))


def _part(kind: str, measured: dict[str, float] | None) -> dict[str, Any]:
    facts = {"paper": "A paper", "arxiv": "2307.14430", "year": 2023, "answers": "mix: which skills?", "needs": []}
    return {
        "axis": "steering",
        "kind": kind,
        "summary": "Does it.",
        "doc": "Does it.",
        "fields": [],
        "facts": {**facts, "overhead": "a pass", "status": "implemented"},
        "measured": measured,
    }


def test_the_parts_of_an_axis_with_paper_question_and_cost() -> None:
    costs = {"time": 1.3, "processor": 1.25, "flops": 1.2, "memory": 1.0}
    text = shown(views.parts([_part("skilled", costs), _part("plain", None)]))
    for piece in ("skilled", "plain", "mix: which skills?", "arXiv:2307.14430 (2023)", "x 1.25"):
        assert piece in text, piece
    assert "x 1.25" not in shown(views.parts([_part("plain", None), _part("other", None)]))


def test_parts_of_several_axes_say_what_they_are() -> None:
    text = shown(views.parts([_part("skilled", None), {**_part("cosine", None), "axis": "schedule"}]))
    assert "Does it." in text and "schedule" in text
