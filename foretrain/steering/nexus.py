"""Walk through the sources of a batch one after the other, and hand the whole walk to the optimizer as its gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.section import Count, Number
from foretrain.steering.base import Gradient, GradientOf, Steering
from foretrain.vectors import added, norm, scaled

if TYPE_CHECKING:
    from foretrain.context import Context


class Nexus(Steering):
    """Inner steps of normalised gradient descent, one per source, whose sum is the gradient of the optimizer.

    The batch is taken apart into K groups of rows, in an order that is drawn anew at each step. From today's weights
    theta_0 it goes theta_i = theta_(i-1) - s * g_i / |g_i|, g_i the gradient of group i's mean loss at theta_(i-1) and
    | | the Euclidean norm over all parameters. The optimizer gets the sum of the g_i / |g_i|, which is
    (theta_0 - theta_K) / s, summed as it comes; today's weights are put back from a saved copy. Every row is
    differentiated once. Averaged over orders, what the inner steps add is, for steps that are not normalised and to
    first order in s, an ascent of the inner products of the groups' gradients, and with normalised ones, roughly, of
    their cosines: it draws the sources' minima together.

    The length of an inner step: K * s is `gamma` times the length of the optimizer's last update, as it was realised
    (the change of all weights in the last step, weight decay included), so that it follows the learning rate. The first
    step has no last one, and makes no inner steps. At `gamma` 0 all groups are differentiated at today's weights: the
    control, in which sources count alike whatever the size of their gradients, and nothing else differs from plain
    training.

    The sum is scaled by the mean of the |g_i| (by loss tokens) over K: where the groups' gradients are of one length,
    that is as long as the plain gradient. Clipping, the guard and the optimizer's moments so see what they see in plain
    training, where a sum of unit vectors would always be clipped.

    Not normalised, it is Reptile inside a batch (as Fish, arXiv 2104.09937): g_i is the group's share of the batch's
    gradient, and an inner step has the length of that share, all of them together again about `gamma` of an update. At
    `gamma` 0 that is the plain gradient.

    The step's loss is that of each row where the walk came by. Inner steps are a share of a learning rate: in `bf16`
    and `autocast` much of them is rounded away.

    Figures: `cosine`, the mean cosine of the directions of two groups, where they are normalised.
    """

    kind: Literal["nexus"] = "nexus"
    facts: ClassVar[Facts] = Facts(
        paper="Nexus: Same Pretraining Loss, Better Downstream Generalization via Common Minima",
        arxiv="2604.09258",
        year=2026,
        answers="update: at which weights is each source of a batch differentiated, and how long does it count?",
        overhead="three copies of the weights, and some passes over them for each source; beside parts that decide "
        "targets or weights, one pass of the batch without gradients",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"groups": 1, "normalise": False}

    groups: Literal["domain"] | Annotated[Count, Field(gt=0)] = "domain"
    """What the batch is taken apart into: its domains, or so many runs of successive rows."""
    gamma: Number = Field(0.3, ge=0)
    """Length of all inner steps of a step together, as a share of the optimizer's last update; usual: 0.1 to 1."""
    normalise: bool = True
    """Whether every inner step has the same length; else that of the group's part of the gradient."""

    _context: Any = PrivateAttr(None)
    _batch: Any = PrivateAttr(None)
    _before: dict[str, Tensor] = PrivateAttr(default_factory=dict)
    _update: float = PrivateAttr(0.0)
    _lengths: float = PrivateAttr(0.0)

    def setup(self, context: Context) -> None:
        """See that there is something to walk through.

        Raises:
            RequestError: there is one domain, or more groups than rows.
        """
        rows = context.stream.rows
        if self.groups == "domain" and len(context.stream.domains) == 1:
            raise RequestError(
                "steering 'nexus' walks through the domains of each batch, and the corpus has one; give it several, or "
                "say `groups: 4` to walk through runs of successive rows."
            )
        if self.groups != "domain" and self.groups > rows:
            raise RequestError(
                f"steering 'nexus': groups ({self.groups}) should be at most the {rows} rows of a step (batch.tokens / "
                "model.context)."
            )
        if self.gamma > 0 and context.learner.precision != "fp32":
            context.warn(
                f"steering 'nexus' makes inner steps that are small against the weights, and precision "
                f"{context.learner.precision} rounds much of them away; precision: fp32 keeps them."
            )
        self._context, self._before, self._update, self._lengths = context, {}, 0.0, 0.0

    def view(self, batch: Batch) -> Batch:
        """See which rows are of which group; what a skipped step left behind is no update."""
        self._batch, self._before = batch, {}
        return batch

    def gradient(
        self, of: GradientOf, group: slice | Tensor | None = None, at: Mapping[str, Tensor] | None = None
    ) -> Gradient:
        """The sum of the groups' gradients along the walk."""
        shares, rows = self._walk(group)
        if not rows:
            return of(group, at)
        start = {name: weight.detach() for name, weight in self._context.weights.items()} | dict(at or {})
        if self.gamma > 0 and not self._before:
            self._before = {name: weight.detach().clone() for name, weight in self._context.weights.items()}
        expected = float(len(rows)) if self.normalise else self._lengths
        stride = self.gamma * self._update / expected if expected > 0 else 0.0
        position, lengths, summed = at, list[float](), dict[str, Tensor]()
        for number, (share, index) in enumerate(zip(shares, rows, strict=True)):
            own = of(index, position)
            lengths.append(share * norm(own))
            factor = share if not self.normalise else share / lengths[-1] if lengths[-1] > 0 else 0.0
            for name, tensor in own.items():
                summed[name] = summed[name].add_(tensor, alpha=factor) if name in summed else tensor * factor
            if self.gamma > 0 and number < len(rows) - 1:
                here = start if position is None else position
                position = {**here, **added(here, own, -stride * factor)}
        self._lengths = sum(lengths)
        if not self.normalise:
            return summed
        self._record_cosine(summed, sum(length > 0 for length in lengths))
        return scaled(summed, self._lengths / len(rows))

    def _walk(self, group: slice | Tensor | None) -> tuple[list[float], list[Tensor]]:
        """The groups in this step's order: the share of the loss tokens, and this rank's rows; none without tokens."""
        batch, mask = self._batch, self._batch["mask"]
        rows = torch.arange(batch.rows, device=mask.device)
        rows = rows if group is None else rows[group]
        numbers, count = batch["domain"].to(mask.device), len(batch.domains)
        if self.groups != "domain":
            # By place in the whole step, so that groups are the same for any number of ranks.
            places = (batch.positions - batch.step * self._context.stream.rows).to(mask.device)
            numbers, count = places * self.groups // self._context.stream.rows, self.groups
        members = [rows[numbers[rows] == number] for number in range(count)]
        tokens = self._context.group.sum(*(mask[index].sum() for index in members))
        total = sum(tokens)
        generator = torch.Generator().manual_seed(seed_from(self._context.seed, self.kind, batch.step))
        order = [number for number in torch.randperm(count, generator=generator).tolist() if tokens[number] > 0]
        return [tokens[number] / total for number in order], [members[number] for number in order]

    def _record_cosine(self, summed: Gradient, count: int) -> None:
        """From |sum of unit vectors|^2 = count + the sum of the cosines of all ordered pairs."""
        if count > 1:
            self._context.record(f"{self.kind}/cosine", (norm(summed) ** 2 - count) / (count * (count - 1)))

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Measure how long the optimizer's update was."""
        if self._before:
            weights = self._context.weights
            self._update = norm({name: weights[name].detach() - before for name, before in self._before.items()})
            self._before = {}

    def state_dict(self) -> dict[str, Any]:
        """Lengths of the last update and of the groups' last gradients."""
        return {"update": self._update, "lengths": self._lengths}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._update, self._lengths, self._before = state["update"], state["lengths"], {}
