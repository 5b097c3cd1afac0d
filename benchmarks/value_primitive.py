"""How exact the value primitive is at which step, and how many forward passes it costs.

Run: `python -m benchmarks.value_primitive` (some minutes on one core). A small model is trained for some steps; then
the values of the tokens of one batch along the feedback gradient, by differences at many step sizes, are held against
one backward pass per token (relative error as a norm over tokens). The cost is the time of the passes that the
differences add to the forward pass that chooses the candidates, in forward passes of the same batch, measured in turn.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.steering_overhead import BASE
from foretrain import vectors
from foretrain.distributed import Group
from foretrain.environment import describe
from foretrain.files import write_json
from foretrain.models.roles import select
from foretrain.plan import make_plan
from foretrain.recipe import make_recipe
from foretrain.trainer import Trainer
from foretrain.value.passes import measuring
from foretrain.value.primitive import Sides, step_size, token_values
from foretrain.value.reference import token_gradients

SUBSETS = ("last:1", "last:2", "last:2+re:^model.norm", "all")
FACTORS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def trained(preset: str, steps: int) -> Trainer:
    """A model after some steps."""
    recipe = make_recipe(
        {**BASE, "budget": {"steps": 10_000}, "model": {"kind": "llama", "preset": preset}, "batch": {"tokens": 2048}}
    )
    made = Trainer(make_plan(recipe, Group()), 10_000, Group())
    for _ in range(steps):
        made.train_step()
    return made


def errors(made: Trainer, subset: str) -> dict[str, Any]:
    """Relative errors by number of sides and by step, in units of the default step."""
    names = select(made.learner.roles, subset)
    toward = vectors.unit(made.context.feedback("problems").gradient(0, 8, names)[0])
    whole = made.objective.prepare(made.stream.batch()).take(slice(0, 2))
    batch = whole.with_(**{key: whole[key][:, :64] for key in ("inputs", "labels", "mask")})
    made.learner.model.eval()

    def losses() -> Tensor:
        return made.objective.losses(made.objective.forward(made.learner.model, batch), batch)

    masters = made.learner.masters
    expected = token_gradients(losses, [masters[name] for name in names], [toward[name] for name in names])
    weights = {name: masters[name].detach() for name in names}
    found: dict[str, Any] = {}
    both: tuple[Sides, ...] = (2, 1)
    for sides in both:
        usual = step_size(weights, toward, torch.float32, sides)
        found[f"{sides} sides"] = {
            str(factor): float(
                (token_values(made.context, batch, toward, sides=sides, step=factor * usual).labels - expected).norm()
                / expected.norm()
            )
            for factor in FACTORS
        }
    return found


def cost(made: Trainer, subset: str, rounds: int) -> dict[str, float]:
    """Forward passes that two sides and one cost, beyond the one that is made anyway."""
    toward = vectors.unit(made.context.feedback("problems").gradient(0, 8, select(made.learner.roles, subset))[0])
    batch = made.objective.prepare(made.stream.batch())

    def forward() -> None:
        with measuring(made.learner):
            for piece in batch.micro(made.context.micro):
                made.objective.losses(made.objective.forward(made.learner.model, piece), piece)

    def chosen() -> None:
        with measuring(made.learner):
            for piece in batch.micro(made.context.micro):
                made.objective.forward(made.learner.model, piece).candidates(piece["labels"], 16)

    def values(sides: Sides) -> None:
        token_values(made.context, batch, toward, candidates=16, sides=sides)

    seconds: dict[str, list[float]] = {"forward": [], "chosen": [], "2 sides": [], "1 side": []}
    for _ in range(rounds):
        for name, work in zip(seconds, (forward, chosen, lambda: values(2), lambda: values(1)), strict=True):
            seconds[name].append(_timed(work))
    rows = list(zip(*seconds.values(), strict=True))
    return {
        "two sides": median((two - known) / plain for plain, known, two, _ in rows),
        "one side": median((one - known) / plain for plain, known, _, one in rows),
    }


def _timed(work: Any) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="1M", help="size of the model")
    parser.add_argument("--steps", type=int, default=60, help="steps it is trained for")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of timing")
    parser.add_argument("--write", type=Path, help="folder for a dated result file")
    options = parser.parse_args()
    made = trained(options.preset, options.steps)
    found = {subset: {"errors": errors(made, subset), "cost": cost(made, subset, options.rounds)} for subset in SUBSETS}
    print(json.dumps(found, indent=2))
    if options.write is not None:
        options.write.mkdir(parents=True, exist_ok=True)
        day = time.strftime("%Y-%m-%d", time.gmtime())
        data = {"preset": options.preset, "steps": options.steps, "found": found, "environment": describe()}
        write_json(options.write / f"{day}-value-primitive.json", data)


if __name__ == "__main__":
    main()
