"""What all designers of soft targets share: the meta step, the targets they give, and their state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.designers.transformer import PAPER, Size, TransformerDesigner, mixed_target, scaled_size
from foretrain.errors import RequestError, unknown_name
from foretrain.gradients import mean_gradient
from foretrain.models.roles import select
from foretrain.objectives.base import Targets
from foretrain.section import Count, Number
from foretrain.spans import Span, lead
from foretrain.steering._candidates import check_candidates, rival_spread
from foretrain.steering.base import Gradient, GradientOf, Steering
from foretrain.value.measuring import Direction, feedback_direction
from foretrain.value.picture import value_picture
from foretrain.value.primitive import token_values
from foretrain.vectors import Vector, cosine, cosine_slope, norm

if TYPE_CHECKING:
    from foretrain.context import Context
    from foretrain.objectives.outputs import Outputs
    from foretrain.pictures import Picture

_NEVER = 1 << 62
"""A step that no run gets to."""


class TargetDesign(Steering):
    """A designer rewrites next-token targets; it learns to raise the value of what the learner then does."""

    modality: ClassVar[str] = "text"

    feedback: str | dict[str, str]
    """The feedback set; or one for each domain: `{DOMAIN: SET}` aligns each domain's rows with its own."""
    every: Count = Field(8, gt=0)
    """Learner steps from one update of the designer to the next."""
    designer: Literal["auto", "paper"] | Size = "auto"
    """`auto`: at most a fifth of the learner; `paper`: 6 layers of 256 features; or a shape of its own."""
    beliefs: bool = False
    """Whether the designer also reads what the learner makes of the candidates (ours): it learns sooner, and may settle
    for what it reads there where it should learn what the text says."""
    candidates: Count | None = Field(None, gt=1)
    """Targets that a token can get, the true one included; unset: 16, or 64 with the paper's designer."""
    alpha_max: Number = Field(0.5, ge=0, le=1)
    """Most weight that the designed distribution can get beside the true token."""
    opening: Number = Field(0.5, gt=0, lt=1)
    """The share of `alpha_max` that is given at the start, before the designer has learned anything (the paper does not
    say)."""
    designer_lr: Number | None = Field(None, gt=0)
    """Learning rate of the designer (AdamW, constant); unset: 1e-3, or 1e-4 with the paper's designer."""
    alignment: Literal["dot", "cosine"] = "dot"
    """What is maximised: the inner product of the task's gradient with the feedback gradient at length 1, or their
    cosine, which does not reward long gradients and costs a backward pass more."""
    parameters: str = "last:2"
    """The weights that gradients are compared on; see `foretrain.models.roles.select`."""
    rows: Number = Field(0.25, gt=0, le=1)
    """Share of the batch's rows that a meta step looks at."""
    items: Count = Field(16, gt=0)
    """Feedback items of a meta step, over all ranks."""
    burn_in: Span = Field(0.05, ge=0)
    """Steps at the start without a designer: a share of the run, or steps."""
    until: Span | None = Field(None, gt=0)
    """From here on true tokens are the targets again (ours, not measured yet): a share of the run, or a
    step."""
    penalty: Number = Field(0.0, ge=0)
    """Price of moving weight away from the true token, in root mean squares of what rivals are worth more or less than
    it in the batch. Value is of first order and knows no cost of a moved target; most differences are chance."""
    precondition: bool = False
    """Whether the feedback gradient is divided by the root of the optimizer's second moments: the value of a step of
    Adam rather than of plain gradient descent."""

    _context: Any = PrivateAttr(None)
    _names: list[str] = PrivateAttr(default_factory=list)
    _designer: Any = PrivateAttr(None)
    _optimizer: Any = PrivateAttr(None)
    _direction: Vector | None = PrivateAttr(None)
    _start: int = PrivateAttr(0)
    _end: int = PrivateAttr(0)
    _fallbacks: int = PrivateAttr(0)

    # Setting up ----------------------------------------------------------------------------------------------------

    @property
    def choices(self) -> int:
        """Candidates a token."""
        return self.candidates or (64 if self.designer == "paper" else 16)

    def sets(self) -> dict[str | None, str]:
        """Feedback sets by domain; a single one stands for all domains (None)."""
        return {None: self.feedback} if isinstance(self.feedback, str) else dict(self.feedback.items())

    def setup(self, context: Context) -> None:
        """Build the designer and read the feedback.

        Raises:
            RequestError: no such feedback, domain or parameters; more candidates than the vocabulary has.
        """
        check_candidates(self.kind, self.choices, context)
        vocabulary = context.tokenizer.vocabulary
        for domain in self.sets():
            if domain is not None and domain not in context.recipe.corpus:
                raise RequestError(
                    f"steering '{self.kind}': feedback: {unknown_name('domain', domain, context.recipe.corpus)}"
                )
        for name in self.sets().values():
            context.feedback(name)
        self._context, self._names = context, select(context.roles, self.parameters)
        size = self._size(context, vocabulary)
        window = context.objective.window(context.length)
        made = TransformerDesigner(
            size,
            vocabulary,
            window,
            candidates=self.choices,
            largest=self.alpha_max,
            opening=self.opening,
            beliefs=self.beliefs,
            seed=context.seed,
        ).to(context.device)
        self._designer = made
        rate = self.designer_lr or (1e-4 if self.designer == "paper" else 1e-3)
        self._optimizer = torch.optim.AdamW(made.parameters(), lr=rate, weight_decay=0.0)
        total = context.total_steps
        self._start, self._fallbacks = lead(self.burn_in, total), 0
        self._end = _NEVER if self.until is None else lead(self.until, total)

    def _size(self, context: Context, vocabulary: int) -> Size:
        if isinstance(self.designer, Size):
            return self.designer
        if self.designer == "paper":
            return PAPER
        learner = sum(weight.numel() for weight in context.weights.values())
        return scaled_size(learner, vocabulary)

    def step_kind(self, step: int) -> str:
        if not self._designs(step):
            return "plain"
        return "meta" if self._meta(step) else "designed"

    def _designs(self, step: int) -> bool:
        return self._start <= step < self._end

    def _meta(self, step: int) -> bool:
        return self._designs(step) and (step - self._start) % self.every == 0

    # The meta step -------------------------------------------------------------------------------------------------

    def direction(self, name: str, step: int) -> Direction:
        """Where the task's gradient should point: the feedback gradient at length 1."""
        return feedback_direction(self._context, name, step, self.items, self._names, precondition=self.precondition)

    def before_step(self, batch: Batch) -> None:
        self._direction = None
        if not self._meta(batch.step):
            return
        record, group = self._context.record, self._context.group
        figures = torch.zeros(5, dtype=torch.float64, device=self._context.device)
        self._optimizer.zero_grad()
        parts = list(self._parts(batch))
        for rows, name in parts:
            found = self.direction(name, batch.step)
            self._direction = self._direction or found.vector
            figures += self._learn(rows, found.vector, 1 / len(parts))
        count, value, alpha, entropy, moved = group.sum(*figures)
        for label, figure in (("value", value), ("alpha", alpha), ("target_entropy", entropy), ("moved", moved)):
            record(f"{self.kind}/{label}", figure / max(count, 1.0))
        self._update()
        if self._fallbacks:
            record(f"{self.kind}/fallbacks", float(self._fallbacks))

    def _parts(self, batch: Batch) -> Iterator[tuple[Batch, str]]:
        """The rows of a meta step, with the feedback they are aligned with."""
        # Rows of a batch come from the domains in turn, so a stretch of them has all in the shares of the mixture.
        for domain, name in self.sets().items():
            rows = torch.arange(batch.rows, device=batch["mask"].device)
            if domain is not None:
                rows = rows[batch["domain"] == batch.domains.index(domain)]
            # Every rank takes part in every pass, if need be with a row that counts nothing.
            chosen = rows[: max(1, math.ceil(self.rows * len(rows)))]
            if len(chosen):
                yield batch.take(chosen), name
            else:
                empty = batch.take(slice(0, 1))
                yield empty.with_(mask=torch.zeros_like(empty["mask"])), name

    def _learn(self, batch: Batch, toward: Vector, share: float) -> Tensor:
        """Add the designer's gradient on some rows; returns sums over tokens: count, value, alpha, entropy, moved."""
        context, mask = self._context, batch["mask"]
        total = max(context.group.sum(mask.sum())[0], 1.0)
        if self.alignment == "cosine":
            toward = self._cosine_direction(batch, toward)
        values = token_values(context, batch, toward, candidates=self.choices)
        price = self.penalty * rival_spread(values.candidates, mask, context.group) if self.penalty else 0.0
        with torch.enable_grad():
            r, alpha = self._designer(
                batch["inputs"], batch["labels"], values.ids, values.log_probabilities, batch.get("documents")
            )
            q = mixed_target(r, alpha)
            value = ((q * values.candidates).sum(-1) * mask).sum()
            moved = ((1 - q[..., 0]) * mask).sum()
            (-share * (value - price * moved) / total).backward()
        entropy = -(torch.special.xlogy(q, q).sum(-1) * mask).sum()
        sums = [mask.sum(), value, (alpha * mask).sum(), entropy, moved]
        return torch.stack([figure.detach().double() for figure in sums])

    def _cosine_direction(self, batch: Batch, toward: Vector) -> Vector:
        """What an inner product must be taken with for the gradient of the cosine."""
        return cosine_slope(toward, mean_gradient(self._context, batch, self._names, self.targets))

    def _update(self) -> None:
        """Move the designer by its gradient over all ranks, unless that is not finite."""
        parameters = list(self._designer.parameters())
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        self._context.group.sum_tensors(gradients)
        if all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
            self._optimizer.step()
        else:
            self._fall_back("its gradient was not finite, so it was left as it was")

    def _fall_back(self, why: str) -> None:
        self._fallbacks += 1
        self._context.warn(
            f"steering '{self.kind}': the designer gave no use in a step: {why}; `fallbacks` counts these"
        )

    # What the learner gets -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def targets(self, outputs: Outputs, batch: Batch) -> Targets | None:
        if not self._designs(batch.step):
            return None
        ids, known = outputs.candidates(batch["labels"], self.choices)
        q = self._designed(batch, ids, known)
        finite = torch.isfinite(q).all(-1, keepdim=True)
        if not bool(finite.all()):
            self._fall_back("its output was not finite, so true tokens were the targets")
            onehot = torch.zeros_like(q)
            onehot[..., 0] = 1
            q = torch.where(finite, q, onehot)
        return Targets(ids, q)

    def _designed(self, batch: Batch, ids: Tensor, known: Tensor) -> Tensor:
        found: Tensor = self._designer.targets(batch["inputs"], batch["labels"], ids, known, batch.get("documents"))
        return found

    def gradient(
        self, of: GradientOf, group: slice | Tensor | None = None, at: Mapping[str, Tensor] | None = None
    ) -> Gradient:
        """The gradient as it is; at a meta step it is seen how it lies to the feedback's."""
        found = of(group, at)
        if group is None and at is None and self._direction is not None:
            own = {name: found[name] for name in self._direction if name in found}
            if len(own) == len(self._direction):
                self._context.record(f"{self.kind}/gradient_norm", norm(own))
                self._context.record(f"{self.kind}/cosine", cosine(own, self._direction))
            self._direction = None
        return found

    def picture(self, batch: Batch) -> Picture | None:
        """Tokens by their value for the feedback, and the targets that the designer makes of them."""
        context = self._context
        found = self.direction(next(iter(self.sets().values())), context.total_steps)
        values = token_values(context, batch, found.vector, candidates=self.choices)
        with torch.no_grad():
            q = self._designed(batch, values.ids, values.log_probabilities)
        return value_picture(context, batch, values, title=f"What {self.kind} makes of the text", targets=q)

    # State ---------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the designer begins and ends, the designer and its optimizer, and how often it fell back."""
        return {
            "start": self._start,
            "end": self._end,
            "designer": self._designer.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "fallbacks": self._fallbacks,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._designer.load_state_dict(state["designer"])
        self._optimizer.load_state_dict(state["optimizer"])
        # A budget in minutes may have moved the run's end since; what was planned at the start holds.
        self._start, self._end, self._fallbacks = state["start"], state["end"], state["fallbacks"]
