"""What a teacher holds for likely at every token of a set, asked once and kept in the cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretrain import flops
from foretrain.batch import Batch
from foretrain.files import cache_folder, read_json, write_json
from foretrain.hashing import hash_data
from foretrain.tokens.cache import made_once

if TYPE_CHECKING:
    from foretrain.context import Context
    from foretrain.named_models import Reference
    from foretrain.tokens.readable import Readable

FORMAT = 1
"""Version of what is kept; part of every name in the cache."""
ROWS = 16
"""Windows per forward pass of the teacher."""


class TaughtTokens:
    """The candidates of every token of a set and a teacher's log-probabilities of them, mapped into memory.

    Attributes:
        flops: what the teacher's passes cost, whoever made them.
    """

    def __init__(self, folder: Path) -> None:
        self._ids: NDArray[Any] = np.load(folder / "ids.npy", mmap_mode="r")
        self._known: NDArray[np.float16] = np.load(folder / "log-probabilities.npy", mmap_mode="r")
        self.flops = float(read_json(folder / "facts.json")["flops"])

    def __len__(self) -> int:
        return len(self._ids)

    def rows(self, starts: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Ids int64 and log-probabilities float32 [starts, length, K] of the tokens from each start on; a ring."""
        places = (starts.numpy()[:, None] + np.arange(length)) % len(self)
        return torch.from_numpy(self._ids[places].astype(np.int64)), torch.from_numpy(
            self._known[places].astype(np.float32)
        )


def taught_tokens(
    tokens: Readable, teacher: Reference, content: str, candidates: int, context: Context
) -> TaughtTokens:
    """What a teacher says of a set: found in the cache, or made by the first process that asks.

    Args:
        tokens: the set.
        teacher: asked in windows as long as the run's; each token has at least half a window before it.
        content: hash of the teacher.
        candidates: kept per token, the true one first.
        context: of the run, which reads with its objective.
    """
    separate = context.recipe.documents == "separate"
    named = hash_data([FORMAT, tokens.hash, content, candidates, context.length, separate, context.learner.precision])
    folder = cache_folder() / "taught" / named

    def make(temporary: Path) -> None:
        kind = np.uint16 if teacher.vocabulary <= 1 << 16 else np.uint32
        shape = tokens.tokens, candidates
        ids = np.lib.format.open_memmap(temporary / "ids.npy", "w+", kind, shape)
        known = np.lib.format.open_memmap(temporary / "log-probabilities.npy", "w+", np.float16, shape)
        cost = flops.count(lambda: _ask(tokens, teacher, context, separate, ids, known))
        for written in (ids, known):
            written.flush()
        write_json(temporary / "facts.json", {"flops": cost, "tokens": tokens.tokens, "candidates": candidates})

    if context.group.main:
        made_once(folder, make)
    context.group.wait()
    return TaughtTokens(folder)


def _ask(
    tokens: Readable,
    teacher: Reference,
    context: Context,
    separate: bool,
    ids: NDArray[Any],
    known: NDArray[np.float16],
) -> None:
    length = context.length
    window, stride = context.objective.window(length), max(1, length // 2)
    for number, tensors in enumerate(tokens.windows(window, stride, rows=ROWS, segments=separate)):
        rows = len(tensors["tokens"])
        first = number * ROWS * stride - (window - stride) + 1  # the place of the first label of the first window
        numbers = torch.zeros(rows, dtype=torch.int64)
        batch = Batch({**tensors, "domain": numbers}, seed=0, step=0, positions=numbers, domains=("",))
        batch = context.objective.prepare(batch).to(context.device)
        found = teacher.outputs(batch).candidates(batch["labels"], ids.shape[1])
        judged = tensors["valid"][:, 1:].numpy()
        places = (first + np.arange(rows)[:, None] * stride + np.arange(length))[judged]
        ids[places] = found[0].cpu().numpy()[judged]
        known[places] = found[1].cpu().numpy()[judged]
