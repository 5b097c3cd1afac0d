"""Speed of the training step beside its peers, on text that ships with the interpreter.

python -m benchmarks.training                          # ratios of step times, every role in a process of its own
python -m benchmarks.training --cases llama:fp32       # other shapes and precisions
python -m benchmarks.training --curves                 # losses of the same model on the same batches, three seeds
python -m benchmarks.training --overhead               # what the trainer adds around forward, backward, optimizer
python -m benchmarks.training --write                  # keep the result in benchmarks/results, dated

Roles: `ours`, the trainer as `foretrain run` uses it; `plain`, an eager decoder of the same shape with fused AdamW and
bf16 autocast, as small trainers are written; `plain+malloc`, the same with our allocator settings, to show what those
alone give; `trainer`, Hugging Face's Trainer on the same transformers model. They take turns step by step, so that a
change in the machine's speed meets all alike; the ratio is the median of the ratios turn by turn.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers import PlainDecoder, PlainLoop, run_hf_trainer, transformers_loss
from foretrain import environment
from foretrain.distributed import Group
from foretrain.kernels.process import tune_allocator
from foretrain.plan import Plan, make_plan
from foretrain.recipe import make_recipe
from foretrain.trainer import Trainer

LR = 1e-3
WARM = 3
CONTEXT, ROWS = 256, 8
RESULTS = Path(__file__).parent / "results"


def plan_of(kind: str, precision: str, steps: int, seed: int = 0) -> Plan:
    """The benchmark's run: 6M parameters, context 256, 8 windows a step, constant rate."""
    recipe = {
        "seed": seed,
        "budget": {"steps": steps},
        "model": {"kind": kind, "preset": "6M", "context": CONTEXT},
        "tokenizer": {"kind": "bpe", "vocabulary": 4096},
        "corpus": {"english": "builtin:english"},
        "batch": {"tokens": ROWS * CONTEXT},
        "optimizer": {"kind": "adamw", "lr": LR, "decay_embeddings": True},
        "schedule": {"kind": "constant", "warmup": 0},
        "stability": {"spike": None},
        "precision": precision,
    }
    return make_plan(make_recipe(recipe), Group())


def windows(plan: Plan) -> Iterator[Tensor]:
    """The run's batches, in order."""
    stream = plan.stream()
    while True:
        yield stream.batch()["tokens"].clone()
        stream.advance()


def plain_loop(plan: Plan, bf16: bool) -> PlainLoop:
    """The plain loop around a plain decoder of the run's shape."""
    config = plan.config
    decoder = PlainDecoder(
        config.model_type, config.vocab_size, config.hidden_size, config.num_attention_heads, config.num_hidden_layers,
        getattr(config, "intermediate_size", None) or 4 * config.hidden_size, CONTEXT,
    )  # fmt: skip
    return PlainLoop(decoder, lambda model, inputs, labels: model(inputs, labels), bf16, LR)


# Ratios: one process a role, taking turns ----------------------------------------------------------------------


def work(case: str, role: str, steps: int) -> None:
    """A role's process: waits for its turn on stdin, does a step, answers with its seconds."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries may print; the pipe stays clean
    kind, precision = case.split(":")
    bf16 = precision != "fp32"

    def turn(seconds: float | None, loss: float | None) -> None:
        if seconds is not None:
            print(seconds, file=out)
        elif loss is None and not sys.stdin.readline():
            os._exit(0)

    if role in ("ours", "plain+malloc"):
        tune_allocator()
    plan = plan_of(kind, precision, steps)
    if role == "trainer":
        with tempfile.TemporaryDirectory() as folder:
            run_hf_trainer(plan.build_model(), windows(plan), steps, bf16, LR, Path(folder), turn)
        return
    if role == "ours":
        trainer = Trainer(plan, steps, Group())
        while True:
            turn(None, None)
            turn(trainer.counted_step()[1], None)
    loop = plain_loop(plan, bf16)
    for tokens in windows(plan):
        turn(None, None)
        begin = time.perf_counter()
        loop.step(tokens)
        turn(time.perf_counter() - begin, None)


def compare(case: str, steps: int, roles: list[str]) -> dict[str, Any]:
    """Seconds of each role and their ratios to ours, turn by turn."""
    command = [sys.executable, "-m", "benchmarks.training", "--steps", str(steps + WARM), "--worker", case]
    processes = {
        role: subprocess.Popen(
            [*command, role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )
        for role in roles
    }
    seconds: dict[str, list[float]] = {role: [] for role in roles}
    for number in range(steps + WARM):
        for role, process in processes.items():
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("go\n")
            taken = float(process.stdout.readline())
            if number >= WARM:
                seconds[role].append(taken)
    for process in processes.values():
        process.kill()
    found = {"case": case, "steps": steps, "tokens_per_second": ROWS * CONTEXT / statistics.median(seconds["ours"])}
    for role in roles:
        pairs = sorted(other / ours for other, ours in zip(seconds[role], seconds["ours"], strict=True))
        quarter = len(pairs) // 4
        found[role] = {
            "seconds": statistics.median(seconds[role]),
            "ratio": statistics.median(pairs),
            "quartiles": [pairs[quarter], pairs[-1 - quarter]],
        }
    return found


# Curves: the same model on the same batches --------------------------------------------------------------------


def curves(case: str, steps: int, seeds: int) -> dict[str, Any]:
    """Losses of our step and of a plain loop around the same transformers model, from the same start, per seed."""
    kind, precision = case.split(":")
    gaps, noise, last = [], [], []
    for seed in range(seeds):
        plan = plan_of(kind, precision, steps, seed)
        trainer = Trainer(plan, steps, Group())
        loop = PlainLoop(plan.build_model(), transformers_loss, precision != "fp32", LR)
        losses = [
            (trainer.counted_step()[0]["loss"], loop.step(tokens))
            for _, tokens in zip(range(steps), windows(plan), strict=False)
        ]
        tail = losses[-steps // 4 :]
        gaps.append(statistics.mean(ours - plain for ours, plain in tail))
        noise.append(statistics.stdev(plain for _, plain in tail) / math.sqrt(len(tail)))
        last.append(statistics.mean(plain for _, plain in tail))
    return {
        "case": case,
        "steps": steps,
        "mean_gap_of_last_quarter": gaps,
        "mean_loss_of_last_quarter": last,
        "standard_error_of_that_mean": noise,
    }


# Overhead: the trainer beside the same work with nothing around it ---------------------------------------------


def overhead(case: str, steps: int) -> dict[str, Any]:
    """Share of the trainer's step that is neither forward, backward, clipping nor optimizer."""
    from foretrain.gradients import clip_gradient
    from foretrain.objectives.causal_lm import CausalLM

    kind, precision = case.split(":")
    plan = plan_of(kind, precision, 10_000)
    trainer = Trainer(plan, 10_000, Group())
    trainer.counted_step()  # the first one is counted
    objective, learner, bare = CausalLM(), trainer.learner, []
    whole = []
    for _ in range(steps):
        begin = time.perf_counter()
        trainer.counted_step()
        whole.append(time.perf_counter() - begin)
        batch = objective.prepare(trainer.stream.batch())
        count = float(batch["mask"].sum())
        begin = time.perf_counter()
        learner.zero_gradients()
        with learner.autocast():
            losses = objective.losses(objective.forward(learner.model, batch), batch)
        (losses.sum() / count).backward()
        learner.collect()
        gradient = learner.gradient()
        clip_gradient(gradient, 1.0)
        trainer.optimizer.step()
        learner.refresh()
        bare.append(time.perf_counter() - begin)
    ratios = sorted(a / b for a, b in zip(whole, bare, strict=True))
    return {"case": case, "steps": steps, "share_of_step": 1 - 1 / statistics.median(ratios)}


def main() -> None:
    """Run what the command line asks for, print it, keep it where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", default="llama:bf16,gpt2:bf16")
    parser.add_argument("--roles", default="ours,plain,plain+malloc,trainer")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--curves", action="store_true")
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(*asked.worker, asked.steps)
        return
    results = []
    for case in asked.cases.split(","):
        if asked.curves:
            tune_allocator()
            results.append(curves(case, asked.steps, asked.seeds))
        elif asked.overhead:
            tune_allocator()
            results.append(overhead(case, asked.steps))
        else:
            results.append(compare(case, asked.steps, asked.roles.split(",")))
        print(json.dumps(results[-1], indent=2), flush=True)
    if asked.write:
        kind = "curves" if asked.curves else "overhead" if asked.overhead else "ratios"
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"training-{kind}-{date.today().isoformat()}.json"
        path.write_text(json.dumps({"results": results, "environment": environment.describe()}, indent=2) + "\n")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
