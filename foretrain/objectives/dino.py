"""Self-distillation of images: views of one image should get the prototypes that an averaged teacher gives them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn
from torch.func import functional_call

from foretrain.augment.colour import kornia_enhance
from foretrain.augment.views import Augmentation, make_views
from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.objectives._projection import Projection
from foretrain.objectives.base import Objective, Targets
from foretrain.objectives.outputs import Outputs
from foretrain.parts import Facts
from foretrain.section import Count, Number
from foretrain.spans import Span, span

if TYPE_CHECKING:
    from foretrain.context import Context

HEAD = "objective.0."
"""What the names of the head's parameters begin with among the trained ones."""


class Scores(Outputs):
    """Cosines of views with prototypes.

    Attributes:
        student: float32 [rows, views, prototypes], the global crops first.
        teacher: float32 [rows, global crops, prototypes], without gradient by any weight.
    """

    def __init__(self, student: Tensor, teacher: Tensor) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher


class Dino(Objective):
    """DINO: the student's view of an image predicts the teacher's distribution over prototypes for another view of it.

    An item's loss is the mean, over all pairs of a teacher's global crop and another of the student's crops (global or
    local), of the cross-entropy between softmax((teacher - centre) / teacher_temperature) and
    softmax(student / student_temperature), in nats. The teacher is a running average of the trained weights, the centre
    a running mean of the teacher's scores over the global batch; both move after each step. The features of an image
    are those of its class token.

    Figures: `dino/teacher_entropy` (mean entropy of the teacher's distributions, in nats; log(prototypes) where it has
    collapsed to uniform ones), `dino/teacher_kl` (KL divergence from the batch's mean distribution to the uniform one;
    log(prototypes) where all images share one prototype).
    """

    kind: Literal["dino"] = "dino"
    facts: ClassVar[Facts] = Facts(
        paper="Emerging Properties in Self-Supervised Vision Transformers",
        arxiv="2104.14294",
        year=2021,
        answers="what is predicted? the prototypes that an averaged teacher gives another view of the image",
        overhead="a forward pass of the teacher over the global crops, and its copy of the weights",
    )
    modality: ClassVar[str] = "image"
    family: ClassVar[Literal["decoder", "encoder", "vision", "any"]] = "vision"

    global_crops: Count = Field(2, ge=2, le=8)
    """Large crops of each image, which both student and teacher see."""
    local_crops: Count = Field(4, ge=0, le=32)
    """Small crops of each image, which the student alone sees; the paper has 6 to 10."""
    global_size: Count | None = Field(None, gt=1)
    """Side of a global crop, in pixels; unset: the image size of the model."""
    local_size: Count | None = Field(None, gt=1)
    """Side of a local crop, in pixels; unset: half of a global one, in whole patches."""
    global_scale: tuple[Number, Number] = (0.4, 1.0)
    """Range of a global crop's area, as a share of the image's."""
    local_scale: tuple[Number, Number] = (0.05, 0.4)
    """Range of a local crop's area, as a share of the image's."""
    augmentation: Augmentation = Augmentation()
    """How views differ beside their crops."""
    prototypes: Count = Field(1024, ge=2)
    """Width of the head's output; 8192 to 65536 for natural images."""
    hidden: Count = Field(512, ge=1)
    """Width of the head's hidden layers; 2048 in the paper."""
    bottleneck: Count = Field(256, ge=1)
    """Width of the unit vector before the last layer."""
    layers: Count = Field(3, ge=1, le=8)
    """Linear layers of the head before the last one."""
    student_temperature: Number = Field(0.1, gt=0, le=1)
    """Divides the student's cosines."""
    teacher_temperature: Number = Field(0.04, gt=0, le=1)
    """Divides the teacher's cosines; below the student's, so that its distributions are sharper."""
    warmup_temperature: Number | None = Field(None, gt=0, le=1)
    """Teacher temperature at the start, which then moves linearly; unset: the same all along."""
    warmup: Span = Field(0.3, ge=0)
    """How long that takes: a share of the run, or steps."""
    teacher_momentum: Number = Field(0.996, ge=0, lt=1)
    """Share of the teacher kept at each step, at the start; it rises to 1 along a cosine."""
    centre_momentum: Number = Field(0.9, ge=0, le=1)
    """Share of the centre kept at each step."""
    freeze_last_layer: Span = Field(0.01, ge=0)
    """How long the last layer stays as it is: a share of the run, or steps."""

    _context: Any = PrivateAttr(None)
    _head: Any = PrivateAttr(None)
    _sizes: tuple[int, int] = PrivateAttr((0, 0))
    _teacher: dict[str, Tensor] = PrivateAttr(default_factory=dict)
    _centre: Any = PrivateAttr(None)
    _step: int = PrivateAttr(0)
    _seen: dict[int, Tensor] = PrivateAttr(default_factory=dict)
    _seen_step: int = PrivateAttr(-1)

    def setup(self, context: Context) -> None:
        """See the base.

        Raises:
            RequestError: crops that do not fit the patches, a model that is sharded, or no kornia.
        """
        kornia_enhance()
        if context.recipe.distributed == "shard" and context.group.world > 1:
            raise RequestError(
                "objective 'dino' keeps a whole teacher on each process and cannot train a sharded model; write "
                "`distributed: replicate`."
            )
        config: Any = context.model.config
        self._context, self._sizes = context, self._crop_sizes(int(config.image_size), int(config.patch_size))
        self._head = Projection(
            config.hidden_size, self.hidden, self.layers, self.bottleneck, self.prototypes, context.seed
        )
        self._centre = torch.zeros(self.prototypes, device=context.device)

    def _crop_sizes(self, image: int, patch: int) -> tuple[int, int]:
        large = self.global_size or image
        small = self.local_size or max(patch, large // 2 // patch * patch)
        for name, size in (("global_size", large), ("local_size", small)):
            if size % patch:
                raise RequestError(
                    f"objective.{name}: {size} pixels are not whole patches of {patch} (model.patch); the nearest "
                    f"sizes are {size // patch * patch or patch} and {-(-size // patch) * patch}."
                )
        return large, small

    def modules(self) -> Iterable[nn.Module]:
        """The student's head."""
        return (self._head,)

    def step_kind(self, step: int) -> str:
        """Whether the last layer is still frozen."""
        return "frozen_last_layer" if self._frozen(step) else ""

    def _frozen(self, step: int) -> bool:
        return step < span(self.freeze_last_layer, self._context.total_steps)

    def prepare(self, batch: Batch) -> Batch:
        """Add `globals` and `locals` float32 [rows, crops, channels, side, side] and `mask` bool [rows, 1]."""
        settings, first = self.augmentation, np.arange(self.global_crops) == 0
        views = {
            "globals": make_views(
                batch,
                "globals",
                self.global_crops,
                self._sizes[0],
                self.global_scale,
                settings,
                np.where(first, settings.blur_first, settings.blur_second),
                np.where(first, 0.0, settings.solarise),
            ),
            "locals": make_views(
                batch,
                "locals",
                self.local_crops,
                self._sizes[1],
                self.local_scale,
                settings,
                np.full(self.local_crops, settings.blur_local),
                np.zeros(self.local_crops),
            ),
        }
        return batch.with_(**views, mask=torch.ones(batch.rows, 1, dtype=torch.bool))

    def forward(self, model: nn.Module, batch: Batch) -> Scores:
        """Student and teacher on a prepared batch.

        What the centre then learns from are the teacher's scores of the rows that the model was trained on in this
        step: those of the last pass over each row in training mode with gradients.
        """
        teacher = self._teacher_scores(model, batch["globals"])
        if model.training and torch.is_grad_enabled():
            self._remember(batch, teacher.detach())
        frozen = self._frozen(self._step)
        views = [batch[name] for name in ("globals", "locals") if batch[name].shape[1]]
        student = [
            self._head(_features(model, view.flatten(0, 1)), frozen).unflatten(0, view.shape[:2]) for view in views
        ]
        return Scores(torch.cat(student, 1), teacher)

    def _remember(self, batch: Batch, teacher: Tensor) -> None:
        if batch.step != self._seen_step:  # what a skipped step left
            self._seen.clear()
        self._seen_step = batch.step
        self._seen.update(zip(batch.positions.tolist(), teacher, strict=True))

    def _teacher_scores(self, model: nn.Module, views: Tensor) -> Tensor:
        # The teacher's weights have no gradient, so nothing is kept here for a backward pass; but where views have one
        # (of masks that are learned), the targets depend on them too.
        weights = self._own_teacher()
        features = _features(model, views.flatten(0, 1), _computed(model, weights, ""))
        scores: Tensor = functional_call(self._head, _computed(self._head, weights, HEAD), (features,))
        return scores.unflatten(0, views.shape[:2])

    def _own_teacher(self) -> dict[str, Tensor]:
        # Made at its first use and not in `setup`: the model may be given other weights to start from in between.
        if not self._teacher:
            self._teacher = {name: weight.detach().clone() for name, weight in self._context.weights.items()}
        return self._teacher

    def losses(self, outputs: Outputs, batch: Batch, targets: Targets | None = None) -> Tensor:
        """Losses float32 [rows, 1] in nats; `targets` are of text and have no meaning here."""
        assert isinstance(outputs, Scores)
        student = (outputs.student / self.student_temperature).log_softmax(-1)
        crossed = -torch.einsum("rtk,rsk->rts", self._teacher_distributions(outputs.teacher), student)
        others = 1 - torch.eye(crossed.shape[1], crossed.shape[2], device=crossed.device)
        return (crossed * others).sum((1, 2))[:, None] / others.sum() * batch["mask"]

    def _teacher_distributions(self, scores: Tensor) -> Tensor:
        return ((scores - self._centre) / self._temperature()).softmax(-1)

    def _temperature(self) -> float:
        start, end = self.warmup_temperature, self.teacher_temperature
        length = span(self.warmup, self._context.total_steps)
        if start is None or self._step >= length:
            return end
        return start + (end - start) * self._step / length

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move teacher and centre."""
        context, teacher = self._context, self._own_teacher()
        progress = min(1.0, step / max(context.total_steps, 1))
        kept = 1 - (1 - self.teacher_momentum) * (math.cos(math.pi * progress) + 1) / 2
        torch._foreach_lerp_(
            list(teacher.values()), [context.weights[name].detach() for name in teacher], weight=1 - kept
        )
        self._move_centre()
        self._step = step + 1

    def _move_centre(self) -> None:
        rows = [self._seen[position] for position in sorted(self._seen)]
        self._seen.clear()
        scores = torch.stack(rows).flatten(0, 1) if rows else self._centre.new_zeros(0, self.prototypes)
        distributions = self._teacher_distributions(scores)
        entropy = torch.special.entr(distributions).sum()
        count = torch.tensor(float(len(scores)), device=self._centre.device)
        total, usage = scores.sum(0), distributions.sum(0)
        self._context.group.sum_tensors([total, usage, entropy, count])
        if count == 0:
            return
        self._centre.lerp_(total / count, 1 - self.centre_momentum)
        self._context.record("dino/teacher_entropy", float(entropy / count))
        uniform = math.log(self.prototypes) - torch.special.entr(usage / count).sum()
        self._context.record("dino/teacher_kl", float(uniform))

    def state_dict(self) -> dict[str, Any]:
        """Teacher (empty before its first use), centre, and how many steps they have made."""
        return {"teacher": dict(self._teacher), "centre": self._centre, "step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        device = self._context.device
        self._teacher = {name: weight.to(device, copy=True) for name, weight in state["teacher"].items()}
        self._centre, self._step = state["centre"].to(device, copy=True), state["step"]
        self._seen.clear()


def _features(model: nn.Module, pixels: Tensor, weights: dict[str, Tensor] | None = None) -> Tensor:
    """Class token [images, width] after the last normalisation, at other weights where some are given."""
    dtype = next(model.parameters()).dtype
    inputs = {"pixel_values": pixels.to(dtype), "interpolate_pos_encoding": True}
    found = model(**inputs) if weights is None else functional_call(model, weights, (), inputs)
    states: Tensor = found.last_hidden_state
    return states[:, 0]


def _computed(module: nn.Module, weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those weights that are the module's, in the precision that it computes in."""
    named = {f"{prefix}{name}": (name, parameter.dtype) for name, parameter in module.named_parameters()}
    return {named[name][0]: weight.to(named[name][1]) for name, weight in weights.items() if name in named}
