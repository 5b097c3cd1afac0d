"""Average the logits of several runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from foretrain.errors import RequestError
from foretrain.exporting import load_run_model
from foretrain.merging.base import Merge, Merged
from foretrain.merging.members import check_members
from foretrain.parts import Facts
from foretrain.subject import Subject

if TYPE_CHECKING:
    from foretrain.run_directory import RunDirectory
    from foretrain.tokens.tokenizer import TextTokenizer


class Ensemble(Merge):
    """The members' logits averaged, and normalised after: their distributions' geometric mean.

    Members are runs that differ in their seed (initialisation and order of data), or in anything but the tokenizer and
    the context. One use costs a forward pass of every member.
    """

    kind: Literal["ensemble"] = "ensemble"
    facts: ClassVar[Facts] = Facts(
        paper="Pre-training under infinite compute",
        arxiv="2509.14786",
        year=2025,
        answers="what is the model? several runs, asked together",
        overhead="as many forward passes at use as there are members",
    )

    def merge(self, runs: Sequence[RunDirectory]) -> Merged:
        check_members(runs)
        members, tokenizer = [], None
        for run in runs:
            if "merge" in run.plan() and not (run.model_path / "config.json").is_file():
                raise RequestError(
                    f"{run.path} is an ensemble and has no weights of its own; name its members instead."
                )
            model, tokenizer = load_run_model(run)
            members.append(model)
        if tokenizer is None:
            raise RequestError("An ensemble averages the logits of language models, and models of images give none.")
        sizes = {model.config.vocab_size for model in members}
        kinds = {bool(model.can_generate()) for model in members}
        if len(sizes) > 1 or len(kinds) > 1:
            raise RequestError(
                f"The logits of {', '.join(str(run.path) for run in runs)} cannot be averaged: the models give them "
                "for different numbers of ids, or some are encoders and some decoders."
            )
        context = int(runs[0].plan()["model"]["context"])
        return Merged(MeanLogits(members), MeanSubject(members, tokenizer, context), inference=len(members))


class MeanLogits(nn.Module):
    """Several language models as one: the mean of their logits.

    It has no output layer of its own, so that losses are made of the logits as they are.
    """

    def __init__(self, members: Sequence[PreTrainedModel]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.config = members[0].config

    def forward(self, input_ids: Tensor, use_cache: bool = False, **inputs: Any) -> CausalLMOutput:
        """The mean of the logits [rows, length, vocabulary], float32."""
        return CausalLMOutput(
            logits=_mean(self.members, lambda model: model(input_ids=input_ids, use_cache=False, **inputs).logits)
        )

    def get_output_embeddings(self) -> None:
        """None: the logits are no linear layer's."""


class MeanSubject:
    """Several models as tasks and generation see one (`tasks.base.Evaluated`); a cache is the list of their caches.

    Attributes:
        tokenizer, context, causal, batch_tokens: those of each member.
    """

    def __init__(self, members: Sequence[PreTrainedModel], tokenizer: TextTokenizer, context: int) -> None:
        self.members = [Subject(model, tokenizer, context) for model in members]
        self.tokenizer, self.context = tokenizer, context
        self.causal, self.batch_tokens = self.members[0].causal, self.members[0].batch_tokens

    def cache(self) -> list[Any] | None:
        """An empty cache of each member, or None where one of them has none."""
        caches = [member.cache() for member in self.members]
        return None if any(cache is None for cache in caches) else caches

    def logits(
        self, ids: Tensor, mask: Tensor | None = None, cache: list[Any] | None = None, places: Tensor | None = None
    ) -> Tensor:
        """The mean of the members' logits (see `Evaluated.logits`)."""
        caches = iter(cache if cache is not None else [None] * len(self.members))
        return _mean(self.members, lambda member: member.logits(ids, mask, next(caches), places))

    def features(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """The members' last hidden states, one after the other: float32 [rows, length, sum of their widths]."""
        return torch.cat([member.features(ids, mask) for member in self.members], dim=-1)


def _mean(members: Any, logits: Callable[[Any], Tensor]) -> Tensor:
    """The mean over the members, of which one at a time has its logits in memory beside the sum."""
    total: Tensor | None = None
    for member in members:
        found = logits(member).float()
        total = found if total is None else total.add_(found)
    assert total is not None
    return total / len(members)
