"""What probes share: some items teach a small model on top of the features, others judge it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator

from foretrain.hashing import hash_data
from foretrain.section import DataPath, Number

Probed = TypeVar("Probed")


def _share(value: float | str) -> float | str:
    if not isinstance(value, str) and not 0 < value < 1:
        raise ValueError("should be a share above 0 and below 1, or a path")
    return value


Judging = Annotated[Number | DataPath, AfterValidator(_share)]
"""The items that judge: a share of them all, or a path of their own."""


def divided(items: Iterable[tuple[Any, Probed]], share: float) -> tuple[list[Probed], list[Probed]]:
    """Items that teach and items that judge, by the hash of the plain data beside each: equal ones stay together."""
    train: list[Probed] = []
    test: list[Probed] = []
    for content, item in items:
        (test if int(hash_data(content, 8), 16) < share * 2**64 else train).append(item)
    return train, test
