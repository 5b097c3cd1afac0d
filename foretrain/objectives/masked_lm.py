"""Predict tokens that were hidden, from both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PrivateAttr, model_validator
from torch import Tensor, nn

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.models.attention import reading
from foretrain.objectives._corruption import Corrupted, Policy, Replacement, Row, corrupt
from foretrain.objectives._fresh_rows import set_to_mean
from foretrain.objectives.base import Objective, Targets
from foretrain.objectives.outputs import Outputs, run_model
from foretrain.parts import Facts
from foretrain.section import Number
from foretrain.tokens.tokenizer import TextTokenizer, needed

if TYPE_CHECKING:
    from typing_extensions import Self

    from foretrain.context import Context


class MaskedLM(Objective):
    """Masked language modelling: each token is chosen with probability `rate`, and predicted from all that is left.

    A chosen token is replaced by the mask, by a random token, or by itself; the loss is the mean over the chosen tokens
    alone, so a run reads `1 / rate` times as many tokens as it learns from. Special tokens are never chosen. The choice
    is a pure function of (seed, position): a text that is read again is masked anew, and validation is masked alike
    each time. With `documents: separate` attention and positions start anew at each document.
    """

    kind: Literal["masked_lm"] = "masked_lm"
    facts: ClassVar[Facts] = Facts(
        paper="BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
        arxiv="1810.04805",
        year=2018,
        answers="what is predicted? hidden tokens, from both sides",
    )
    family: ClassVar[Literal["decoder", "encoder", "vision", "any"]] = "encoder"

    rate: Number = Field(0.4, gt=0, lt=1)
    """Probability that a token is chosen; BERT's is 0.15."""
    final_rate: Number | None = Field(None, gt=0, lt=1)
    """The rate at the end of the run, to which it moves on a straight line; unset: it stays. Validation is always
    masked at `rate`."""
    random: Number = Field(0.0, ge=0, le=1)
    """Share of the chosen tokens that become a random token instead of the mask; BERT's is 0.1."""
    kept: Number = Field(0.0, ge=0, le=1)
    """Share of the chosen tokens that stay as they are; BERT's is 0.1."""
    new_mask: bool | None = None
    """Whether the mask is a token that the model has not seen yet, as in one that was trained causally: its embedding
    then begins as the mean of those of all ordinary tokens. Unset: where this takes over from another objective within
    the run (`phases`)."""

    _ordinary: Any = PrivateAttr(None)
    _special: Any = PrivateAttr(None)
    _pad: int | None = PrivateAttr(None)
    _mask: int = PrivateAttr(-1)
    _context: Any = PrivateAttr(None)
    _steps: int = PrivateAttr(0)

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.random + self.kept > 1:
            raise ValueError(f"random ({self.random}) and kept ({self.kept}) are shares of the chosen tokens, up to 1")
        return self

    def setup(self, context: Context) -> None:
        super().setup(context)
        self._context, self._steps = context, context.total_steps

    def fit(self, text: TextTokenizer | None, length: int) -> None:
        """Find the mask among the tokens.

        Raises:
            RequestError: the tokenizer has none.
        """
        tokenizer = needed(text)
        if tokenizer.mask is None:
            raise RequestError(
                f"objective '{self.kind}' hides tokens behind a mask, and this tokenizer has no mask token. Those that "
                "foretrain makes have one; to one of your own add it (`tokenizer.mask_token`), in a row that the model "
                "has to spare."
            )
        self._mask = tokenizer.mask
        self._pad = None if tokenizer.pad == tokenizer.eos else tokenizer.pad
        self._special = np.zeros(tokenizer.vocabulary, dtype=bool)
        self._special[[number for number in tokenizer.special if number < tokenizer.vocabulary]] = True
        self._ordinary = np.flatnonzero(~self._special)

    def window(self, context_length: int) -> int:
        return context_length

    def before_step(self, step: int) -> None:
        if step == 0 and self.new_mask:
            self._begin_mask()

    def take_over(self) -> None:
        if self.new_mask is not False:
            self._begin_mask()

    def _begin_mask(self) -> None:
        set_to_mean(self._context, [self._mask], self._ordinary)

    def prepare(self, batch: Batch) -> Batch:
        documents = batch.get("segments")
        if self._pad is not None and bool((padded := batch["tokens"] == self._pad).any()):
            # What fills up a row is nobody's context: a document of its own.
            documents = torch.zeros_like(padded, dtype=torch.int32) if documents is None else documents
            documents = documents.masked_fill(padded, -1)
        corrupted = corrupt(batch, self._policy(batch.step), "masked_lm")
        return corrupted if documents is None else corrupted.with_(documents=documents)

    def _policy(self, step: int) -> Policy:
        rate = self.rate
        if self.final_rate is not None:
            rate += (self.final_rate - self.rate) * min(1.0, step / max(self._steps - 1, 1))
        replacement = Replacement(self._mask, self._ordinary, self.random, self.kept)

        def policy(row: Row, generator: np.random.Generator) -> Corrupted:
            tokens = row["tokens"]
            chosen = (generator.random(len(tokens)) < rate) & ~self._special[tokens]
            if "valid" in row:
                chosen &= row["valid"].astype(bool)
            if "given" in row:  # metadata in front of a document is read, and not learned
                chosen &= ~row["given"].astype(bool)
            return Corrupted(replacement(tokens, chosen, generator), tokens, chosen)

        return policy

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Tokens that are predicted."""
        return {"loss_tokens": batch["mask"].sum()}

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        return run_model(model, input_ids=batch["inputs"], **reading(model, "bidirectional", batch))

    def losses(self, outputs: Outputs, batch: Batch, targets: Targets | None = None) -> Tensor:
        return outputs.token_losses(batch["labels"], batch["mask"], targets)

    def state_dict(self) -> dict[str, Any]:
        """The steps that a moving rate was planned with."""
        return {} if self.final_rate is None else {"steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._steps = int(state.get("steps", self._steps))
