"""What parts share whose masks a small network makes, taught by a direction in the space of the learner's weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from foretrain.batch import Batch
from foretrain.designers.unet import UNet
from foretrain.errors import RequestError
from foretrain.hashing import seed_from
from foretrain.models.roles import select
from foretrain.section import Count, Number
from foretrain.steering._masked_views import MaskedViews
from foretrain.steering._masking import keep_penalty, total_variation
from foretrain.value.measuring import Direction, feedback_direction
from foretrain.vectors import Vector, cosine, cosine_slope, dot, norm

if TYPE_CHECKING:
    from foretrain.context import Context


class MaskDesign(MaskedViews):
    """A U-Net sees a global crop and says what of it to keep.

    It learns in meta steps: how does the gradient of the self-supervised loss, through the masks of the moment, lie to
    a direction in the space of some parameters? That gradient, differentiated once more, says how masks should change.
    The step's own views are made afterwards, by the designer as it has become, and are detached: the learner takes
    self-supervised steps only.
    """

    feedback: str
    """Name of the labelled images in the recipe's `feedback`."""
    every: Count = Field(4, gt=0)
    """The designer learns in one of this many steps."""
    parameters: str = "last:2+norms"
    """Parameters whose gradients are compared: `last:2+norms`, `all`, `re:...` and the like."""
    rows: Number = Field(0.25, gt=0, le=1)
    """Share of the batch's images that a meta step looks at, the first ones; they are differentiated in one pass."""
    items: Count = Field(32, gt=0)
    """Labelled images of a meta step, over all ranks; and as many others for the evaluator's own step."""
    alignment: Literal["dot", "cosine"] = "dot"
    """What is raised: the inner product with the feedback gradient (taken at length 1), or the cosine."""
    sparsity: Number = Field(0.13, ge=0)
    """Weight of (mean of a mask - `keep`)^2."""
    tv: Number = Field(0.14, ge=0)
    """Weight of the masks' total variation, mean |dx| + mean |dy|."""
    precondition: bool = False
    """Whether the feedback gradient is divided by the root of the optimizer's second moments: the value of a step of
    Adam rather than of plain gradient descent."""
    designer_lr: Number = Field(1.5e-4, gt=0)
    """Learning rate of the designer (AdamW without weight decay, constant)."""
    channels: Count = Field(16, gt=0, multiple_of=4)
    """Channels of the designer's first level."""
    depth: Count = Field(3, gt=0)
    """Levels of the designer; each after the first halves the sides and doubles the channels."""

    _set: Any = PrivateAttr(None)
    _names: list[str] = PrivateAttr(default_factory=list)
    _designer: Any = PrivateAttr(None)
    _optimizer: Any = PrivateAttr(None)
    _faulty: int | None = PrivateAttr(None)

    def setup(self, context: Context) -> None:
        """Build the designer and open the feedback.

        Raises:
            RequestError: the feedback has no labelled images or too few, the subset holds no parameter, or weights
                are sharded.
        """
        super().setup(context)
        if context.learner.sharded:
            raise RequestError(
                f"steering '{self.kind}' differentiates a gradient once more, which torch cannot do through weights "
                "that are sharded over ranks (FSDP2). Use `distributed: replicate`."
            )
        self._names = select(context.roles, self.parameters)
        self._set = context.feedback(self.feedback)
        if self._set.items < self.items:
            raise RequestError(
                f"steering '{self.kind}': feedback '{self.feedback}' has {self._set.items} labelled images to draw "
                f"from and a meta step should see {self.items}. Give it more images, or lower `items`."
            )
        config: Any = context.learner.model.config
        seed = seed_from(context.seed, self.kind, "designer")
        made = UNet(config.num_channels, self.channels, self.depth, start=self.keep, seed=seed)
        self._designer = made.to(context.device)
        self._optimizer = torch.optim.AdamW(self._designer.parameters(), lr=self.designer_lr, weight_decay=0.0)

    def step_kind(self, step: int) -> str:
        """Before masks begin, and then; among both are steps that teach the evaluator, and then the designer too."""
        kind = super().step_kind(step)
        return kind if step % self.every else {"plain": "evaluator", "masked": "meta"}[kind]

    def before_step(self, batch: Batch) -> None:
        """The evaluator's step, and once masks have begun the designer's, where they are due."""
        super().before_step(batch)
        self._faulty = None
        if batch.step % self.every:
            return
        # Both run in eval mode: nothing is drawn, and the step's own random numbers are what they would have been.
        self._set.adapt(batch.step, self.items)
        if batch.step >= self._start:
            self._learn(batch)

    def view(self, batch: Batch) -> Batch:
        """The batch with its global crops masked; as it is in the burn-in and after a meta step that failed."""
        return batch if batch.step == self._faulty else super().view(batch)

    def masks(self, images: Tensor, batch: Batch, rows: slice) -> Tensor:
        """What the designer says of each image."""
        made: Tensor = self._designer(images)
        return made

    def direction(self, step: int) -> Direction:
        """Where the gradient of the self-supervised loss is led to: along the feedback gradient, at length 1."""
        names, precondition = self._names, self.precondition
        return feedback_direction(self._context, self.feedback, step, self.items, names, precondition=precondition)

    def meta_gradient(self, batch: Batch, direction: Vector) -> tuple[list[Tensor], dict[str, float]]:
        """The gradient of the meta loss by the designer's parameters, over all ranks, and what it came with.

        The meta loss is minus the alignment plus the terms for size and smoothness of the masks. Its alignment is
        linear in the gradient of the self-supervised loss once its slope is known, so ranks only add up.

        Args:
            batch: prepared rows of this rank, unlabelled.
            direction: of unit length, over the names of the subset.

        Returns:
            Gradients in the order of the designer's parameters; the figures `value`, `cosine`, `gradient_norm`.
        """
        learner, group, designed = self._context.learner, self._context.group, list(self._designer.parameters())
        tokens = max(group.sum(batch["mask"].sum())[0], 1.0)
        images = batch["globals"].flatten(0, 1)
        with sdpa_kernel(SDPBackend.MATH), learner.exact(), learner.evaluating(), learner.autocast():
            masks = self._acting(self.masks(images, batch, slice(None)))
            views = self.seen(images, masks).unflatten(0, (batch.rows, -1))
            loss = self._loss(batch.with_(globals=views)) / tokens
            local = learner.derivative(loss, self._names)
            whole = {name: part.detach().clone() for name, part in local.items()}
            group.sum_tensors(whole.values())
            slope = direction if self.alignment == "dot" else cosine_slope(direction, whole)
            penalty = self.sparsity * keep_penalty(masks, self.keep) + self.tv * total_variation(masks)
            meta = penalty / group.world - inner(slope, local)
            gradients = [part.contiguous() for part in torch.autograd.grad(meta, designed)]
        group.sum_tensors(gradients)
        return gradients, {
            "value": dot(direction, whole),
            "cosine": cosine(direction, whole),
            "gradient_norm": norm(whole),
        }

    def state_dict(self) -> dict[str, Any]:
        """The designer and its optimizer, what the feedback set has learned, and the counts."""
        return {
            **super().state_dict(),
            "designer": self._designer.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "feedback": self._set.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        self._designer.load_state_dict(state["designer"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._set.load_state_dict(state["feedback"])

    def _learn(self, batch: Batch) -> None:
        found = self.direction(batch.step)
        rows = batch.take(slice(0, math.ceil(self.rows * batch.rows)))
        gradients, figures = self.meta_gradient(rows, found.vector)
        lengths = torch.stack([torch.linalg.vector_norm(part) for part in gradients])
        figures["designer_gradient_norm"] = float(torch.linalg.vector_norm(lengths))
        if not all(math.isfinite(value) for value in (found.loss, found.norm, *figures.values())):
            self._faulty = batch.step
            self.plain(batch, "the gradient of a meta step is not finite")
            return
        for name, value in figures.items():
            self.record(name, value)
        for parameter, gradient in zip(self._designer.parameters(), gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _loss(self, batch: Batch) -> Tensor:
        objective, model = self._context.objective, self._context.learner.model
        losses: Tensor = objective.losses(objective.forward(model, batch), batch)
        return losses.sum()


def inner(direction: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> Tensor:
    """The inner product of a direction and a gradient, differentiable by what the gradient depends on."""
    return torch.stack([(direction[name] * part).sum() for name, part in gradient.items()]).sum()
