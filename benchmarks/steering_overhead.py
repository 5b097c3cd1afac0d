"""What steering costs beside plain training: seconds, FLOPs and memory of whole cycles of steps, as ratios.

Run: `python -m benchmarks.steering_overhead` (a quarter of an hour on two cores; `--quick` about five minutes). All
trainers live in one process and take their cycles of 8 steps (one meta step each) in turn, so that whatever else the
machine does falls on all alike; a ratio is the median over cycles of a part's seconds over those of plain training
beside it; `processor` is the same of processor seconds, which others on the machine move less. Memory is that of the
process's tensors in the dearest step. `--sweep` shows how the cost of `v_pretraining` hangs on its candidates (K) and
on the steps between updates of the designer (r). `--only NAME ...` measures some parts; `--micro 4096` gives passes
the whole batch, in place of half of it: then parts that need all losses before the gradient have no pass of their own.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks._overhead_curve import draw
from foretrain.distributed import Group
from foretrain.environment import describe
from foretrain.files import write_json
from foretrain.plan import make_plan
from foretrain.recipe import make_recipe
from foretrain.trainer import Trainer

CYCLE = 8
BASE: dict[str, Any] = {
    "name": "overhead",
    "budget": {"steps": 100_000},
    "tokenizer": {"kind": "bpe", "vocabulary": 4096},
    "model": {"kind": "llama", "preset": "6M"},
    "corpus": {
        "english": {"path": "builtin:english", "weight": 0.5, "validation": 0.02},
        "python": {"path": "builtin:python", "weight": 0.5, "limit": 400, "validation": 0.02},
    },
    "feedback": {
        "problems": {
            "path": "builtin:arithmetic",
            "options": {"count": 200, "seed": 7},
            "prompt": "question",
            "completion": "solution",
        }
    },
    "overlap": "warn",
    "batch": {"tokens": 4096, "micro": 2048},
    "precision": "fp32",
}
DESIGN: dict[str, Any] = {"feedback": "problems", "burn_in": 0}
PARTS: dict[str, list[dict[str, Any]]] = {
    "plain": [],
    "v_pretraining auto": [{"kind": "v_pretraining", **DESIGN}],
    "value_weighting": [{"kind": "value_weighting", "feedback": "problems"}],
    "value_mixture": [{"kind": "value_mixture", "feedback": "problems"}],
    "self_distillation": [{"kind": "self_distillation"}],
    "dynamic_loss_reweighting": [{"kind": "dynamic_loss_reweighting", "burn_in": 0}],
    "dynamic_loss_reweighting token": [{"kind": "dynamic_loss_reweighting", "burn_in": 0, "level": "token"}],
    "oracle_target": [{"kind": "oracle_target", "feedback": "problems"}],
    "nexus": [{"kind": "nexus"}],
    "sharpness_aware": [{"kind": "sharpness_aware"}],
    "reptile": [{"kind": "reptile", "every": CYCLE}],
    "exponential_average": [{"kind": "exponential_average"}],
    "v_pretraining cosine": [{"kind": "v_pretraining", **DESIGN, "alignment": "cosine"}],
    "v_pretraining paper": [{"kind": "v_pretraining", **DESIGN, "designer": "paper"}],
}
QUICK = ("plain", "v_pretraining auto", "value_weighting", "value_mixture")
SWEEP = {
    "plain": [],
    **{f"K {k}": [{"kind": "v_pretraining", **DESIGN, "candidates": k}] for k in (2, 8, 16, 32, 64)},
    **{f"r {r}": [{"kind": "v_pretraining", **DESIGN, "every": r}] for r in (1, 2, 4, 8)},
}


def trainer(steering: list[dict[str, Any]], preset: str, micro: int) -> Trainer:
    """A trainer of the 6M model with some steering, at its first step."""
    changes = {"model": {"kind": "llama", "preset": preset}, "batch": {**BASE["batch"], "micro": micro}}
    recipe = make_recipe({**BASE, **changes, "steering": steering})
    plan = make_plan(recipe, Group())
    assert plan.total_steps is not None
    return Trainer(plan, plan.total_steps, Group())


def cycle(made: Trainer) -> tuple[float, float]:
    """Seconds, and seconds of this process's threads, of as many steps as there are from one meta step to the next."""
    begin, used = time.perf_counter(), time.process_time()
    for _ in range(CYCLE):
        made.counted_step()
    return time.perf_counter() - begin, time.process_time() - used


def measure(parts: dict[str, list[dict[str, Any]]], cycles: int, preset: str, micro: int) -> dict[str, Any]:
    """Ratios to plain training of every part."""
    made = {name: trainer(steering, preset, micro) for name, steering in parts.items()}
    for each in made.values():
        cycle(each)  # the first steps are counted, and slower
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
    for _ in range(cycles):
        for name, each in made.items():
            seconds[name].append(cycle(each))
    plain = made["plain"]
    found = {}
    for name, each in made.items():
        pairs = list(zip(seconds[name], seconds["plain"], strict=True))
        ratios = sorted(mine / beside for (mine, _), (beside, _) in pairs)
        found[name] = {
            "time": median(ratios),
            "quartiles": [ratios[len(ratios) // 4], ratios[(3 * len(ratios)) // 4]],
            "processor": median(mine / beside for (_, mine), (_, beside) in pairs),
            "flops": flops_of_a_cycle(each) / flops_of_a_cycle(plain),
            "memory": each.tensor_memory() / plain.tensor_memory(),
            "seconds_a_step": median(mine for mine, _ in seconds[name]) / CYCLE,
        }
        told = "  ".join(f"{key} {found[name][key]:.3f}" for key in ("time", "processor", "flops", "memory"))
        print(f"{name:32}{told}", flush=True)
    return found


def flops_of_a_cycle(made: Trainer) -> float:
    """FLOPs of a cycle."""
    first = made.step - made.step % CYCLE
    return float(sum(made.meter.per_kind[made.kind(step)] for step in range(first, first + CYCLE)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the default designer and the value methods only")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", help="these parts only, beside plain")
    parser.add_argument("--sweep", action="store_true", help="candidates and steps between updates instead")
    parser.add_argument("--cycles", type=int, default=5, help="cycles of 8 steps for each")
    parser.add_argument("--preset", default="6M", help="size of the learner")
    parser.add_argument("--micro", type=int, default=BASE["batch"]["micro"], help="tokens per forward pass")
    parser.add_argument("--write", type=Path, help="folder for a dated result file")
    parser.add_argument("--draw", type=Path, help="file for the curves of a sweep (.svg)")
    options = parser.parse_args()
    named = ["plain", *options.only] if options.only else QUICK if options.quick else PARTS
    parts = SWEEP if options.sweep else {name: PARTS[name] for name in named}
    found = measure(parts, options.cycles, options.preset, options.micro)
    print(json.dumps(found, indent=2))
    if options.draw is not None and options.sweep:
        options.draw.write_text(draw(found), encoding="utf-8")
    if options.write is not None:
        options.write.mkdir(parents=True, exist_ok=True)
        day, kind = time.strftime("%Y-%m-%d", time.gmtime()), "sweep" if options.sweep else "parts"
        data = {
            "preset": options.preset,
            "micro": options.micro,
            "cycles": options.cycles,
            "ratios": found,
            "environment": describe(),
        }
        write_json(options.write / f"{day}-steering-overhead-{kind}.json", data)


if __name__ == "__main__":
    main()
