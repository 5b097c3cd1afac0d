"""What probes share that look at text of the stream which training has not come to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from foretrain.batch import Batch

if TYPE_CHECKING:
    from foretrain.context import Context


def drawn(context: Context) -> list[str]:
    """The domains that have a share of the stream now."""
    return [name for name in context.stream.domains if context.stream.weights[name] > 0]


def windows_ahead(context: Context, domain: str, numbers: NDArray[np.int64], seed: int) -> Batch:
    """Windows of a domain that training comes to after the next step, prepared.

    Args:
        context: of the run.
        domain: its name.
        numbers: which of them, from 0 on.
        seed: decides what the objective draws for them.
    """
    stream = context.stream
    first = stream.seen(domain) + stream.rows
    batch = Batch(
        stream.windows_at(domain, first + numbers),
        seed=seed,
        step=stream.step,
        positions=torch.from_numpy(numbers),
        domains=stream.domains,
    )
    return context.objective.prepare(batch).to(context.device)
