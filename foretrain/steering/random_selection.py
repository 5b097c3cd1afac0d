"""A control for selection by a teacher: as much is selected, by chance."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from foretrain.batch import Batch
from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.steering._two_gates import TwoGates


class RandomSelection(TwoGates):
    """The weights that `llkd` would give, dealt to random tokens (rows) of the step.

    As many are selected in every step, with as uneven weights and at the same cost; only which ones is left to chance.
    """

    kind: Literal["random_selection"] = "random_selection"
    facts: ClassVar[Facts] = Facts(
        answers="weigh: control, does it matter which tokens are selected, or only how many?",
        needs=("batch_losses",),
        overhead="as llkd",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"confidence": 0.0, "uncertainty": 0.0}

    def placed(self, weights: Tensor, counts: Tensor, batch: Batch) -> Tensor:
        """The same weights in a random order, over all ranks."""
        both = self.everywhere(batch, torch.stack([weights, counts], -1))
        whole, counted = both[..., 0], both[..., 1] > 0
        generator = torch.Generator().manual_seed(seed_from(batch.seed, self.kind, batch.step))
        order = torch.randperm(int(counted.sum()), generator=generator).to(whole.device)
        dealt = torch.zeros_like(whole)
        dealt[counted] = whole[counted][order]
        return dealt[self.places(batch).to(whole.device)]
