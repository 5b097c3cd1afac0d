"""Context: what a part may see when it is set up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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
    folder: Path
    """Folder of the recipe: relative paths start here."""
    seed: int
    total_steps: int
    device: torch.device
    model: nn.Module
    roles: dict[str, Role]
    tokenizer: TextTokenizer
    stream: Stream
    group: Group
    record: Callable[[str, float], None]
    """`record(name, value)` puts a figure into this step's line of `metrics.jsonl`."""
