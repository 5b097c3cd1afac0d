"""How flat the loss is around the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from foretrain.batch import Batch
from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.probes._windows import drawn, windows_ahead
from foretrain.probes.base import Probe
from foretrain.section import Count
from foretrain.vectors import norm

if TYPE_CHECKING:
    from foretrain.context import Context


class HessianTrace(Probe):
    """Trace of the Hessian of the mean loss per token, as E_x E_(y ~ f) |grad log f_y|^2, labels drawn from the model.

    That is the trace of the Fisher information (of the Gauss-Newton matrix); it equals the Hessian's where the model
    predicts what the data's distribution is, so it is one of flatness near a minimum that is global, and elsewhere a
    quantity of its own. Examples are single windows of the stream that training comes to later, the domains in turn. In
    a window every predicted token is given a label drawn from the model's own distribution there, and the squared norm
    of the summed gradient is taken over all trained parameters: given the text, scores of different tokens have mean
    zero and no correlation, so the mean square of the sum is the sum of the mean squares, and one backward pass a
    window is unbiased.

    It depends on how a network is parametrised (norm layers make scales free), so compare it within one architecture.
    Labels from the data in place of the model's would measure the gradient's noise. Ranks look at the same examples.

    Figures: `trace`, and `error`, the standard error of its mean over the examples.
    """

    kind: Literal["hessian_trace"] = "hessian_trace"
    modality: ClassVar[str] = "text"
    facts: ClassVar[Facts] = Facts(
        paper="Same Pre-training Loss, Better Downstream: Implicit Bias Matters for Language Models",
        arxiv="2210.14199",
        year=2022,
        answers="how flat is the loss around the weights?",
        overhead="a forward and a backward pass of each of `rows` windows, each time; not counted in the budget",
    )

    rows: Count = Field(16, gt=1)
    """Examples: windows of the stream."""

    def measure(self, context: Context) -> dict[str, float]:
        """See the class."""
        squares, tokens = [], []
        domains = drawn(context)
        for row in range(self.rows):
            turn, which = divmod(row, len(domains))
            seed = seed_from(context.seed, self.kind, context.stream.step, row)
            batch = windows_ahead(context, domains[which], np.array([turn]), seed)
            squares.append(score_square(context, batch, seed))
            tokens.append(float(batch["mask"].sum()))
        square, count = np.asarray(squares), np.asarray(tokens)
        trace = square.sum() / max(count.sum(), 1.0)
        spread = (square - trace * count).std(ddof=1) / max(count.mean(), 1.0)
        return {"trace": float(trace), "error": float(spread / len(square) ** 0.5)}


def score_square(context: Context, batch: Batch, seed: int) -> float:
    """|gradient|^2 of the summed losses of a batch, its labels drawn from the model; every rank has the same batch."""

    def loss(piece: Batch) -> Tensor:
        outputs = context.objective.forward(context.learner.model, piece)
        labels = drawn_labels(outputs.logits(), seed)
        # All ranks do the same and their gradients are summed.
        return context.objective.losses(outputs, piece.with_(labels=labels)).sum() / context.group.world

    return norm(context.learner.gradient_of(loss, [batch], list(context.weights))[0]) ** 2


def drawn_labels(logits: Tensor, seed: int) -> Tensor:
    """Int64 [rows, length]: a label at each place from its softmax [rows, length, vocabulary]; pure in the seed."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(*logits.shape[:-1], 1, generator=generator, dtype=torch.float64)
    bounds = logits.double().softmax(-1).cumsum(-1)
    found = torch.searchsorted(bounds, points.to(bounds.device) * bounds[..., -1:], right=True)
    return found[..., 0].clamp_max(logits.shape[-1] - 1)
