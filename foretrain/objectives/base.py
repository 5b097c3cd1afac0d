"""Objective: how a batch becomes losses, one per token (or item), with a mask."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from foretrain.batch import Batch
from foretrain.parts import Part

if TYPE_CHECKING:
    from foretrain.context import Context
    from foretrain.objectives.outputs import Outputs
    from foretrain.tokens.tokenizer import TextTokenizer


@dataclass(frozen=True, slots=True)
class Targets:
    """Soft targets on K candidates a token; they replace the one-hot label wherever the mask is on.

    Attributes:
        ids: int64 [rows, length, K], candidate ids (distinct at each token).
        probabilities: float32 [rows, length, K], non-negative, summing to 1.
    """

    ids: Tensor
    probabilities: Tensor


class Objective(Part):
    """Losses per token from a batch. An objective may own modules and state (a teacher, a centre, heads).

    `prepare` is pure in (seed, position): it decides masks, corruption and labels, and so the number of loss tokens,
    before any model runs. Losses are per token and unreduced; the step multiplies weights into them and normalises
    by the number of loss tokens in the whole global batch, so the result does not depend on micro-batches or ranks.
    """

    axis: ClassVar[str] = "objective"
    modality: ClassVar[str] = "text"
    """What it learns from, which decides how the corpus is read (`foretrain/modalities`)."""
    family: ClassVar[Literal["decoder", "encoder", "vision", "any"]] = "any"
    """The family of model it trains; a recipe that pairs it with another is refused."""

    def setup(self, context: Context) -> None:
        """Create private state: called once, after the model is built and before a checkpoint is loaded."""
        self.fit(context.text, context.length)

    def fit(self, text: TextTokenizer | None, length: int) -> None:
        """Take what `prepare` goes by: the tokenizer, and how many tokens the model reads at once.

        A part of `setup`; called without it where batches are only looked at, and there is no model.
        """

    def members(self) -> Sequence[Objective]:
        """The objectives that a recipe's one stands for; those that hand over to others name these."""
        return (self,)

    def window(self, context_length: int) -> int:
        """How many tokens of the stream one row needs for a model that reads `context_length`."""
        return context_length

    @abstractmethod
    def prepare(self, batch: Batch) -> Batch:
        """Add what the model reads and what it should predict: for text `inputs`, `labels`, `mask` [rows, length]."""

    @abstractmethod
    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """Run the model on a prepared batch."""

    @abstractmethod
    def losses(self, outputs: Outputs, batch: Batch, targets: Targets | None = None) -> Tensor:
        """Losses [rows, length] in nats, float32, differentiable; 0 where the mask is off."""

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """What a line of `metrics.jsonl` counts of a prepared batch (tokens of a kind); summed over ranks."""
        return {}

    def modules(self) -> Iterable[nn.Module]:
        """Own modules that are trained with the model (heads); their parameters join the optimizer."""
        return ()

    def of_the_model_alone(self) -> bool:
        """Whether it keeps nothing that a merge of several runs would lack: no modules, and no state."""
        return not list(self.modules()) and not self.state_dict()

    def step_kind(self, step: int) -> str:
        """The kind of step `step` (0-based) is, where kinds differ in cost; pure in (seed, step)."""
        return ""

    def before_step(self, step: int) -> None:
        """Told of each step (0-based) before its batch is prepared; steps that were skipped come here too."""

    def begins(self, step: int) -> bool:
        """Whether step `step` (0-based) is the first of another loss, to which those before it are no measure."""
        return False

    def take_over(self) -> None:
        """Another objective hands over to it within a run; called once, before its first step."""

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move own state (an averaged teacher, a queue) after each optimizer step."""
