"""Group: the processes of one run. One process is the plain case; `torchrun` starts several.

The loop is written once for any number of processes. What differs is here: who holds which rows, how sums are taken
over ranks, and how a model is copied (`replicate`) or split (`shard`, FSDP2) over them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from foretrain.errors import RequestError


@dataclass(frozen=True)
class Group:
    """The processes of a run: `rank` of `world`, and the device this one computes on."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def sum(self, *values: float | Tensor) -> list[float]:
        """Sums of numbers over all ranks, in float64."""
        if self.world == 1:
            return [float(value) for value in values]
        tensor = torch.tensor([float(value) for value in values], dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def sum_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Sum tensors over all ranks in place, through one flat buffer."""
        tensors = list(tensors)
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        torch._foreach_copy_(
            tensors,
            [piece.view_as(t) for piece, t in zip(flat.split([t.numel() for t in tensors]), tensors, strict=True)],
        )

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank (a signal may reach only one process)."""
        return flag if self.world == 1 else self.sum(1.0 if flag else 0.0)[0] > 0

    def agree(self, value: Any) -> Any:
        """The main process's value, on every rank."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.world > 1:
            dist.barrier()


def alone() -> Group:
    """This process by itself, on the GPU where there is one."""
    return Group(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def start_group() -> Group:
    """The group this process belongs to: from `torchrun`'s environment, or alone."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if cuda and local >= torch.cuda.device_count():
        raise RequestError(
            f"torchrun started {local + 1} or more processes on this node, which has {torch.cuda.device_count()} GPUs."
        )
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if world == 1:
        return Group(device=device)
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timedelta(minutes=15))
    return Group(rank=dist.get_rank(), world=world, device=device)


def end_group() -> None:
    """Leave the group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def shard(model: nn.Module, blocks: Iterable[nn.Module], compute: torch.dtype | None) -> nn.Module:
    """Split a model's parameters over all ranks with FSDP2: each block on its own, the rest with the root.

    Parameters stay fp32 in shards; blocks are gathered in `compute` (bf16) where one is given, and gradients are summed
    in fp32. The root stays gathered between forward and backward, so the losses may use the output layer's weight.
    """
    policy = (
        MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32) if compute else MixedPrecisionPolicy()
    )
    for block in blocks:
        fully_shard(block, mp_policy=policy)
    fully_shard(model, mp_policy=policy, reshard_after_forward=False)
    return model


def whole(value: Any) -> Any:
    """A tree with every sharded tensor gathered on the CPU; a collective call, the same on all ranks."""
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole(item) for item in value)
    return value


def like(value: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor, cut as `pattern` is (a shard of it on this rank, or all)."""
    if isinstance(pattern, DTensor):
        return distribute_tensor(value.to(pattern.device), pattern.device_mesh, pattern.placements)
    return value.to(pattern.device)
