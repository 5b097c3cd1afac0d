"""Suffix: run only the last blocks of a model again, from the states that an earlier pass left in front of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn


class Suffix:
    """The blocks from `first` on (0: all of them, and nothing is spared), with what came out of those before.

    What stands in front of the blocks (embeddings, masks, rotary angles) and behind them (the last norm, the output
    layer) runs again in each pass: it costs little, and may be what was changed. Weights of the skipped blocks and of
    the embeddings must be as they were when the states were recorded.

    Args:
        blocks: the repeated blocks of the model, in order.
        first: the number of the first that runs again.
    """

    def __init__(self, blocks: Sequence[nn.Module], first: int) -> None:
        self._skipped = list(blocks[:first])
        self._states: list[Any] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Inside, every forward pass of the model leaves its state; they are kept in order."""
        if not self._skipped:
            yield
            return

        def keep(module: nn.Module, arguments: Any, output: Any) -> None:
            self._states.append(output)

        handle = self._skipped[-1].register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def resuming(self, number: int) -> Iterator[None]:
        """Inside, forward passes begin at the first block, from the state of recorded pass `number` (from 0)."""
        if not self._skipped:
            yield
            return
        state, former = self._states[number], [vars(block).get("forward") for block in self._skipped]

        def skip(*arguments: Any, **named: Any) -> Any:
            return state

        for block in self._skipped:
            block.forward = skip
        try:
            yield
        finally:
            for block, forward in zip(self._skipped, former, strict=True):
                if forward is None:
                    del block.forward
                else:
                    block.forward = forward
