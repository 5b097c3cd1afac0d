"""Train the lowest blocks of a grown model first, as small models that share its embeddings and output layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.hashing import seed_from
from foretrain.learner import transformer_blocks
from foretrain.models.prefix import lowest_blocks
from foretrain.parts import Facts
from foretrain.section import Count
from foretrain.spans import Span, lead
from foretrain.steering.base import Gradient, GradientOf, Steering

if TYPE_CHECKING:
    from foretrain.context import Context


class SubModels(Steering):
    """The first stage of two-stage pre-training, for a model that was grown.

    The lowest l, 2 l, 3 l ... blocks of the model, up to all of them, are sub-models that share its embeddings, last
    norm and output layer. Up to `until` each step draws one of them, runs it alone, and updates its top l blocks, the
    last norm and the output layer; blocks below are run, and those above are not. From then on the whole model is
    trained as usual. What is not updated in a step has no gradient there, so that weight decay and the optimizer's
    moments leave it alone as well.

    Embeddings are not updated in the first stage, but for the part of an output layer that they may be: its gradient
    counts, and what comes through the blocks does not. The loss of a step is that of its sub-model. Steps of different
    depths cost differently, and are counted as kinds of their own.
    """

    kind: Literal["sub_models"] = "sub_models"
    facts: ClassVar[Facts] = Facts(
        paper="bert2BERT: Towards Reusable Pretrained Language Models",
        arxiv="2110.07143",
        year=2021,
        answers="update: which blocks of a grown model are trained first?",
        overhead="less than none: a step of the first stage runs some blocks, and goes back through fewer",
    )

    blocks: Count = Field(3, gt=0)
    """l: how many blocks a sub-model has more than the next smaller one; so many are updated in a step."""
    until: Span = Field(0.125, gt=0)
    """Where the first stage ends: a share of the run, or a step. The published 5 of 40 epochs are 0.125."""

    _context: Any = PrivateAttr(None)
    _stack: list[Any] = PrivateAttr(default_factory=list)
    _end: int = PrivateAttr(0)
    _step: int = PrivateAttr(0)

    def setup(self, context: Context) -> None:
        """Find the blocks.

        Raises:
            RequestError: there are fewer than a sub-model's, they are sharded, or they are compiled.
        """
        self._stack = transformer_blocks(context.model)
        if not len(self._stack) > self.blocks:
            raise RequestError(
                f"steering '{self.kind}': blocks ({self.blocks}) should be fewer than the {len(self._stack)} of the "
                "model, or the only sub-model is the whole of it."
            )
        if context.learner.sharded or context.recipe.compile:
            what = "distributed: shard" if context.learner.sharded else "compile: true"
            raise RequestError(
                f"steering '{self.kind}' leaves out blocks from step to step, which does not go with `{what}`; leave "
                "one of them out."
            )
        self._context, self._end = context, lead(self.until, context.total_steps)

    def depths(self) -> list[int]:
        """How many blocks each sub-model has."""
        return [*range(self.blocks, len(self._stack), self.blocks), len(self._stack)]

    def depth(self, step: int) -> int | None:
        """How many blocks are run in a step; None once all of the model is trained."""
        if step >= self._end:
            return None
        generator = torch.Generator().manual_seed(seed_from(self._context.seed, self.kind, step))
        depths = self.depths()
        return depths[int(torch.randint(len(depths), (), generator=generator))]

    def step_kind(self, step: int) -> str:
        depth = self.depth(step)
        return "" if depth is None else f"{depth} blocks"

    def before_step(self, batch: Batch) -> None:
        self._step = batch.step

    def gradient(
        self, of: GradientOf, group: slice | Tensor | None = None, at: Mapping[str, Tensor] | None = None
    ) -> Gradient:
        """The gradient of the step's sub-model, of what is updated in it."""
        depth = self.depth(self._step)
        if depth is None:
            return of(group, at)
        self._context.record(f"{self.kind}/depth", float(depth))
        with lowest_blocks(self._stack, depth, self.blocks):
            return of(group, at)

    def state_dict(self) -> dict[str, Any]:
        """Where the first stage ends: what was planned at the start holds, wherever the run's end moves."""
        return {"end": self._end}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._end = state["end"]
