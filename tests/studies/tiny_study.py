"""A study small enough for a test: three arms of the tiny recipe, two seeds, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foretrain.studies.study import Study, make_study
from tests.tiny import CONTEXT, tiny_data


def study_data(**changes: Any) -> dict[str, Any]:
    """The tiny study as plain data, with top-level keys replaced."""
    return {
        "name": "tiny",
        "base": tiny_data(
            corpus={
                "prose": {"path": "builtin:biographies", "options": {"people": 150}, "validation": 0.2, "steer": 0.1}
            },
            batch={"tokens": 8 * CONTEXT},
            optimizer={"lr": 0.01},
            checkpoint={"every": 1000},
            evaluation={"every": 0.5, "tokens": 512},
        ),
        "arms": {
            "plain": {},
            "slow": {"optimizer.lr": 1e-5},
            "wsd": {"schedule": {"kind": "wsd", "decay": 0.5}},
        },
        "seeds": 2,
        "executor": "inline",
        **changes,
    }


def tiny_study(folder: Path | str = ".", **changes: Any) -> Study:
    """The tiny study."""
    return make_study(study_data(**changes), folder)
