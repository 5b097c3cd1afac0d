"""A claim of the tiny study, and what its study would say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foretrain.plain_yaml import format_yaml
from tests.tiny import CONTEXT, tiny_data

VALUES = {"plain": {0: 2.0, 1: 2.1}, "slow": {0: 2.5, 1: 2.7}, "wsd": {0: 2.0, 1: 2.1}}


def claim_data(**changes: Any) -> dict[str, Any]:
    """The tiny claim as plain data, with top-level keys replaced."""
    return {
        "paper": {"title": "Slow is bad", "arxiv": "2001.00001", "year": 2020},
        "claim": "A rate near zero raises the loss by 25 %.",
        "expects": [{"arm": "slow", "metric": "validation/loss", "direction": "higher", "relative": 0.25}],
        "refuted_if": "the slow arm is no worse.",
        "scale": {"shrunk": "A thousand times fewer parameters.", "survives": "Nothing learns without steps."},
        "study": {
            "question": "Does a rate near zero learn?",
            "base": tiny_data(
                corpus={"prose": {"path": "builtin:biographies", "options": {"people": 60}, "validation": 0.2}},
                batch={"tokens": 8 * CONTEXT},
                optimizer={"lr": 0.01},
            ),
            "arms": {"plain": {}, "slow": {"optimizer.lr": 1e-6}, "wsd": {"schedule": {"kind": "wsd", "decay": 0.5}}},
            "seeds": 4,
            "metrics": {"validation/loss": {"difference": 0.01}},
        },
        "scales": {"smoke": {"seeds": 2, "base.budget.steps": 2}},
        **changes,
    }


def write_claim(folder: Path, slug: str = "slow", **changes: Any) -> Path:
    """The tiny claim in `folder/SLUG`; its folder."""
    home = folder / slug
    home.mkdir(parents=True, exist_ok=True)
    (home / "claim.yaml").write_text(format_yaml(claim_data(**changes)))
    return home


def contrast(arm: str, verdict: str | None, against: str = "plain", **changes: Any) -> dict[str, Any]:
    """A contrast of a `study.json`."""
    return {
        "arm": arm,
        "against": against,
        "metric": "validation/loss",
        "seeds": [0, 1],
        "difference": 0.55,
        "relative": 0.27,
        "interval": [0.4, 0.7],
        "in_noise": 7.8,
        "p_adjusted": 0.01,
        "verdict": verdict,
        "words": f"{verdict}, says the study",
        **changes,
    }


def found(*contrasts: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """A `study.json` with these contrasts."""
    arms = {
        arm: {
            "steps": 8,
            "tokens": 2048,
            "flops": 1.5e9,
            "seconds": 0.5,
            "peak_memory": 5e7,
            "one_off_flops": 0,
            "tuning_flops": 0,
            "stopped": None,
            "failed": 0,
            "metrics": {
                "validation/loss": {
                    "mean": sum(values.values()) / 2,
                    "sd": 0.07,
                    "values": {str(seed): value for seed, value in values.items()},
                }
            },
            "trials": [{"seed": seed, "error": None, "path": f"trials/{arm}/seed-{seed}"} for seed in values],
        }
        for arm, values in VALUES.items()
    }
    return {
        "format": 1,
        "name": "claims-slow",
        "baseline": "plain",
        "seeds": [0, 1],
        "alpha": 0.05,
        "match": {"unit": "flops", "budget": 1.5e9, "largest_difference": 0.0, "reason": None},
        "metrics": {"validation/loss": {"direction": "lower", "smallest": 0.01, "at": "end", "judged": True}},
        "arms": arms,
        "contrasts": list(contrasts) or [contrast("slow", "worse"), contrast("wsd", "no difference")],
        "second": [],
        "noise": {"validation/loss": {"sd": 0.07}},
        "totals": {"trials": 6, "flops": 9e9, "seconds": 3.0},
        "notes": [],
        **changes,
    }
