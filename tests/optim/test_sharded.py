"""Two processes with sharded parameters (FSDP2 on gloo) move them as one process does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from foretrain.models.roles import parameter_roles
from foretrain.optim.adamw import AdamW
from foretrain.optim.muon import Muon

rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)


def make():
    torch.manual_seed(0)
    # Rows that two ranks cannot share evenly, and a module beside the sharded one (an objective's head).
    return nn.Sequential(nn.Linear(6, 9), nn.LayerNorm(9), nn.Linear(9, 5)), nn.Linear(5, 3)


def run(part, sharded):
    body, head = make()
    if sharded:
        fully_shard(body)
    named = {**dict(body.named_parameters()), **{f"head.{n}": p for n, p in head.named_parameters()}}
    roles = {**parameter_roles(body), **{f"head.{n}": r for n, r in parameter_roles(head).items()}}
    optimizer = part.build(named, roles)
    rows = torch.randn(4, 4, 6, generator=torch.Generator().manual_seed(1))
    for batch in rows:
        mine = batch[2 * rank : 2 * rank + 2] if sharded else batch
        head(body(mine)).square().mean().backward()
        if sharded:
            for parameter in head.parameters():
                dist.all_reduce(parameter.grad)
                parameter.grad /= 2
        optimizer.step()
        optimizer.zero_grad()
    return [p.full_tensor() if hasattr(p, "full_tensor") else p for p in named.values()]


for part in (AdamW(lr=1e-2), Muon(lr=1e-2)):
    one, two = run(part, False), run(part, True)
    furthest = max(float((a - b).detach().abs().max()) for a, b in zip(one, two))
    # bf16 inside Muon turns a difference of one rounding into one of 2 ** -8 of a step.
    assert furthest < (1e-6 if part.kind == "adamw" else 1e-3), (part.kind, furthest)
dist.destroy_process_group()
"""


def test_sharded_parameters_move_as_whole_ones_do(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), str(tmp_path / "store")],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
