"""A run directory with simulated curves, as the trainer would leave it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from foretrain.run_directory import RunDirectory

RECIPE: dict[str, Any] = {
    "name": "general-to-biomedical",
    "budget": {"tokens": "4M"},
    "corpus": {
        "general": {"path": "data/c4.jsonl.gz", "weight": 0.5},
        "biomedical": {"path": "data/bio.jsonl.gz", "weight": 0.5, "validation": 0.05},
    },
    "model": {"kind": "llama", "layers": 6, "width": 256, "heads": 4, "context": 256},
    "batch": {"tokens": 4096},
}


def write_run(
    folder: Path,
    *,
    steps: int = 960,
    total: int | None = None,
    domains: tuple[str, ...] = ("general", "biomedical"),
    tasks: bool = True,
    skipped: dict[int, str] | None = None,
    moving: bool = False,
    result: bool = True,
) -> RunDirectory:
    run = RunDirectory(folder)
    folder.mkdir(parents=True)
    rng = np.random.Generator(np.random.Philox(7))
    total = total or steps
    per_step, flops_per_step = 4096, 2.6e11
    weights = {name: 1 / len(domains) for name in domains}
    recipe = {**RECIPE, "corpus": {name: {"path": f"data/{name}.jsonl", "weight": weights[name]} for name in domains}}
    run.recipe_path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    plan = {
        "name": recipe["name"],
        "total_steps": total,
        "tokens_per_step": per_step,
        "tokens": total * per_step,
        "flops_per_step": flops_per_step,
        "flops": total * flops_per_step,
        "parameters": 4_120_576,
        "memory_estimate": 700 << 20,
        "model": {"type": "llama", "layers": 6, "width": 256, "context": 256, "vocabulary": 4224},
        "domains": {
            name: {
                "train": {"tokens": 3_912_000 + 17 * i, "documents": 8211 - i, "bytes": 15_400_123},
                "validation": {"tokens": 81_000 + i, "documents": 170, "bytes": 320_001},
            }
            for i, name in enumerate(domains)
        },
        "weights": weights,
        "hashes": {"recipe": "9f" * 16, "tokenizer": "0c" * 16, **dict.fromkeys(domains, "a1" * 16)},
        "parent": None,
        "notes": [],
    }
    run.plan_path.write_text(json.dumps(plan))
    run.environment_path.write_text(
        json.dumps(
            {
                "foretrain": "0.1.0",
                "python": "3.11.7",
                "torch": "2.13.0+cpu",
                "transformers": "5.23.0",
                "hardware": {"cpu": "AMD EPYC", "cores": 2, "memory": "24 GiB", "accelerator": None},
                "threads": 2,
            }
        )
    )

    def curve(step: int, floor: float) -> float:
        return floor + (8.35 - floor) / (1 + step / 22) ** 0.62

    lines: list[dict[str, Any]] = []
    timing: list[dict[str, Any]] = []

    def evaluate(step: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for i, name in enumerate(domains):
            loss = curve(step, 3.05 - 0.25 * i) + rng.normal(0, 0.01)
            found |= {f"validation/{name}/loss": loss, f"validation/{name}/bits_per_byte": loss / math.log(2) / 3.9}
        if domains:
            found["validation/loss"] = sum(weights[name] * found[f"validation/{name}/loss"] for name in domains)
        if tasks:
            accuracy = 0.25 + 0.21 * (1 - math.exp(-step / 420)) + rng.normal(0, 0.008)
            found |= {
                "task/questions/accuracy": accuracy,
                "task/questions/accuracy/low": accuracy - 0.035,
                "task/questions/accuracy/high": accuracy + 0.035,
            }
            loss = curve(step, 2.6)
            found |= {"task/cloze/loss": loss, "task/cloze/loss/low": loss - 0.12, "task/cloze/loss/high": loss + 0.12}
            found["probe/rank_me/rank"] = 190 - 100 * math.exp(-step / 200)
        return found

    lines.append({"step": 0, "tokens": 0, "flops": 0, **evaluate(0)})
    seconds = 0.0
    for step in range(1, steps + 1):
        spent = {"step": step, "tokens": step * per_step, "flops": step * flops_per_step}
        warm = min(1.0, step / max(1, 0.02 * total))
        rate = 2e-3 * warm * (0.55 + 0.45 * math.cos(math.pi * step / total))
        line = {**spent, "loss": curve(step, 2.95) + rng.normal(0, 0.09), "lr": rate}
        line["gradient_norm"] = 0.6 + 4 / (1 + step / 10) + rng.gamma(2, 0.08)
        if moving:
            line |= {f"domain/{name}/weight": 0.5 + (0.3 - 0.6 * i) * step / total for i, name in enumerate(domains)}
        reason = (skipped or {}).get(step)
        if reason is not None:
            line["skipped"] = reason
            line["loss"] = 31.0 if reason == "spike" else None
            if reason != "spike":
                line["not_finite"] = {"loss": "nan"}
        if step % max(1, total // 12) == 0 or step == total:
            line |= evaluate(step)
        lines.append(line)
        speed = 34_200 * (1 + rng.normal(0, 0.03)) * (0.55 if step < 4 else 1.0)
        seconds += per_step / speed
        memory = 640 << 20
        timing.append(
            {"step": step, "seconds": seconds, "tokens_per_second": speed, "mfu": speed / 92_000, "memory": memory}
        )
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.timing_path.write_text("".join(json.dumps(line) + "\n" for line in timing))
    texts = [
        (
            "The patient was given",
            " a dose of the drug for 12 weeks, and the levels of the protein in the serum were measured after each "
            "visit. There was no significant difference between the two groups.",
        ),
        ("In the morning", " the boys went down to the river, and the old man told them that the rain would come."),
        ("These results suggest that", " the expression of the receptor is regulated by the same pathway in mice."),
        ("def main():", "\n    for name in sorted(names):\n        print(name)\n"),
    ]
    run.samples_path.write_text(json.dumps([{"prompt": prompt, "text": text} for prompt, text in texts]))
    if result:
        told = {"accuracy": {"value": 0.44, "low": 0.4, "high": 0.48, "items": 812, "higher_is_better": True}}
        cost = {"steps": steps, "tokens": steps * per_step, "flops": steps * flops_per_step, "seconds": seconds}
        final = {
            "status": "done",
            "tasks": {"questions": told} if tasks else {},
            "cost": {**cost, "peak_memory": memory},
        }
        run.result_path.write_text(json.dumps(final))
    return run


@pytest.fixture
def fake_run(tmp_path: Path) -> Callable[..., RunDirectory]:
    def make(name: str = "run", **settings: Any) -> RunDirectory:
        return write_run(tmp_path / name, **settings)

    return make
