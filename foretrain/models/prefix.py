"""Prefix: run the lowest blocks of a model alone, and train the topmost of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def lowest_blocks(blocks: Sequence[nn.Module], depth: int, trained: int) -> Iterator[None]:
    """Inside, forward passes leave out the blocks above the lowest `depth`, and gradients end below the top `trained`.

    What stands behind the blocks (the last norm, the output layer) reads what the highest of those that run writes, and
    gets its gradient as usual; what lies below the trained blocks, the embeddings included, gets none from them.

    Args:
        blocks: the repeated blocks of the model, in order; each gives back hidden states as it takes them.
        depth: how many run.
        trained: how many of those that run get a gradient.
    """
    skipped = list(blocks[depth:])
    former = [vars(block).get("forward") for block in skipped]
    for block in skipped:
        block.forward = _passed_on
    cut = blocks[depth - trained].register_forward_pre_hook(_cut, with_kwargs=True)
    try:
        yield
    finally:
        cut.remove()
        for block, forward in zip(skipped, former, strict=True):
            if forward is None:
                del block.forward
            else:
                block.forward = forward


def _passed_on(hidden_states: Tensor, *arguments: Any, **named: Any) -> Tensor:
    return hidden_states


def _cut(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    if arguments:
        return (arguments[0].detach(), *arguments[1:]), named
    return arguments, {**named, "hidden_states": named["hidden_states"].detach()}
