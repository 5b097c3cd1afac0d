"""A larger model that begins as a smaller one which was trained."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from transformers import PretrainedConfig, PreTrainedModel

from foretrain import units
from foretrain.errors import RequestError
from foretrain.growth.base import Growth
from foretrain.growth.network import Network, features_per_head, feedforward, groups, refuse_unknown
from foretrain.models.base import Model, from_config
from foretrain.models.pretrained import Pretrained
from foretrain.parts import Facts, PartOf
from foretrain.section import Count, ModelPath

if TYPE_CHECKING:
    from foretrain.tokens.tokenizer import TextTokenizer
    from foretrain.tokens.tokenizers.base import Tokenizer

_SIZES = {
    "layers": ("num_hidden_layers", "deeper"),
    "width": ("hidden_size", "wider"),
    "heads": ("num_attention_heads", "wider in its attention"),
}
"""Sizes by field: what a config calls them, and what a rule that changes them makes of a network."""


class Grown(Model):
    """A model of the same kind as a smaller one, larger, whose first weights are made from it by rules of growth.

    The rules act in order; by default the network is first made wider by copies of its units, then deeper by copies of
    its layers. Sizes that are left out stay, but for heads and feed-forward layers, which grow with the width. Features
    per head stay: heads are copied whole. Of models with grouped-query attention the groups are copied, with the heads
    that read them. Positions and the vocabulary stay, and so must the tokenizer.

    Training the smaller model was paid before the run. A study counts it as a one-off cost where the smaller model is
    a product that the baseline does not use, and judges the arm against a longer baseline too.
    """

    kind: Literal["grown"] = "grown"
    path: ModelPath
    """The smaller model: a finished run's directory, a folder that `transformers` saved, a hub id, or (in a study)
    `product:NAME`."""
    rules: list[PartOf[Growth]] = Field(
        [{"kind": "function_preserving"}, {"kind": "stacking"}], validate_default=True, min_length=1
    )
    """How weights of one size become weights of another, one rule after the other."""
    layers: Count | None = Field(None, gt=0)
    """Number of blocks; unset: as many as the smaller model has."""
    width: Count | None = Field(None, gt=0)
    """Features per token between the blocks; unset: as many as the smaller model has."""
    heads: Count | None = Field(None, gt=0)
    """Attention heads; unset: as many times those of the smaller model as the width."""
    feedforward: Count | None = Field(None, gt=0)
    """Width of the feed-forward layers; unset: as many times that of the smaller model as the width."""
    tied: bool | None = None
    """Whether input and output embeddings are one matrix; unset: as in the smaller model. One that is tied may be
    untied, and not the other way round."""
    facts: ClassVar[Facts] = Facts(answers="what is the network? a larger one that begins as a smaller one")

    @property
    def source(self) -> Pretrained:
        """The smaller model; of a run, what it exported."""
        exported = Path(self.path) / "model"
        if (Path(self.path) / "recipe.yaml").is_file():
            if not (exported / "config.json").is_file():
                raise RequestError(
                    f"model.path: the run {self.path} has not ended, so it has no model yet; let it end, or export a "
                    "checkpoint of it (foretrain export) and name that folder."
                )
            return Pretrained(path=str(exported), context=self.context)
        return Pretrained(path=self.path, context=self.context)

    def config(self, vocabulary: int, special: dict[str, int | None]) -> PretrainedConfig:
        small = self.source.config(vocabulary, special)
        refuse_unknown(small)
        config = self._larger(small)
        _of_source(small, config)
        reached = small
        for rule in self.rules:
            reached = rule.shape(reached, config)
        for name, (attribute, more) in {**_SIZES, "feedforward": ("", "wider in its feed-forward layers")}.items():
            have, want = (getattr(one, attribute) if attribute else feedforward(one) for one in (reached, config))
            if have != want:
                raise RequestError(
                    f"model.rules: no rule makes the network {more}: {name} stays at {have}, and {want} are wanted. "
                    "Add a rule, such as {kind: stacking} for layers or {kind: function_preserving} for widths."
                )
        return config

    def build(self, config: PretrainedConfig, seed: int) -> PreTrainedModel:
        small = self.source.build(self.source.config(1, {}), seed)
        network = Network.of(small)
        _of_source(small.config, config)
        for rule in self.rules:
            network = rule.grow(network, rule.shape(network.config, config), seed)
        return Network(config, network.weights).model()

    def context_length(self, config: PretrainedConfig) -> int:
        return self.source.context_length(config)

    def skeleton(self, config: PretrainedConfig) -> PreTrainedModel:
        with torch.device("meta"):
            return from_config(config)

    def default_tokenizer(self) -> Tokenizer:
        return self.source.default_tokenizer()

    def notes(self, config: PretrainedConfig, tokenizer: TextTokenizer | None) -> Iterable[str]:
        self._refuse_other_tokenizer(tokenizer)
        small = self.source.config(1, {})
        shapes = [
            f"{one.num_hidden_layers} layers of {one.hidden_size} with {one.num_attention_heads} heads"
            for one in (small, config)
        ]
        yield f"the model is grown from {self.path}: {shapes[0]} become {shapes[1]}{self._paid()}"
        for rule in self.rules:
            reached = rule.shape(small, config)
            yield from rule.notes(small, reached)
            small = reached

    def _larger(self, small: PretrainedConfig) -> PretrainedConfig:
        """The config of the larger model."""
        config = copy.deepcopy(small)
        width = self.width or int(small.hidden_size)
        features, own = features_per_head(small), groups(small)
        heads = self.heads or self._scaled("heads", int(small.num_attention_heads), width, small)
        inner = self.feedforward or self._scaled("feedforward", feedforward(small), width, small)
        wanted = {"layers": self.layers or small.num_hidden_layers, "width": width, "heads": heads}
        for name, value in wanted.items():
            have = int(getattr(small, _SIZES[name][0]))
            if value < have:
                raise RequestError(
                    f"model.{name}: {value} are fewer than the {have} of {self.path}; growth makes models larger."
                )
            setattr(config, _SIZES[name][0], value)
        if inner < feedforward(small):
            raise RequestError(
                f"model.feedforward: {inner} are fewer than the {feedforward(small)} of {self.path}; growth makes "
                "models larger."
            )
        setattr(config, "n_inner" if hasattr(config, "n_inner") else "intermediate_size", inner)
        together = int(small.num_attention_heads) // own
        if heads % together:
            raise RequestError(
                f"model.heads: {self.path} has {together} heads to each of keys and values, and {heads} heads are not "
                f"whole groups of {together}."
            )
        if hasattr(config, "num_key_value_heads"):
            config.num_key_value_heads = heads // together
        if getattr(config, "head_dim", None) is None and heads * features != width:
            raise RequestError(
                f"model.heads: heads are copied whole, and those of {self.path} have {features} features each, so a "
                f"width of {width} has {_whole(width, features)} heads, not {heads}."
            )
        if self.tied is not None and self.tied != config.tie_word_embeddings:
            if self.tied:
                raise RequestError(
                    f"model.tied: the output layer of {self.path} is a matrix of its own; it cannot become the "
                    "embedding."
                )
            config.tie_word_embeddings = False
        return config

    def _scaled(self, name: str, size: int, width: int, small: PretrainedConfig) -> int:
        """A size that grows as the width does."""
        whole, rest = divmod(size * width, int(small.hidden_size))
        if rest:
            raise RequestError(
                f"model.{name}: {self.path} has {size} of them at a width of {small.hidden_size}, which is no whole "
                f"number at {width}; name one, or take a width that is a multiple."
            )
        return whole

    def _refuse_other_tokenizer(self, tokenizer: TextTokenizer | None) -> None:
        if tokenizer is None:
            return
        try:
            theirs = self.default_tokenizer().build(lambda: iter(()))
        except RequestError as error:
            raise RequestError(
                f"model.path: {self.path} has no tokenizer beside it that can be read, so its tokens cannot be told "
                f"to be this run's ({error})"
            ) from error
        if theirs.hash != tokenizer.hash:
            raise RequestError(
                f"model.path: {self.path} was trained with another tokenizer than this run's, so its embeddings mean "
                "other tokens. Leave `tokenizer` out to use the model's own."
            )

    def _paid(self) -> str:
        """What training the smaller model cost, where it is a run."""
        from foretrain.run_directory import RunDirectory

        folder = Path(self.source.path)
        spent = RunDirectory(folder.parent).cost()["flops"] if folder.name == "model" else None
        return f", whose training cost {units.flops(spent)} beside this run's" if spent else ""


def _of_source(small: PretrainedConfig, config: PretrainedConfig) -> None:
    """Whether the output layer is tied is decided before the first rule: a tied one is there under both names."""
    small.tie_word_embeddings = config.tie_word_embeddings


def _whole(width: int, features: int) -> str:
    return str(width // features) if width % features == 0 else f"no whole number ({width} / {features}) of"
