"""Feedback: a source of labelled items and a loss on them. It may shape a run; it never trains the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from foretrain.errors import RequestError
from foretrain.hashing import hash_data
from foretrain.parts import Part
from foretrain.section import Count, DataPath
from foretrain.vectors import Vector

if TYPE_CHECKING:
    from foretrain.context import Context
    from foretrain.images.item import ImageItem


class FeedbackSet(ABC):
    """The items of a feedback set, ready for the learner.

    Attributes:
        name: that the recipe gives it.
        items: how many there are to draw from.
    """

    name: str
    items: int

    @abstractmethod
    def gradient(self, step: int, rows: int, names: Sequence[str]) -> tuple[Vector, float]:
        """The gradient of the mean loss of some items at today's weights, over all ranks; and that loss.

        Args:
            step: with the run's seed it decides which items are drawn.
            rows: items drawn over all ranks, without one twice (at most all there are).
            names: parameters to differentiate by.
        """

    @abstractmethod
    def loss(self, step: int, rows: int) -> float:
        """The mean loss of the same items at the weights of the moment, in eval mode, over all ranks."""

    def halves(self) -> tuple[FeedbackSet, FeedbackSet]:
        """Two sets, of the first half of the items and of the second: one to steer by, the other to see by.

        Raises:
            RequestError: the set cannot be divided.
        """
        raise RequestError(f"feedback '{self.name}' ({self.items} items) cannot be divided into halves.")

    def adapt(self, step: int, rows: int) -> None:
        """Let what the set learns of its own (an evaluator's head) take a step; the model stays as it is.

        Called before `gradient` by the one part that owns the set's state. Most sets learn nothing.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """What the set has learned, as a tree; saved by the part that calls `adapt`."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        if state:
            raise ValueError(f"feedback '{self.name}' learns nothing, but the checkpoint holds some state for it")


class Feedback(Part):
    """A small downstream set that may shape the run but never trains the model on its labels."""

    axis: ClassVar[str] = "feedback"
    modality: ClassVar[str] = "text"

    path: DataPath
    """A file of items, a folder, `builtin:NAME` or `hub:NAME`."""
    options: dict[str, Any] = {}
    """Settings of a `builtin:` corpus, or of a `hub:` data set."""
    limit: Count | None = Field(None, gt=0)
    """Use at most this many items, chosen by their content."""

    @abstractmethod
    def texts(self) -> Iterable[str]:
        """The items as running text, for the check against overlap; none where they are not text.

        Raises:
            RequestError: an item cannot be read.
        """

    def images(self) -> Iterable[ImageItem]:
        """The items as images, for the check that the corpus holds none of them; none where they are not images.

        Raises:
            RequestError: an item cannot be read.
        """
        return ()

    def content(self) -> str:
        """Hash of the items: a run that is resumed with others is refused."""
        return hash_data([list(self.texts()), [item.key for item in self.images()]])

    @abstractmethod
    def open(self, name: str, context: Context) -> FeedbackSet:
        """The items, encoded for this run.

        Raises:
            RequestError: there is nothing in them that could be learned from.
        """
