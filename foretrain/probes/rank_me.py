"""How many directions do the features of the model fill?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import PrivateAttr

from foretrain.parts import Facts
from foretrain.probes._spectrum import Floats, SpectrumProbe

if TYPE_CHECKING:
    from foretrain.context import Context

TINY = 1e-7
"""What the original RankMe adds to each share."""


class RankMe(SpectrumProbe):
    """Effective rank of the features: exp of the entropy of the shares that their directions have.

    There are two readings, which must not be compared with one another. Of `eigenvalues` of the covariance, as in the
    paper on phases of pre-training; of `singular_values` of the features, their square roots, as in the original RankMe
    (arXiv 2210.02885), which gives larger ranks. Both go from 1 to the number of features.

    Figures: `rank`, of centred features, and `rank/without_top`, of all directions but the largest (a few dimensions
    with massive activations may be most of it); `uncentred` and `uncentred/without_top`, with the mean of the features
    left in. And of all measurements so far, by `rank`: the paper's phases are a collapse, a rise and a fall, so the
    largest rise is looked for, from the `dip` to the `peak`, with `collapse` = 1 - dip / first, `rise` = 1 - dip / peak
    and `fall` = 1 - now / peak. A rank that only falls has no rise and no fall; one that only rises has no fall.
    """

    kind: Literal["rank_me"] = "rank_me"
    facts: ClassVar[Facts] = Facts(
        paper="Tracing the Representation Geometry of Language Models from Pretraining to Post-training",
        arxiv="2509.23024",
        year=2025,
        answers="how many directions do the features of the model fill?",
        overhead="a forward pass of `contexts` contexts each time; not counted in the budget",
    )

    of: Literal["eigenvalues", "singular_values"] = "eigenvalues"
    """What the shares are of."""

    _history: list[float] = PrivateAttr(default_factory=list)
    _step: int = PrivateAttr(-1)

    def setup(self, context: Context) -> None:
        """See the base."""
        super().setup(context)
        self._history, self._step = [], -1

    def measure(self, context: Context) -> dict[str, float]:
        """See the class."""
        spectra, found = self.spectra(context), dict[str, float]()
        for name, values in (("rank", spectra.centred), ("uncentred", spectra.raw)):
            found[name] = effective_rank(values, self.of)
            found[f"{name}/without_top"] = effective_rank(values[1:], self.of)
        if context.stream.step == self._step:  # one measurement a step, however often it is made
            self._history.pop()
        self._history, self._step = [*self._history, found["rank"]], context.stream.step
        return {**found, **phases(self._history)}

    def state_dict(self) -> dict[str, Any]:
        """The ranks so far, and the step of the last."""
        return {"history": list(self._history), "step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._history, self._step = list(state["history"]), int(state["step"])


def effective_rank(eigenvalues: Floats, of: Literal["eigenvalues", "singular_values"] = "eigenvalues") -> float:
    """Effective rank: e to the entropy of the shares of eigenvalues, or of their square roots; 0 where all are 0."""
    values = eigenvalues if of == "eigenvalues" else np.sqrt(eigenvalues)
    if values.sum() <= 0:
        return 0.0
    shares = values / values.sum()
    shares = shares[shares > 0] if of == "eigenvalues" else shares + TINY
    return float(np.exp(-(shares * np.log(shares)).sum()))


def phases(ranks: Sequence[float]) -> dict[str, float]:
    """The largest rise in a series, what was lost before it, and what was lost since."""
    lowest = dip = peak = 0
    for place, rank in enumerate(ranks):
        if rank - ranks[lowest] > ranks[peak] - ranks[dip]:
            dip, peak = lowest, place
        if rank < ranks[lowest]:
            lowest = place
    if dip == peak:  # nothing rose
        dip = peak = len(ranks) - 1
    first, low, high = (max(ranks[place], 1e-12) for place in (0, dip, peak))
    return {
        "dip": ranks[dip],
        "peak": ranks[peak],
        "collapse": 1 - low / first,
        "rise": 1 - low / high,
        "fall": 1 - ranks[-1] / high,
    }
