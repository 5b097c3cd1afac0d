"""Does value foretell what a learner step does for the feedback?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PrivateAttr

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.gradients import mean_gradient
from foretrain.hashing import seed_from
from foretrain.models.roles import select
from foretrain.parts import Facts
from foretrain.probes._windows import drawn, windows_ahead
from foretrain.probes.base import Probe
from foretrain.section import Count, Number
from foretrain.vectors import added, dot, norm

if TYPE_CHECKING:
    from foretrain.context import Context


class OneStep(Probe):
    """Predicted against realised decrease of the feedback loss, for steps on single mini-batches of the stream.

    Each mini-batch is of one domain, the domains in turn, and of windows that training comes to after the next step.
    From today's weights the learner takes one step of gradient descent on its plain loss, over all trained parameters
    and always of the same length, `eta` times the weights' norm. Predicted is the step times its inner product with
    the feedback gradient on `parameters`, from one half of the feedback items; realised is how much lower the loss of
    the other half is. The weights are put back from a saved copy.

    Figures: `correlation` (Pearson's, over the mini-batches; 0 where one side does not vary), `slope` (of realised on
    predicted, 1 where value says it all), and the means `predicted` and `realised`, in nats.
    """

    kind: Literal["one_step"] = "one_step"
    facts: ClassVar[Facts] = Facts(
        paper="Value-Based Pre-Training with Downstream Feedback",
        arxiv="2601.22108",
        year=2026,
        answers="does value foretell what a learner step does for the feedback?",
        overhead="`pairs` gradients and as many feedback losses each time; not counted in the budget",
    )

    feedback: str
    """Name of a feedback set of the recipe; its first half gives the gradient, its second half the losses."""
    parameters: str = "all"
    """Parameters that the prediction knows of, as in the steering that is looked at: `last:2` shows what leaving out
    the others costs."""
    pairs: Count = Field(16, gt=2)
    """Mini-batches."""
    rows: Count = Field(4, gt=0)
    """Windows of a mini-batch, over all ranks."""
    items: Count = Field(64, gt=0)
    """Feedback items for the gradient, and as many others for the losses; at most a half of the set each."""
    eta: Number = Field(1e-3, gt=0, lt=1)
    """Length of a step, as a share of the norm of the weights."""

    _names: list[str] = PrivateAttr(default_factory=list)
    _halves: Any = PrivateAttr(None)

    def setup(self, context: Context) -> None:
        """Find the parameters and the feedback.

        Raises:
            RequestError: there is no such set, it cannot be halved, no such parameters, or the run is not of text.
        """
        if getattr(type(context.objective), "modality", "text") != "text":
            raise RequestError(
                f"probe '{self.kind}' takes steps on windows of text, and objective '{context.objective.kind}' has "
                "none; leave it out, or use it with an objective that predicts text."
            )
        self._halves = context.feedback(self.feedback).halves()
        self._names = select(context.roles, self.parameters)

    def measure(self, context: Context) -> dict[str, float]:
        """See the class."""
        steering, seeing = self._halves
        down, _ = steering.gradient(context.stream.step, self.items, self._names)
        before = seeing.loss(context.stream.step, self.items)
        weights = {name: weight.detach() for name, weight in context.weights.items()}
        length = self.eta * norm(weights)
        predicted, realised = [], []
        for batch in self.batches(context):
            own = mean_gradient(context, batch)
            size = norm(own)
            step = length / size if size > 0 else 0.0
            predicted.append(step * dot(down, {name: own[name] for name in self._names}))
            with context.learner.at(added(weights, own, -step)):
                realised.append(before - seeing.loss(context.stream.step, self.items))
        return figures(predicted, realised)

    def batches(self, context: Context) -> list[Batch]:
        """This rank's share of every mini-batch, prepared; a row that fills up a rank's share counts nothing."""
        group, domains = context.group, drawn(context)
        share = -(-self.rows // group.world)
        made = []
        for pair in range(self.pairs):
            turn, which = divmod(pair, len(domains))
            mine = np.arange(group.rank * share, (group.rank + 1) * share)
            numbers = turn * self.rows + np.minimum(mine, self.rows - 1)
            seed = seed_from(context.seed, self.kind, context.stream.step, pair)
            batch = windows_ahead(context, domains[which], numbers, seed)
            counts = torch.from_numpy(mine < self.rows)[:, None].to(context.device)
            made.append(batch.with_(mask=batch["mask"] & counts))
        return made


def figures(predicted: Sequence[float], realised: Sequence[float]) -> dict[str, float]:
    """Correlation and slope of realised on predicted, and their means; those that are no numbers are left out."""
    x, y = np.asarray(predicted), np.asarray(realised)
    a, b = x - x.mean(), y - y.mean()
    both, square = math.sqrt(float(a @ a) * float(b @ b)), float(a @ a)
    found: dict[str, Any] = {
        "correlation": float(a @ b) / both if both != 0 else 0.0,
        "slope": float(a @ b) / square if square != 0 else 0.0,
        "predicted": x.mean(),
        "realised": y.mean(),
    }
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}
