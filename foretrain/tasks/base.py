"""Task: a downstream evaluation, during and after training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

from pydantic import Field
from torch import Tensor

from foretrain.parts import Part
from foretrain.section import Number

if TYPE_CHECKING:
    from foretrain.tokens.tokenizer import TextTokenizer


class Evaluated(Protocol):
    """What a task evaluates: a model, an ensemble or an arithmetic of logits; all give next-token logits."""

    tokenizer: TextTokenizer
    context: int
    """Most tokens it reads at once."""

    def logits(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Next-token logits float32 [rows, length, vocabulary] for right-padded ids [rows, length]; no gradient."""

    def features(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Last hidden states float32 [rows, length, width]; no gradient."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric of a task: its mean, a 95 % interval over items, and each item's value."""

    value: float
    low: float
    high: float
    items: int
    higher_is_better: bool
    values: tuple[float, ...] = field(default=(), repr=False)


class Task(Part):
    """A downstream evaluation. Its items are held out from corpus and feedback; overlap is an error."""

    axis: ClassVar[str] = "task"

    every: Number | None = Field(None, gt=0)
    """How often during training: a share of the run below 1, a number of steps from 1 on; unset: only at the end."""

    def texts(self) -> Iterable[str]:
        """The texts of its items, for the check against overlap with the corpus."""
        return ()

    @abstractmethod
    def evaluate(self, subject: Evaluated, seed: int) -> dict[str, Measured]:
        """Every metric of this task by name."""
