"""What every steering part for text costs beside plain training, at its defaults: the figures that listings show.

Run: `python -m benchmarks.parts_overhead` (a few minutes on two cores); `--record` writes `foretrain/overheads.json`,
which `foretrain parts steering` and the reference read. As in `benchmarks.steering_overhead`, a part and plain training
take their cycles of 8 steps in turn, in one process. The learner is small (1M, 2,048 tokens a step in one forward
pass), so that what a part does once a step weighs more than it would in a larger one. What a part does at rare times
(evaluations of a mixture, the end of a stage) is not in it; what it does while it acts is. Teachers have a quarter of
the learner's parameters.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.steering_overhead import BASE, CYCLE, DESIGN, cycle, flops_of_a_cycle
from foretrain.api import run
from foretrain.distributed import Group
from foretrain.environment import describe
from foretrain.files import write_json
from foretrain.overheads import PATH
from foretrain.parts import kinds
from foretrain.plan import make_plan
from foretrain.recipe import make_recipe
from foretrain.steering.base import Steering
from foretrain.trainer import Trainer

TEACHER = {"model": "teacher"}
SETTINGS: dict[str, dict[str, Any]] = {
    "distillation": TEACHER,
    "dynamic_loss_reweighting": {"burn_in": 0},
    "injection": {"interventions": {"facts": {"path": "builtin:passwords", "limit": 50}}},
    "llkd": TEACHER,
    "mix_feedback": {"feedback": "problems"},
    "muscle": {"old": "older", "new": "teacher"},
    "offline_distillation": TEACHER,
    "oracle_target": {"feedback": "problems"},
    "random_feedback": DESIGN,
    "random_selection": TEACHER,
    "salt": TEACHER,
    "salt_selection": TEACHER,
    "sequence_distillation": {**TEACHER, "tokens": 4096},
    "static_mixture": {"weights": {"english": 3, "python": 1}},
    "v_pretraining": DESIGN,
    "value_mixture": {"feedback": "problems"},
    "value_weighting": {"feedback": "problems"},
}
"""Required settings, and what makes a part act from the first step on."""
CONTEXT = 256
STEPS = 10_000
# The first stage is over after the first cycle, which is not timed: parts that work by stages act in the second.
STAGES = {
    "first": {"weights": {"english": 1}, "share": CYCLE},
    "second": {"weights": {"english": 1, "python": 1}, "share": STEPS - CYCLE},
}


def recipe(teacher: Path, steering: list[dict[str, Any]]) -> dict[str, Any]:
    """The recipe that all parts are measured in."""
    corpus = {name: {**domain, "steer": 0.02} for name, domain in BASE["corpus"].items()}
    for domain in corpus.values():
        del domain["weight"]
    return {
        **BASE,
        "budget": {"steps": STEPS},
        "model": {"kind": "llama", "preset": "1M", "context": CONTEXT},
        "corpus": corpus,
        "models": {"teacher": str(teacher), "older": str(teacher)},
        "stages": STAGES,
        "batch": {"tokens": 2048},
        "steering": steering,
    }


def make_teacher(folder: Path) -> Path:
    """A model of a quarter of the learner's size that has seen a step."""
    data = recipe(folder, [])
    del data["models"], data["stages"]
    run(
        make_recipe({**data, "budget": {"steps": 1}, "model": {"kind": "llama", "preset": "0.2M", "context": CONTEXT}}),
        out=folder,
        quiet=True,
    )
    return folder


def trainer(teacher: Path, steering: list[dict[str, Any]]) -> Trainer:
    """A trainer at its first step."""
    return Trainer(make_plan(make_recipe(recipe(teacher, steering)), Group()), STEPS, Group())


def measure(cycles: int, only: list[str]) -> Iterator[tuple[str, dict[str, float]]]:
    """Ratios to plain training, kind by kind."""
    with tempfile.TemporaryDirectory() as folder:
        teacher = make_teacher(Path(folder) / "teacher")
        plain = trainer(teacher, [])
        cycle(plain)
        for kind, part in kinds(Steering).items():
            if part.modality == "image" or (only and kind not in only):
                continue
            mine = trainer(teacher, [{"kind": kind, **SETTINGS.get(kind, {})}])
            cycle(mine)  # the first steps are counted, and slower
            pairs = [(cycle(mine), cycle(plain)) for _ in range(cycles)]
            found = {
                "time": round(median(ours[0] / beside[0] for ours, beside in pairs), 2),
                "processor": round(median(ours[1] / beside[1] for ours, beside in pairs), 2),
                "flops": round(flops_of_a_cycle(mine) / flops_of_a_cycle(plain), 2),
                "memory": round(mine.tensor_memory() / plain.tensor_memory(), 2),
            }
            told = "  ".join(f"{name} {value:.2f}" for name, value in found.items())
            print(f"{kind:32}{told}", flush=True)
            yield kind, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=5, help="cycles of 8 steps for each")
    parser.add_argument("--only", nargs="+", default=[], metavar="KIND", help="these parts only")
    parser.add_argument("--record", action="store_true", help=f"write {PATH.name}, keeping parts not measured now")
    options = parser.parse_args()
    known = json.loads(PATH.read_text())["parts"] if PATH.is_file() and options.only else {}
    day = time.strftime("%Y-%m-%d", time.gmtime())
    shape = {"preset": "1M", "tokens": 2048, "precision": "fp32", "cycles": options.cycles}
    for kind, found in measure(options.cycles, options.only):
        known[kind] = found
        if options.record:  # each at once: a measurement that is stopped keeps what it has
            write_json(PATH, {"date": day, **shape, "environment": describe(), "parts": dict(sorted(known.items()))})


if __name__ == "__main__":
    main()
