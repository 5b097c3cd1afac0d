"""What a parametrization or an objective costs beside the plain one: numbers trained, bytes, FLOPs, time of a step.

python -m benchmarks.step_costs parametrization               # a table; some minutes on one core
python -m benchmarks.step_costs objective --preset 1M         # the other axis; another size
python -m benchmarks.step_costs parametrization --write       # keep it in benchmarks/results, dated

All train the same model on the same text in one process and take turns step by step; `time` is the median of a
step's processor time over that of the plain step of the same turn, which other work on the machine changes little.
`held` are the bytes of the weights in a checkpoint; `kept` are those that a forward pass keeps for its
backward pass beside parameters; `memory` is the peak of tensors in a step (`foretrain.tensor_memory`); `ideal` are the
FLOPs without products with zeros, which nothing here skips; `targets` the tokens that a step learns from.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foretrain import environment
from foretrain.distributed import Group
from foretrain.kernels.process import tune_allocator
from foretrain.plan import make_plan
from foretrain.recipe import make_recipe
from foretrain.trainer import Trainer

RESULTS = Path(__file__).parent / "results"
CONTEXT, ROWS = 256, 8
PARTS: dict[str, dict[str, Any]] = {
    "parametrization": {
        "full": "full",
        "lora, rank 8": {"kind": "lora", "rank": 8},
        "low_rank": "low_rank",
        "sltrain": "sltrain",
        "spdf, 75 %": {"kind": "spdf", "sparsity": 0.75},
    },
    "objective": {
        "causal_lm": "causal_lm",
        "masked_lm, 15 %": {"kind": "masked_lm", "rate": 0.15},
        "masked_lm, 40 %": {"kind": "masked_lm", "rate": 0.4},
        "prefix_lm": "prefix_lm",
        "span_corruption": "span_corruption",
        "ul2": "ul2",
    },
}
"""By axis, the plain part first."""
MODELS = {"parametrization": "llama", "objective": "eurobert"}
"""The model that every part of an axis can train."""


def trainer_of(axis: str, part: Any, preset: str, precision: str) -> Trainer:
    recipe = {
        "budget": {"steps": 1000},
        "model": {"kind": MODELS[axis], "preset": preset, "context": CONTEXT},
        "tokenizer": {"kind": "bpe", "vocabulary": 4096},
        "corpus": {"english": "builtin:english"},
        "batch": {"tokens": ROWS * CONTEXT},
        "optimizer": {"weight_decay": 0},
        "stability": {"spike": None},
        "precision": precision,
        axis: part,
    }
    return Trainer(make_plan(make_recipe(recipe), Group()), 1000, Group())


def kept(trainer: Trainer) -> int:
    """Bytes of distinct storages kept by a forward pass for its backward pass, parameters and buffers left out."""
    model = trainer.learner.model
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = trainer.objective.prepare(trainer.stream.batch())
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), trainer.learner.autocast():
        outputs = trainer.objective.forward(model, batch)
        trainer.objective.losses(outputs, batch).sum()
    return sum(found.values())


def measure(axis: str, preset: str, precision: str, turns: int) -> list[dict[str, Any]]:
    """A row for each part of an axis."""
    parts = PARTS[axis]
    trainers = {name: trainer_of(axis, part, preset, precision) for name, part in parts.items()}
    plain = next(iter(parts))
    rows = {name: {axis: name, **_counts(trainer)} for name, trainer in trainers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(turns):
        for name, trainer in trainers.items():
            begin = time.process_time()
            trainer.counted_step()
            seconds[name].append(time.process_time() - begin)
    for name, row in rows.items():
        ratios = [mine / theirs for mine, theirs in zip(seconds[name], seconds[plain], strict=True)]
        row |= {"seconds": statistics.median(seconds[name]), "time": statistics.median(ratios)}
    return list(rows.values())


def _counts(trainer: Trainer) -> dict[str, Any]:
    trainer.counted_step()
    trainer.counted_step()
    masters = trainer.learner.masters
    held = sum(t.numel() * t.element_size() for t in trainer.learner.state_dict().values())
    return {
        "trained": sum(parameter.numel() for parameter in masters.values()),
        "targets": int(trainer.objective.prepare(trainer.stream.batch())["mask"].sum()),
        "held_bytes": held,
        "kept_bytes": kept(trainer),
        "memory_bytes": trainer.meter.memory,
        "flops": trainer.meter.total // 2,
        "ideal_flops": trainer.ideal().get("ideal_flops", trainer.meter.total) // 2,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("axis", choices=PARTS)
    parser.add_argument("--preset", default="3M")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "autocast"])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    tune_allocator()
    rows = measure(options.axis, options.preset, options.precision, options.turns)
    print(f"{'':17}{'trained':>11}{'targets':>8}{'held':>9}{'kept':>9}{'memory':>9}{'FLOPs':>8}{'ideal':>8}{'time':>7}")
    for row in rows:
        sizes = "".join(f"{row[key] / 2**20:>8.1f}M" for key in ("held_bytes", "kept_bytes", "memory_bytes"))
        costs = "".join(f"{row[key] / rows[0]['flops']:>8.2f}" for key in ("flops", "ideal_flops"))
        print(f"{row[options.axis]:17}{row['trained']:>11,}{row['targets']:>8,}{sizes}{costs}{row['time']:>7.2f}")
    if options.write:
        about = {"preset": options.preset, "precision": options.precision, "tokens": ROWS * CONTEXT}
        data = {"about": {**about, "turns": options.turns, "environment": environment.describe()}, "rows": rows}
        path = RESULTS / f"{date.today().isoformat()}-{options.axis}s-{options.preset}.json"
        path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
