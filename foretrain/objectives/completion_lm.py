"""Predict the next token, but learn from what follows a marker alone: answers, and not the questions before them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.objectives.causal_lm import CausalLM
from foretrain.parts import Facts
from foretrain.tokens.tokenizer import TextTokenizer, needed

if TYPE_CHECKING:
    from foretrain.context import Context


class CompletionLM(CausalLM):
    """Causal language modelling whose loss is of completions: what follows a marker, up to the document's end.

    Everything is read, and the loss tokens are those after the first marker of a document, its end included, as far as
    the window shows the marker. Documents without one teach nothing. Losses of training and validation are means over
    these tokens, so that they compare with those of this objective alone.
    """

    kind: Literal["completion_lm"] = "completion_lm"  # type: ignore[assignment]
    facts: ClassVar[Facts] = Facts(answers="what is predicted? the next token, of answers alone")

    after: str = Field(min_length=1)
    """The marker, such as `Answer:`. It is found as the tokens that it is by itself: with a tokenizer that merges it
    with what stands beside it (a space in front), write that too."""

    _marker: list[int] = PrivateAttr(default_factory=list)
    _end: int = PrivateAttr(-1)
    _warn: Any = PrivateAttr(None)

    def setup(self, context: Context) -> None:
        super().setup(context)
        self._warn = context.warn

    def fit(self, text: TextTokenizer | None, length: int) -> None:
        """Encode the marker.

        Raises:
            RequestError: the tokenizer marks no ends of documents.
        """
        tokenizer = needed(text)
        if tokenizer.eos is None:
            raise RequestError(
                "objective 'completion_lm' needs to know where a document ends, and this tokenizer has no end-of-text "
                "token; take another."
            )
        self._marker, self._end = tokenizer.encode([self.after])[0], tokenizer.eos

    def prepare(self, batch: Batch) -> Batch:
        prepared = super().prepare(batch)
        mask = prepared["mask"] & completions(batch["tokens"], self._marker, self._end)[:, 1:]
        if self._warn is not None and not bool(mask.any()):
            self._warn(
                f"objective 'completion_lm': a batch had no loss token: its windows do not show {self.after!r} (or not "
                "as the tokens it is by itself) with something after it. Where that is every batch, nothing is learned."
            )
        return prepared.with_(mask=mask)


def completions(tokens: Tensor, marker: list[int], end: int) -> Tensor:
    """Which tokens follow a marker in their document: bool [rows, length].

    Args:
        tokens: int64 [rows, length].
        marker: its tokens.
        end: the token that ends a document, and belongs to it.
    """
    length = tokens.shape[1]
    found = torch.zeros_like(tokens, dtype=torch.bool)
    if length >= len(marker):
        windows = tokens.unfold(1, len(marker), 1)
        found[:, len(marker) - 1 :] = (windows == tokens.new_tensor(marker)).all(-1)
    places = torch.arange(length, device=tokens.device).expand_as(tokens)
    # Where the last marker, and the last end, before each token lies.
    last = [torch.where(seen, places, -1).cummax(1).values for seen in (found, tokens == end)]
    after = torch.zeros_like(found)
    after[:, 1:] = (last[0] > last[1])[:, :-1]
    return after
