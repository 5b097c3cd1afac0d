"""Several language models as one, by an arithmetic of their logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from foretrain.errors import RequestError
from foretrain.exporting import load_run_model
from foretrain.run_directory import RunDirectory
from foretrain.subject import Subject

if TYPE_CHECKING:
    from foretrain.tokens.tokenizer import TextTokenizer

Combine = Callable[[Iterator[Tensor]], Tensor]
"""One model's logits of several's: they come float32, in the order of the members, each made when it is asked for."""


class CombinedLogits(nn.Module):
    """Several language models as one that losses are measured on.

    It has no output layer of its own, so that losses are made of the logits as they are.
    """

    def __init__(self, members: Sequence[PreTrainedModel], combine: Combine) -> None:
        super().__init__()
        self.members, self._combine = nn.ModuleList(members), combine
        self.config = members[0].config

    def forward(self, input_ids: Tensor, use_cache: bool = False, **inputs: Any) -> CausalLMOutput:
        """The combined logits [rows, length, vocabulary], float32."""
        found = (member(input_ids=input_ids, use_cache=False, **inputs).logits.float() for member in self.members)
        return CausalLMOutput(logits=self._combine(found))

    def get_output_embeddings(self) -> None:
        """None: the logits are no linear layer's."""


class CombinedSubject:
    """Several models as tasks and generation see one (`tasks.base.Evaluated`); a cache is the list of their caches.

    Attributes:
        tokenizer, context, causal, batch_tokens: those of each member.
    """

    def __init__(
        self, members: Sequence[PreTrainedModel], combine: Combine, tokenizer: TextTokenizer, context: int
    ) -> None:
        self.members, self._combine = [Subject(model, tokenizer, context) for model in members], combine
        self.tokenizer, self.context = tokenizer, context
        self.causal, self.batch_tokens = self.members[0].causal, self.members[0].batch_tokens

    def cache(self) -> list[Any] | None:
        """An empty cache of each member, or None where one of them has none."""
        caches = [member.cache() for member in self.members]
        return None if any(cache is None for cache in caches) else caches

    def logits(
        self, ids: Tensor, mask: Tensor | None = None, cache: list[Any] | None = None, places: Tensor | None = None
    ) -> Tensor:
        """The combined logits (see `Evaluated.logits`)."""
        caches = cache if cache is not None else [None] * len(self.members)
        return self._combine(
            member.logits(ids, mask, own, places) for member, own in zip(self.members, caches, strict=True)
        )

    def features(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """The members' last hidden states, one after the other: float32 [rows, length, sum of their widths]."""
        return torch.cat([member.features(ids, mask) for member in self.members], dim=-1)


def mean(logits: Iterator[Tensor]) -> Tensor:
    """The mean over the members, of which one at a time has its logits in memory beside the sum."""
    total, count = next(logits), 1
    for found in logits:
        total, count = total + found, count + 1
    return total / count


def member_of(run: RunDirectory) -> tuple[PreTrainedModel, TextTokenizer]:
    """A run's model, for its logits.

    Raises:
        RequestError: it has none of its own, or is no language model.
    """
    if "merge" in run.plan() and not (run.model_path / "config.json").is_file():
        raise RequestError(f"{run.path} is an ensemble and has no weights of its own; name its members instead.")
    model, tokenizer = load_run_model(run)
    if tokenizer is None:
        raise RequestError(f"{run.path}: logits are of language models, and models of images give none.")
    return model, tokenizer


def refuse_other_logits(members: Sequence[PreTrainedModel], names: Sequence[str]) -> None:
    """See that the logits of models are about the same ids, and of the same kind of places.

    Raises:
        RequestError: they are not.
    """
    sizes = {int(model.config.vocab_size) for model in members}  # type: ignore[arg-type]
    kinds = {bool(model.can_generate()) for model in members}
    if len(sizes) > 1 or len(kinds) > 1:
        raise RequestError(
            f"The logits of {', '.join(names)} cannot be put together: the models give them for different numbers of "
            "ids, or some are encoders and some decoders."
        )
