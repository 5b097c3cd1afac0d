"""Parametrizations with what else a run has: steering by value, look-ahead, meta steps, named models, probes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foretrain.trainer import Trainer
from tests.tiny import FEEDBACK, tiny_trainer

PARTS: dict[str, dict[str, Any]] = {
    "lora": {"kind": "lora", "rank": 4},
    "low_rank": {"kind": "low_rank"},
    "sltrain": {"kind": "sltrain"},
    "spdf": {"kind": "spdf", "release": 3, "ramp": 2},
}
STEERING: list[dict[str, Any]] = [
    {"kind": "value_weighting", "feedback": "sums", "every": 2, "parameters": "last:1+norms", "items": 4},
    {"kind": "v_pretraining", "feedback": "sums", "every": 2, "burn_in": 1, "parameters": "last:1", "items": 4},
    {"kind": "nexus", "gamma": 1.0},
    {"kind": "sharpness_aware", "rho": 0.05},
]
PROBES = [{"kind": "weight_norm", "every": 2}, {"kind": "hessian_trace", "every": 3, "rows": 2}]


def steered(kind: str, folder: Path, **changes: Any) -> Trainer:
    if kind == "lora":
        pytest.importorskip("peft", reason="peft is not installed (extra [peft])")
    steering = [dict(part) for part in STEERING]
    if kind == "lora":  # it has no norms to look at
        steering[0]["parameters"] = "last:1"
    return tiny_trainer(
        8, parametrization=PARTS[kind], steering=steering, feedback=FEEDBACK, overlap="warn", probes=PROBES, **changes
    )


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        ("sltrain", "bf16"),
        *(pytest.param(kind, "fp32", marks=pytest.mark.slow) for kind in ("lora", "low_rank", "spdf")),
    ],
)
def test_a_steered_run_is_finite_and_resumes(kind: str, precision: str, tmp_path: Path) -> None:
    whole = steered(kind, tmp_path, precision=precision)
    lines = [{**whole.counted_step()[0], **whole.measure()} for _ in range(4)]
    assert lines[-1]["loss"] < lines[0]["loss"]
    first, second = (steered(kind, tmp_path, precision=precision) for _ in range(2))
    found = [{**first.counted_step()[0], **first.measure()} for _ in range(2)]
    second.load_state_dict(first.state_dict())
    assert found + [{**second.counted_step()[0], **second.measure()} for _ in range(2)] == lines
