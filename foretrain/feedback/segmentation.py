"""Feedback in labelled images: the class of every pixel, told from the features of its patch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from foretrain.augment.normalise import normalise, unit
from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.feedback.base import Feedback, FeedbackSet
from foretrain.hashing import seed_from
from foretrain.images.inputs import read_images
from foretrain.images.item import ImageItem
from foretrain.parts import Facts
from foretrain.section import Count, Number
from foretrain.vectors import Vector

if TYPE_CHECKING:
    from foretrain.context import Context

NOWHERE = -100
"""The class of pixels that do not count."""


class SegmentationFeedback(Feedback):
    """Images with a class per pixel; the loss is the cross-entropy of each pixel, told by a linear head.

    The head is the set's own. It learns on one part of the images with the model as it is, and the gradient by the
    model's weights comes from the others, which the head never saw. Class logits of patches are enlarged to pixels.
    """

    kind: Literal["segmentation"] = "segmentation"
    facts: ClassVar[Facts] = Facts(answers="what should the run become good at? telling the class of every pixel")

    modality: ClassVar[str] = "image"

    meta: Number = Field(0.5, gt=0, lt=1)
    """Share of the images that the gradient is taken on; the head learns on the rest."""
    ignore: int | None = 255
    """Class of pixels that do not count; null where all do."""
    head_lr: Number = Field(1e-2, gt=0)
    """Learning rate of the head (AdamW)."""
    updates: Count = Field(1, gt=0)
    """Steps of the head on the images of each of its turns."""

    def texts(self) -> Iterable[str]:
        return ()

    def open(self, name: str, context: Context) -> SegmentationSet:
        items = self.images()
        config: Any = context.learner.model.config
        if items[0].pixels.shape[0] != config.num_channels:
            raise RequestError(
                f"feedback.{name}: the images of {self.path} have {items[0].pixels.shape[0]} channels and the model "
                f"reads {config.num_channels}; give images of the kind that the corpus holds."
            )
        first = max(1, round(self.meta * len(items)))
        if first >= len(items):
            raise RequestError(
                f"feedback.{name}: {len(items)} images leave none for the head beside `meta`; give more."
            )
        return SegmentationSet(name, self, items[:first], items[first:], context)

    def images(self) -> list[ImageItem]:
        """The labelled images in an order that their pixels alone decide, each once.

        Raises:
            RequestError: there are none, some have no mask, or sizes differ.
        """
        found = {item.key: item for item in read_images(self.path, self.options, mask=True)}
        return [found[key] for key in sorted(found)][: self.limit]


@dataclass(frozen=True, slots=True)
class Pool:
    """Labelled images: pixels uint8 [n, channels, height, width], classes int64 [n, height, width]."""

    pixels: Tensor
    classes: Tensor

    @classmethod
    def of(cls, items: Sequence[ImageItem], ignore: int | None) -> Pool:
        """The images of some items, with `NOWHERE` for the class that is ignored."""
        classes = torch.from_numpy(np.stack([np.asarray(item.mask, np.int64) for item in items]))
        if ignore is not None:
            classes = torch.where(classes == ignore, NOWHERE, classes)
        return cls(torch.from_numpy(np.stack([item.pixels for item in items])), classes)


class SegmentationSet(FeedbackSet):
    """Two disjoint pools of labelled images and the head that reads the model's patch features.

    Attributes:
        items: images of the smaller pool.
    """

    def __init__(
        self,
        name: str,
        settings: SegmentationFeedback,
        meta: Sequence[ImageItem],
        train: Sequence[ImageItem],
        context: Context,
    ) -> None:
        self.name, self.context, self.settings = name, context, settings
        self.items = min(len(meta), len(train))
        self.pools = {"meta": Pool.of(meta, settings.ignore), "train": Pool.of(train, settings.ignore)}
        found = torch.cat([pool.classes.unique() for pool in self.pools.values()])
        classes = found[found != NOWHERE]
        if not len(classes):
            raise RequestError(
                f"feedback.{name}: every pixel of {settings.path} is of the class that is ignored ({settings.ignore}); "
                "set `ignore` to the one that stands for unknown, or to null."
            )
        config: Any = context.learner.model.config
        self.head = nn.utils.skip_init(nn.Linear, config.hidden_size, int(classes.max()) + 1, device=context.device)
        generator = torch.Generator().manual_seed(seed_from(context.seed, "feedback", name, "head"))
        with torch.no_grad():
            drawn = torch.randn(self.head.weight.shape, generator=generator)
            self.head.weight.copy_(0.01 * drawn)
        nn.init.zeros_(self.head.bias)
        self.optimizer = torch.optim.AdamW(self.head.parameters(), lr=settings.head_lr)

    def adapt(self, step: int, rows: int) -> None:
        """Let the head learn from images that the gradient never uses."""
        learner, group, batch = self.context.learner, self.context.group, self._batch("train", step, rows)
        count, parameters = self._count(batch), list(self.head.parameters())
        with torch.no_grad(), learner.exact(), learner.evaluating():
            features = torch.cat([self._features(piece) for piece in batch.micro(self.context.micro)])
        for _ in range(self.settings.updates):
            loss = pixel_losses(self.head(features), batch["classes"]).sum() / count
            gradients = [part.contiguous() for part in torch.autograd.grad(loss, parameters)]
            group.sum_tensors(gradients)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            self.optimizer.step()
        self.optimizer.zero_grad()

    def gradient(self, step: int, rows: int, names: Sequence[str]) -> tuple[Vector, float]:
        batch = self._batch("meta", step, rows)
        count = self._count(batch)
        return self.context.learner.gradient_of(
            lambda piece: self._losses(piece).sum() / count, list(batch.micro(self.context.micro)), names
        )

    @torch.no_grad()
    def loss(self, step: int, rows: int) -> float:
        batch, learner = self._batch("meta", step, rows), self.context.learner
        with learner.exact(), learner.evaluating():
            total = sum(float(self._losses(piece).sum()) for piece in batch.micro(self.context.micro))
        return self.context.group.sum(total)[0] / self._count(batch)

    def state_dict(self) -> dict[str, Any]:
        """The head and its optimizer."""
        return {"head": self.head.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _batch(self, pool: str, step: int, rows: int) -> Batch:
        """This rank's share of the images drawn at a step; every rank has equally many, some of which may not count."""
        group, images = self.context.group, self.pools[pool]
        seed = seed_from(self.context.seed, "feedback", self.name, pool, step)
        drawn = torch.randperm(len(images.pixels), generator=torch.Generator().manual_seed(seed))[:rows]
        share = -(-len(drawn) // group.world)
        mine = drawn[group.rank * share : (group.rank + 1) * share]
        missing = share - len(mine)
        chosen = torch.cat([mine, mine.new_zeros(missing)])
        classes = images.classes[chosen]
        classes[len(mine) :] = NOWHERE
        tensors = {"pixels": normalise(unit(images.pixels[chosen])), "classes": classes}
        rows_here = torch.arange(share)
        batch = Batch(tensors, seed=seed, step=step, positions=rows_here, domains=(self.name,))
        return batch.to(self.context.device)

    def _count(self, batch: Batch) -> float:
        return max(self.context.group.sum((batch["classes"] != NOWHERE).sum())[0], 1.0)

    def _losses(self, piece: Batch) -> Tensor:
        features, head = self._features(piece), self.head
        logits = F.linear(features, head.weight.detach().to(features), head.bias.detach().to(features))
        return pixel_losses(logits, piece["classes"])

    def _features(self, piece: Batch) -> Tensor:
        learner = self.context.learner
        with learner.autocast():
            return patch_features(learner.model, piece["pixels"]).float()


def patch_features(model: nn.Module, pixels: Tensor) -> Tensor:
    """What a vision transformer says of each patch, [rows, height, width, features] in patches.

    Args:
        model: a `transformers` model with patches of one size.
        pixels: normalised, [rows, channels, height, width]; sides are multiples of the patch size.
    """
    size = int(model.config.patch_size)  # type: ignore[union-attr, arg-type]
    height, width = pixels.shape[-2] // size, pixels.shape[-1] // size
    hidden: Tensor = model(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
    # Class and register tokens stand in front.
    return hidden[:, -height * width :].unflatten(1, (height, width))


def pixel_losses(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of each pixel [rows, height, width], in nats; 0 where its class is `NOWHERE`.

    Args:
        logits: of patches, [rows, height, width, classes] in patches; enlarged bilinearly.
        classes: int64 [rows, height, width] in pixels.
    """
    large = F.interpolate(logits.movedim(-1, 1), size=classes.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(large, classes, ignore_index=NOWHERE, reduction="none")
