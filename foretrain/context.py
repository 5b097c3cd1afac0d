"""Context: what a part may see when it is set up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from foretrain.distributed import Group
    from foretrain.models.roles import Role
    from foretrain.recipe import Recipe
    from foretrain.tokens.stream import Stream
    from foretrain.tokens.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Context:
    """The run as parts see it. Nothing here is to be written to, except through the functions given for it."""

    recipe: Recipe
    seed: int
    total_steps: int
    """Steps planned when the run was set up; a budget in minutes may still move the end."""
    rehearsal: bool
    """Whether steps are only run for their cost, in a run of another length than the planned one."""
    device: torch.device
    model: nn.Module
    """What forward passes run through; under `precision: bf16` its weights are the bf16 copies."""
    weights: Mapping[str, nn.Parameter]
    """Every trained parameter by name, live, in fp32 (this rank's shard of it under FSDP2)."""
    roles: dict[str, Role]
    tokenizer: TextTokenizer
    stream: Stream
    group: Group
    record: Callable[[str, float], None]
    """`record(name, value)` puts a figure into this step's line of `metrics.jsonl`."""
