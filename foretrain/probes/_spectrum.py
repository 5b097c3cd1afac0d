"""The spectrum of a model's features: eigenvalues of their covariance over a fixed set of contexts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from foretrain.errors import RequestError
from foretrain.probes.base import Probe
from foretrain.section import Count
from foretrain.subject import Subject

if TYPE_CHECKING:
    from foretrain.context import Context

Floats = NDArray[np.float64]

BATCH = 8192
"""Tokens of a forward pass."""
ENOUGH = 10
"""Contexts for each feature, below which a covariance has a lower rank than the features have."""


@dataclass(frozen=True)
class Spectra:
    """Eigenvalues of F'F / M, the largest first, of features F with M rows.

    Attributes:
        centred: without the mean of the features, which is the covariance; `raw`: with it.
    """

    centred: Floats
    raw: Floats


class SpectrumProbe(Probe):
    """A probe of the covariance of features: last hidden states (after the last norm) of the last token of contexts.

    The contexts are stretches of a split, evenly spread over it, and the same ones at every measurement and in every
    run on the same text: spectra of other contexts, or of another number of them, do not compare. The last norm takes
    the length out of a feature, and leaves its direction and the norm's weights.
    """

    modality: ClassVar[str] = "text"

    contexts: Count | None = Field(None, gt=1)
    """How many contexts (M); unset: ten for each feature. With fewer, ranks come out too low."""
    length: Count | None = Field(None, gt=0)
    """Tokens of a context; unset: as many as the model reads at once."""
    split: Literal["validation", "steer", "train"] = "validation"
    """Where the contexts are from."""

    def setup(self, context: Context) -> None:
        """See that there are contexts, and say if they are few.

        Raises:
            RequestError: no domain has the split, or a context is longer than what the model reads.
        """
        if self.length is not None and self.length > context.length:
            raise RequestError(
                f"probe '{self.kind}': contexts of {self.length} tokens are longer than the {context.length} that the "
                "model reads at once (model.context); set `length` to at most that, or leave it out."
            )
        sets = context.sets(self.split)
        if not sets:
            raise RequestError(
                f"probe '{self.kind}' takes its contexts from the {self.split} split, and no domain has one; give one "
                f"a share (corpus.NAME.{self.split}: 0.05), or name another `split`."
            )
        count, width = len(self._starts(context)[0]), features_of(context)
        if count < ENOUGH * width:
            context.warn(
                f"probe '{self.kind}': {count} contexts are few for {width} features, and ranks come out too low; take "
                f"{ENOUGH * width} (`contexts`, and as many tokens in the {self.split} split)."
            )

    def spectra(self, context: Context) -> Spectra:
        """The spectra at the weights of the moment, over all ranks."""
        total, first, second = _moments(context, self._contexts(context))
        context.group.sum_tensors([total, first, second])
        mean, raw = first / total, second / total
        found = (torch.linalg.eigvalsh(matrix).flip(0).clamp_min(0) for matrix in (raw - mean.outer(mean), raw))
        return Spectra(*(values.cpu().numpy() for values in found))

    def _starts(self, context: Context) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the contexts begin, in the domains one after the other: number of the domain, and place in it."""
        ends = np.cumsum([found.tokens for found in context.sets(self.split).values()])
        count = min(self.contexts or ENOUGH * features_of(context), int(ends[-1]))
        places = np.arange(count, dtype=np.int64) * int(ends[-1]) // count
        domains = np.searchsorted(ends, places, "right")
        return domains, places - np.concatenate([[0], ends])[domains]

    def _contexts(self, context: Context) -> Tensor:
        """Every context's tokens, int64 [contexts, length]."""
        sets, length = context.sets(self.split), self.length or context.length
        domains, starts = self._starts(context)
        pieces = [
            found.gathered(starts[domains == number], length)["tokens"]
            for number, found in enumerate(sets.values())
            if (domains == number).any()
        ]
        return torch.cat(pieces)


def features_of(context: Context) -> int:
    """How many features a hidden state has."""
    return int(context.model.config.hidden_size)  # type: ignore[union-attr, arg-type]


def _moments(context: Context, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """This rank's share of the number of features, their sum and the sum of their outer products, in float64."""
    group = context.group
    share = -(-len(tokens) // group.world)
    mine = torch.arange(group.rank * share, (group.rank + 1) * share)
    counted = mine < len(tokens)  # ranks run equally often; what fills up a share counts nothing
    rows = max(1, BATCH // tokens.shape[1])
    total = first = second = torch.zeros((), dtype=torch.float64)
    with context.learner.evaluating():
        subject = Subject(context.model, context.tokenizer, context.length)
        for begin in range(0, share, rows):
            place = slice(begin, begin + rows)
            features = subject.features(tokens[mine[place].clamp_max(len(tokens) - 1)])[:, -1].double()
            features = features * counted[place, None].to(features)
            total = total + counted[place].sum().to(features)
            first, second = first + features.sum(0), second + features.T @ features
    return total, first, second
