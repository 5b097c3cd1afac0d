from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from foretrain.tokens.shards import SetWriter, TokenSet


@pytest.fixture
def make_set(tmp_path: Path) -> Callable[..., TokenSet]:
    """`make_set([3, 5], shard_tokens=...)`: documents of these lengths; token i of the set has id i (modulo 60000)."""
    made = []

    def make(lengths: Sequence[int], shard_tokens: int = 1 << 30, vocabulary: int = 1 << 16) -> TokenSet:
        folder = tmp_path / f"set-{len(made)}"
        made.append(folder)
        with SetWriter(folder, "train", vocabulary, shard_tokens) as writer:
            first = 0
            for number, length in enumerate(lengths):
                writer.append(np.arange(first, first + length) % 60000, 2 * length, f"doc:{number}")
                first += length
        return TokenSet(writer.paths)

    return make
