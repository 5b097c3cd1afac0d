"""Context: what a part may see when it is set up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from foretrain.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

    from foretrain.distributed import Group
    from foretrain.feedback.base import FeedbackSet
    from foretrain.learner import Learner
    from foretrain.models.roles import Role
    from foretrain.named_models import Reference
    from foretrain.objectives.base import Objective
    from foretrain.recipe import Recipe
    from foretrain.stages import Timeline
    from foretrain.tokens.readable import Readable
    from foretrain.tokens.stream import Stream
    from foretrain.tokens.tokenizer import TextTokenizer


def _no_feedback(name: str) -> FeedbackSet:
    raise RequestError(f"feedback: there is none here, so there is no '{name}'.")


def _no_models(name: str) -> Reference:
    raise RequestError(f"models: there is none here, so there is no '{name}'.")


def _no_split(split: str = "steer", tokens: int | None = None) -> dict[str, float]:
    raise RequestError(f"There is no {split} split to measure on outside of a run.")


def _no_sets(split: str) -> Mapping[str, Readable]:
    raise RequestError(f"There is no {split} split to read outside of a run.")


def _no_step(gradient: Mapping[str, Tensor], rate: float | None = None) -> None:
    raise RequestError("There is no optimizer outside of a run.")


class Evaluate(Protocol):
    """Mean loss per domain on a split, with today's weights in eval mode, over all ranks."""

    def __call__(self, split: str = "steer", tokens: int | None = None) -> dict[str, float]:
        """Losses in nats by domain, of those that have the split.

        Args:
            split: `steer`, unless there is a reason to look elsewhere: what judges must not steer.
            tokens: at most this many per domain, the same ones each time; the recipe's `evaluation.tokens` by default.

        Raises:
            RequestError: no domain has such a split.
        """


class Apply(Protocol):
    """One step of the optimizer that is not the run's own; for look-ahead inside `undone`."""

    def __call__(self, gradient: Mapping[str, Tensor], rate: float | None = None) -> None:
        """Move along a gradient (by parameter name), at the learning rate of this step, or at `rate` times the peak."""


@dataclass(frozen=True)
class Context:
    """The run as parts see it. Nothing here is to be written to, except through the functions given for it."""

    recipe: Recipe
    total_steps: int
    """Steps planned when the run was set up; a budget in minutes may still move the end."""
    rehearsal: bool
    """Whether steps are only run for their cost, in a run of another length than the planned one."""
    learner: Learner
    """The model in training: gradients beside the step's, other weights for a while, fp32 for exact figures."""
    objective: Objective
    """How a batch becomes losses in this run."""
    length: int
    """Tokens (patches) that the model reads at once; a row of the stream is `objective.window(length)` long."""
    micro: int
    """Rows per forward pass."""
    stream: Stream
    timeline: Timeline
    """The stages of the run as steps; one period where the recipe has none."""
    text: TextTokenizer | None
    """The tokenizer, where the run is one of text; see `tokenizer`."""
    record: Callable[[str, float], None] = lambda name, value: None
    """`record(name, value)` puts a figure into this step's line of `metrics.jsonl`."""
    warn: Callable[[str], None] = lambda text: None
    """Says something that a user should know, once however often it is said."""
    second_moments: Callable[[], Mapping[str, Tensor]] = dict
    """The optimizer's running mean of squared gradients by parameter name, without its bias; empty before its first
    step, and of optimizers that keep none."""
    feedback: Callable[[str], FeedbackSet] = _no_feedback
    """The feedback set of a name, read and encoded once."""
    named: Callable[[str], Reference] = _no_models
    """The model that the recipe gives a name under `models:`, loaded once."""
    evaluate: Evaluate = _no_split
    """Losses of the domains on a split, measured now; they count in the cost of the step."""
    sets: Callable[[str], Mapping[str, Readable]] = _no_sets
    """The sets of a split (`train`, `steer`, `validation`) by domain, of those that have it; for probes, which may look
    at what judges."""
    undone: Callable[[], AbstractContextManager[None]] = nullcontext
    """`with context.undone():` whatever is done inside to weights, optimizer and objective is put back at its end."""
    apply: Apply = _no_step
    """A step of the optimizer along a gradient, for look-ahead; the run's own step is not made by it."""

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.recipe.seed

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer of the run.

        Raises:
            RequestError: the run is not one of text; whoever asks needs text.
        """
        if self.text is None:
            raise RequestError(
                f"A part of this recipe works on text, and objective '{self.recipe.objective.kind}' trains on "
                "something else; take the part out."
            )
        return self.text

    @property
    def model(self) -> nn.Module:
        """What forward passes run through; under `precision: bf16` its weights are the bf16 copies."""
        return self.learner.model

    @property
    def weights(self) -> Mapping[str, nn.Parameter]:
        """Every trained parameter by name, live, in fp32 (this rank's shard of it under FSDP2)."""
        return self.learner.masters

    @property
    def roles(self) -> dict[str, Role]:
        """What each trained parameter is for."""
        return self.learner.roles

    @property
    def group(self) -> Group:
        """The processes of the run."""
        return self.learner.group

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.learner.group.device
