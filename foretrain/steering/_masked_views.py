"""What parts share that hide some of an image from the learner: what hiding is, when it begins, what is recorded."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.section import Number
from foretrain.spans import Span, lead
from foretrain.steering._masking import blurred, masked, total_variation
from foretrain.steering.base import Steering

if TYPE_CHECKING:
    from foretrain.context import Context

PIECE = 64
"""Images that are masked at once: their masks depend on each image alone, and a designer's memory stays small."""


class MaskedViews(Steering):
    """Global crops in which what a mask hides is blurred: `mask * crop + (1 - mask) * blur(crop)`.

    The mask that acts is `1 - strength * (1 - mask)`. Local crops stay as they are; student and teacher see the same
    global crops.
    """

    modality: ClassVar[str] = "image"

    keep: Number = Field(0.6, gt=0, lt=1)
    """Share of a crop that a mask should keep, on average over its pixels."""
    strength: Number = Field(1.0, ge=0, le=1)
    """How much of what a mask hides is blurred; 0 leaves every crop as it is."""
    blur: Number = Field(0.0625, gt=0, le=1)
    """Standard deviation of the Gaussian blur, as a share of the crop's shorter side (2 pixels of 32, 14 of 224)."""
    burn_in: Span = Field(0.05, ge=0)
    """Steps at the start without masks: a share of the run, or steps."""

    _context: Any = PrivateAttr(None)
    _start: int = PrivateAttr(0)
    _fallbacks: int = PrivateAttr(0)

    def setup(self, context: Context) -> None:
        """Find the step at which masks begin."""
        self._context = context
        self._start = lead(self.burn_in, context.total_steps)

    def step_kind(self, step: int) -> str:
        """`plain` until masks begin, then `masked`."""
        return "masked" if step >= self._start else "plain"

    def before_step(self, batch: Batch) -> None:
        """See that there are crops.

        Raises:
            RequestError: the objective makes no global crops.
        """
        if "globals" not in batch:
            raise RequestError(
                f"steering '{self.kind}' masks global crops, and objective '{self._context.objective.kind}' makes "
                "none; take one that does, such as `dino`."
            )

    @abstractmethod
    def masks(self, images: Tensor, batch: Batch, rows: slice) -> Tensor:
        """Masks [n, 1, height, width] in [0, 1] for `images` [n, channels, height, width].

        Args:
            images: the global crops of `rows` of `batch`, row by row.
            batch: as it was prepared.
            rows: of the batch.
        """

    def view(self, batch: Batch) -> Batch:
        """The batch with its global crops masked, once the burn-in is over."""
        return batch if batch.step < self._start else self.hidden(batch)

    @torch.no_grad()
    def hidden(self, batch: Batch) -> Batch:
        """The batch with masked global crops; as it was where a mask is not finite, which is counted and said."""
        crops, pieces, masks = batch["globals"], [], []
        rows = max(1, PIECE // crops.shape[1])
        for start in range(0, batch.rows, rows):
            part = slice(start, start + rows)
            images = crops[part].flatten(0, 1)
            masks.append(self._acting(self.masks(images, batch, part)))
            pieces.append(self.seen(images, masks[-1]).unflatten(0, (-1, crops.shape[1])))
        made = torch.cat(masks)
        # All ranks together: a step is either masked or plain.
        if self._context.group.any(not bool(torch.isfinite(made).all())):
            return self.plain(batch, "a mask is not finite")
        shares = self._context.group.sum(made.mean(), total_variation(made))
        for name, value in zip(("keep", "tv"), shares, strict=True):
            self.record(name, value / self._context.group.world)
        return batch.with_(globals=torch.cat(pieces))

    def seen(self, images: Tensor, acting: Tensor) -> Tensor:
        """Images as the learner sees them through masks that act as they are."""
        return masked(images, acting, blurred(images, self.blur))

    def plain(self, batch: Batch, why: str) -> Batch:
        """The batch as it is, because of a fault that is counted and, once, said."""
        self._fallbacks += 1
        self.record("fallbacks", self._fallbacks)
        self._context.warn(
            f"steering '{self.kind}': {why}. In such steps crops are left as they are; `{self.kind}/fallbacks` in the "
            "figures counts them."
        )
        return batch

    def record(self, name: str, value: float) -> None:
        """Put a figure of this part into the step's line."""
        self._context.record(f"{self.kind}/{name}", value)

    def state_dict(self) -> dict[str, Any]:
        """Where masks begin, and how often they failed."""
        return {"start": self._start, "fallbacks": self._fallbacks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as the run was begun."""
        self._start, self._fallbacks = state["start"], state["fallbacks"]

    def _acting(self, masks: Tensor) -> Tensor:
        return 1 - self.strength * (1 - masks)
