"""Do the gradients of the domains point the same way?"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.gradients import mean_gradient
from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.probes._windows import drawn, windows_ahead
from foretrain.probes.base import Probe
from foretrain.section import Count
from foretrain.vectors import cosine

if TYPE_CHECKING:
    from foretrain.context import Context


class GradientCosine(Probe):
    """Cosines between the gradients of different domains' losses, over all trained parameters.

    Each domain's gradient is that of the mean loss of some of its windows that training comes to later, at the weights
    of the moment and without dropout. Cosines of noisy gradients are closer to 0 than those of exact ones: the noise of
    two domains is independent. Compare at like losses and with as many windows.

    Figures: `mean` and `least` over all pairs of domains.
    """

    kind: Literal["gradient_cosine"] = "gradient_cosine"
    modality: ClassVar[str] = "text"
    facts: ClassVar[Facts] = Facts(
        paper="Nexus: Same Pretraining Loss, Better Downstream Generalization via Common Minima",
        arxiv="2604.09258",
        year=2026,
        answers="do the gradients of the domains point the same way?",
        overhead="a gradient of `rows` windows for each domain, all held at once; not counted in the budget",
    )

    rows: Count = Field(16, gt=0)
    """Windows of each domain, over all ranks."""

    def setup(self, context: Context) -> None:
        """See that there are domains to compare.

        Raises:
            RequestError: there is one.
        """
        if len(drawn(context)) < 2:
            raise RequestError(
                f"probe '{self.kind}' compares the gradients of domains, and the stream draws from one; give the "
                "corpus several, or leave the probe out."
            )

    def measure(self, context: Context) -> dict[str, float]:
        """See the class."""
        gradients = [mean_gradient(context, self._batch(context, name)) for name in drawn(context)]
        found = [cosine(a, b) for a, b in combinations(gradients, 2)] or [1.0]
        return {"mean": float(np.mean(found)), "least": min(found)}

    def _batch(self, context: Context, domain: str) -> Batch:
        """This rank's share of a domain's windows; one that fills up a share counts nothing."""
        group = context.group
        share = -(-self.rows // group.world)
        mine = np.arange(group.rank * share, (group.rank + 1) * share)
        seed = seed_from(context.seed, self.kind, context.stream.step, domain)
        batch = windows_ahead(context, domain, np.minimum(mine, self.rows - 1), seed)
        counts = torch.from_numpy(mine < self.rows)[:, None].to(context.device)
        return batch.with_(mask=batch["mask"] & counts)
