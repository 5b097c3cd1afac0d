"""Emulated fine-tuning: a large model's logits, and what tuning changed in those of a small one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from transformers import PreTrainedModel

from foretrain.errors import RequestError
from foretrain.flops import analytic
from foretrain.merging.base import Merge, Merged
from foretrain.merging.logits import CombinedLogits, CombinedSubject, member_of, refuse_other_logits
from foretrain.merging.members import check_members, describe_members
from foretrain.merging.weights import Weights, open_weights
from foretrain.models.base import from_folder
from foretrain.parts import Facts
from foretrain.section import ModelPath, Number
from foretrain.tokens.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from foretrain.recipe import Recipe
    from foretrain.run_directory import RunDirectory


class EmulatedFineTuning(Merge):
    """The large model's logits plus `weights` times (those of `tuned` minus those of `base`), normalised at each place.

    Of the base and the tuned model at a small size, their difference in log space says what tuning rewarded; added to
    the base at a large size, it emulates the large model tuned in the same way, without training it. All models read
    the same text, each with a cache of its own, and one use costs a forward pass of every one. Where the large model is
    the small base itself and the weight is 1, it is the tuned model. Several tuned models of one base mix what each was
    tuned to; a weight above 1 does more of it than tuning did, a negative one the opposite.

    The large model is the run; of several runs it is the mean of their logits.
    """

    kind: Literal["emulated_fine_tuning"] = "emulated_fine_tuning"
    facts: ClassVar[Facts] = Facts(
        paper="An Emulator for Fine-Tuning Large Language Models using Small Language Models",
        arxiv="2310.12962",
        year=2023,
        answers="what is the model? a large one, and what tuning changed in the logits of a small one",
        overhead="forward passes of the small base and of every tuned model at use, beside the large model's own",
    )

    base: ModelPath
    """The small model before it was tuned: its folder (a run's own, or an exported one), or `product:NAME` in a
    study."""
    tuned: list[ModelPath] = Field(min_length=1)
    """The small model after it was tuned; several share the base."""
    weights: list[Number] = []
    """How much of each difference is added; unset: 1 of each."""
    nucleus: Number | None = Field(None, gt=0, le=1)
    """Change only tokens among the fewest that hold this share of the large model's probability (0.95, say), so that no
    large ratio of two tiny probabilities counts; unset: all tokens."""
    large: ModelPath | None = None
    """The large model, where it is not a run."""

    @model_validator(mode="after")
    def _a_weight_each(self) -> EmulatedFineTuning:
        if self.weights and len(self.weights) != len(self.tuned):
            raise ValueError(f"{len(self.weights)} weights are given for {len(self.tuned)} tuned models")
        return self

    def check(self, recipe: Recipe, steps: int | None = None) -> None:
        """See that the small models are there, and read the same ids.

        Raises:
            RequestError: they are not.
        """
        named = self._named()
        tokenizers = [_tokenizer(each) for each in named]
        for each, tokenizer in zip(named[1:], tokenizers[1:], strict=True):
            _refuse_other_ids(each.title, tokenizer, named[0].title, tokenizers[0])

    def merge(self, runs: Sequence[RunDirectory]) -> Merged:
        check_members(runs, some=self.large is None)
        named = self._named()
        if runs:
            found, tokenizers = zip(*map(member_of, runs), strict=True)
            names, large, tokenizer = [str(run.path) for run in runs], list(found), tokenizers[0]
        else:
            names, large, tokenizer = [named[0].title], [], _tokenizer(named[0])
        for each in named:
            _refuse_other_ids(each.title, _tokenizer(each), names[0], tokenizer)
        members = [*large, *(from_folder(str(each.folder), each.config)[0].eval() for each in named)]
        names = [*names[: len(large)], *(each.title for each in named)]
        refuse_other_logits(members, names)
        context = int(runs[0].plan()["model"]["context"]) if runs else _positions(members[0])
        _refuse_short(members, names, context)
        plain = self._plain(members, names, runs, named, context)
        parts = (CombinedLogits(members, self._combine), CombinedSubject(members, self._combine, tokenizer, context))
        return Merged(*parts, inference=len(members), told=plain)

    def _combine(self, logits: Iterator[Tensor]) -> Tensor:
        """Log-probabilities of logits: those of the large model (one or several), of the base, of the tuned models."""
        found = [each.log_softmax(-1) for each in logits]
        weights = self.weights or [1.0] * len(self.tuned)
        many = len(found) - len(weights) - 1
        large, base = sum(found[1:many], found[0]) / many, found[many]
        change = torch.zeros_like(base)
        for weight, tuned in zip(weights, found[many + 1 :], strict=True):
            change += weight * (tuned - base)
        if self.nucleus is not None:
            change *= _nucleus(large, self.nucleus)
        return (large + change).log_softmax(-1)

    def _named(self) -> list[Weights]:
        """The models that the fields name: the large one where it is named, the base, the tuned ones."""
        large = [] if self.large is None else [open_weights("large", self.large)]
        return [*large, open_weights("base", self.base), *(open_weights("tuned", path) for path in self.tuned)]

    def _plain(
        self,
        members: Sequence[PreTrainedModel],
        names: Sequence[str],
        runs: Sequence[RunDirectory],
        named: Sequence[Weights],
        context: int,
    ) -> dict[str, Any]:
        """What `merge.json` says, with what a token costs: a forward pass of each model, in FLOPs."""
        costs = [analytic(model, 1, context) / context for model in members]
        small = len(self.tuned) + 1
        return {
            "format": 1,
            "merge": self.model_dump(mode="json"),
            "formula": "log_softmax(large + sum over i of weights[i] * (tuned[i] - base)), of logits, at each place",
            "inputs": [
                *({**each, "path": each["run"]} for each in describe_members(runs)),
                *(m.plain() for m in named),
            ],
            "figures": {
                "flops_per_token": sum(costs),
                "large_flops_per_token": sum(costs[:-small]),
                "times_large": sum(costs) / sum(costs[:-small]),
            },
            "forwards": [
                {"model": name, "parameters": model.num_parameters(), "flops_per_token": cost}
                for name, model, cost in zip(names, members, costs, strict=True)
            ],
        }


def _nucleus(logs: Tensor, share: float) -> Tensor:
    """Which tokens are among the fewest that hold a share of the probability, [..., vocabulary]."""
    values, order = logs.exp().sort(dim=-1, descending=True)
    inside = values.cumsum(-1) - values < share
    return torch.zeros_like(inside).scatter_(-1, order, inside)


def _tokenizer(weights: Weights) -> TextTokenizer:
    if weights.tokenizer is None:
        raise RequestError(f"{weights.title}: {weights.folder} holds a model of images; only logits of text add up.")
    return weights.tokenizer


def _refuse_other_ids(first: str, a: TextTokenizer, second: str, b: TextTokenizer) -> None:
    if a.hash != b.hash:
        raise RequestError(
            f"The tokenizers of {first} and {second} differ, so their logits are about other texts, and there is no "
            "way to align them. Train both with one tokenizer (a pretrained one, or the same corpus and settings)."
        )


def _positions(model: PreTrainedModel) -> int:
    found = getattr(model.config, "max_position_embeddings", None)
    return int(found) if isinstance(found, int) else 1024


def _refuse_short(members: Sequence[PreTrainedModel], names: Sequence[str], context: int) -> None:
    for name, model in zip(names, members, strict=True):
        if _positions(model) < context:
            raise RequestError(f"{name} reads {_positions(model)} tokens at once, and the large model {context}.")
