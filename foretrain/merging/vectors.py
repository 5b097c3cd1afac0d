"""Task vectors: what training changed in models that began from the same weights, and how these changes lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from foretrain.errors import RequestError
from foretrain.merging.weights import Weights, refuse_other_network, stream


class TaskVectors:
    """The differences between tuned models and their base, one tensor at a time, in float64.

    Tensors of whole numbers have no differences, and tied weights are one tensor.

    Attributes:
        base: what the models were tuned from.
        tuned: the models.
    """

    def __init__(self, base: Weights, tuned: Sequence[Weights]) -> None:
        if not tuned:
            raise RequestError("There is no task vector without a tuned model; name one at least.")
        self.base, self.tuned = base, list(tuned)
        refuse_other_network([base, *tuned])

    def __len__(self) -> int:
        return len(self.tuned)

    @property
    def names(self) -> list[str]:
        """The tensors that have differences."""
        return self.base.floating

    def differences(self, name: str) -> list[Tensor]:
        """What each model changed in a tensor."""
        base = self.base.read(name).double()
        return [model.read(name).double().sub_(base) for model in self.tuned]

    def __iter__(self) -> Iterator[tuple[str, list[Tensor]]]:
        return ((name, self.differences(name)) for name in self.names)

    def of(self, number: int) -> Iterator[Tensor]:
        """What one model changed, tensor by tensor."""
        for _, (base, tuned) in stream(self.names, [self.base, self.tuned[number]]):
            yield tuned.sub_(base)

    def geometry(self) -> Geometry:
        """Norms and angles, over all weights and by block: one pass over the models."""
        products: dict[int | None, NDArray[np.float64]] = {}
        for name, (base, *tuned) in stream(self.names, [self.base, *self.tuned]):
            rows = [base.flatten(), *(each.flatten() - base.flatten() for each in tuned)]
            found = np.array([[float(a @ b) for b in rows] for a in rows])
            block = self.base.block(name)
            products[block] = products.get(block, 0.0) + found
        return Geometry(products)


@dataclass(frozen=True)
class Geometry:
    """How task vectors lie.

    Attributes:
        products: by block (None: outside of them), the inner products of the base's weights (first) and the vectors.
    """

    products: dict[int | None, NDArray[np.float64]]

    @property
    def total(self) -> NDArray[np.float64]:
        """The inner products over all weights."""
        return np.sum(list(self.products.values()), axis=0)

    def figures(self) -> dict[str, float]:
        """`cosine`, the mean over pairs of vectors; `norm_N`, the length of each vector as a share of the base's."""
        lengths = _lengths(self.total)
        found = {f"norm_{number}": _share(length, lengths[0]) for number, length in enumerate(lengths[1:], 1)}
        return {**_cosine(self.total), **found}

    def plain(self) -> dict[str, Any]:
        """All cosines and norms, overall and by block, as plain data."""
        blocks = sorted(block for block in self.products if block is not None)
        places: list[int | None] = [*blocks, *([None] if None in self.products else [])]
        return {
            "overall": _described(self.total),
            "blocks": {
                "outside" if block is None else str(block): _described(self.products[block]) for block in places
            },
        }


def _lengths(products: NDArray[np.float64]) -> list[float]:
    return [float(length) for length in np.sqrt(np.clip(np.diag(products), 0.0, None))]


def _share(length: float, of: float) -> float:
    return length / of if of > 0 else 0.0


def _cosines(products: NDArray[np.float64]) -> list[list[float]]:
    """Of the vectors; 0 where one of two changed nothing."""
    lengths = _lengths(products)[1:]
    return [
        [_share(float(products[i + 1, j + 1]), lengths[i] * lengths[j]) for j in range(len(lengths))]
        for i in range(len(lengths))
    ]


def _cosine(products: NDArray[np.float64]) -> dict[str, float]:
    cosines = _cosines(products)
    pairs = [cosines[i][j] for i in range(len(cosines)) for j in range(i)]
    return {"cosine": sum(pairs) / len(pairs)} if pairs else {}


def _described(products: NDArray[np.float64]) -> dict[str, Any]:
    base, *lengths = _lengths(products)
    return {"base": base, "norms": lengths, "cosines": _cosines(products)}
