"""What parts share that decide from the rows of all ranks together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pydantic import PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.steering.base import Steering

if TYPE_CHECKING:
    from foretrain.context import Context


class WholeBatch(Steering):
    """Sees the step's rows of every rank, in one order, so that every rank decides the same."""

    _context: Any = PrivateAttr(None)

    def setup(self, context: Context) -> None:
        """Keep the context."""
        self._context = context

    def everywhere(self, batch: Batch, tensor: Tensor) -> Tensor:
        """A tensor of this rank's rows, float64 [rows of the step, ...], with the rows of all ranks in its place.

        The same on every rank, whatever their number, so that what is decided from it is too.
        """
        whole = torch.zeros(self._context.stream.rows, *tensor.shape[1:], dtype=torch.float64, device=tensor.device)
        whole[self.places(batch).to(tensor.device)] = tensor.double()
        self._context.group.sum_tensors([whole])
        return whole

    def places(self, batch: Batch) -> Tensor:
        """Int64 [rows]: which rows of the step, over all ranks, these are."""
        return batch.positions - batch.step * self._context.stream.rows

    def record(self, name: str, value: float) -> None:
        """Put a figure of this part into the step's line."""
        self._context.record(f"{self.kind}/{name}", value)
