"""Scratch: what all models built from scratch share: a preset, the sizes that override it, and their fit."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field, field_validator, model_validator
from transformers import PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from foretrain.errors import unknown_name
from foretrain.models.base import Model, from_config
from foretrain.models.initialise import initialise
from foretrain.models.presets import PRESETS, Preset
from foretrain.section import Count, Number

if TYPE_CHECKING:
    from typing_extensions import Self

    from foretrain.tokens.tokenizers.base import Tokenizer


class Scratch(Model):
    """A model built from scratch. Fields that are left out come from the preset.

    The embedding has exactly one row per id of the tokenizer: rows are not padded, so the exported model is the one
    that was trained.
    """

    architecture: ClassVar[str] = ""
    """Name of the `transformers` class."""

    preset: str = "6M"
    """Named size: 0.2M, 1M, 3M, 6M, 15M, 30M, 50M, 125M, 350M, 1B, 3B, 7B or 13B parameters."""
    layers: Count | None = Field(None, gt=0)
    """Number of blocks."""
    width: Count | None = Field(None, gt=0)
    """Features per token between the blocks."""
    heads: Count | None = Field(None, gt=0)
    """Attention heads; unset beside a `width` of your own: heads of 64 features, or of 32 below a width of 256."""
    feedforward: Count | None = Field(None, gt=0)
    """Width of the feed-forward layers; unset: the usual multiple of the width."""
    context: Count | None = Field(None, gt=1)
    """Tokens the model reads at once; unset: the preset's."""
    tied: bool | None = None
    """Whether input and output embeddings are one matrix."""
    dropout: Number = Field(0.0, ge=0, lt=1)
    """Share of activations dropped in training."""

    @field_validator("preset")
    @classmethod
    def _known(cls, name: str) -> str:
        if name.upper() not in PRESETS:
            raise ValueError(unknown_name("preset", name, PRESETS))
        return name.upper()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        size = self.size
        if size.width % size.heads:
            raise ValueError(
                f"a width of {size.width} cannot be shared by {size.heads} heads; it should be a multiple of them"
            )
        return self

    @property
    def size(self) -> Preset:
        """The preset with everything that overrides it."""
        preset = PRESETS[self.preset]
        width = self.width or preset.width
        heads = self.heads or (preset.heads if width == preset.width else _heads(width))
        return Preset(
            layers=self.layers or preset.layers,
            width=width,
            heads=heads,
            context=self.context or preset.context,
            vocabulary=preset.vocabulary,
            tied=preset.tied if self.tied is None else self.tied,
        )

    def config(self, vocabulary: int, special: dict[str, int | None]) -> PretrainedConfig:
        config = self.shape(
            vocab_size=vocabulary,
            tie_word_embeddings=self.size.tied,
            bos_token_id=special.get("bos"),
            eos_token_id=special.get("eos"),
            pad_token_id=special.get("pad"),
        )
        config.architectures = [self.architecture]
        config._attn_implementation = "sdpa"
        return config

    @abstractmethod
    def shape(self, **common: Any) -> PretrainedConfig:
        """The config of this kind of model; `common` are the arguments that all kinds take."""

    def build(self, config: PretrainedConfig, seed: int) -> PreTrainedModel:
        # The library's own initialisation would cost minutes at billions of parameters, and some of it is drawn anyway.
        with no_init_weights(), torch.random.fork_rng(devices=[]):
            model = from_config(config)
        model.tie_weights()
        initialise(model, seed)
        return model.eval()

    def default_tokenizer(self) -> Tokenizer:
        from foretrain.tokens.tokenizers.bpe import Bpe

        return Bpe()


def _heads(width: int) -> int:
    features = 64 if width % 64 == 0 and width >= 256 else 32
    return max(1, width // features)
