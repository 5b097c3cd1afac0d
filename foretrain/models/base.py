"""Model: what a recipe says about the network, before it is built."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from foretrain.errors import RequestError
from foretrain.parts import Part
from foretrain.section import Count

if TYPE_CHECKING:
    from foretrain.tokens.tokenizers.base import Tokenizer

Family = Literal["decoder", "encoder"]


class Model(Part):
    """Describes a `transformers` model: a size built from scratch, or a folder to load.

    `config` and `skeleton` never allocate weights, so `foretrain check` works for any size.
    """

    axis: ClassVar[str] = "model"

    context: Count | None = Field(None, gt=1)
    """Tokens the model reads at once."""

    @abstractmethod
    def config(self, vocabulary: int, special: dict[str, int | None]) -> PretrainedConfig:
        """The `transformers` config for a tokenizer with `vocabulary` ids (`special`: bos, eos, pad ids).

        Raises:
            RequestError: the model cannot be had, or doesn't fit this tokenizer or context.
        """

    @abstractmethod
    def build(self, config: PretrainedConfig, seed: int) -> PreTrainedModel:
        """The model in fp32 on CPU, initialised from `seed` alone (or loaded), with dropout off until `.train()`."""

    @abstractmethod
    def default_tokenizer(self) -> Tokenizer:
        """The tokenizer of a recipe that names none."""

    def context_length(self, config: PretrainedConfig) -> int:
        """Tokens the model reads at once in this run."""
        return int(config.max_position_embeddings)

    def skeleton(self, config: PretrainedConfig) -> PreTrainedModel:
        """The model on the meta device: names and shapes of all parameters, no memory."""
        with torch.device("meta"):
            model: PreTrainedModel = auto_class(config).from_config(config)
        return model


def family(config: PretrainedConfig) -> Family:
    """Whether a model reads from left to right (`decoder`) or both ways at once (`encoder`).

    Decided by the architecture that the config names, else by what `transformers` has for its type.

    Raises:
        RequestError: it is neither (an encoder-decoder, a model of something else than text).
    """
    names = " ".join(config.architectures or [])
    if config.is_encoder_decoder:
        raise RequestError(
            f"A model of type '{config.model_type}' is an encoder-decoder; foretrain trains decoders and encoders."
        )
    if "ForMaskedLM" in names or "ForPreTraining" in names:
        return "encoder"
    if "ForCausalLM" in names or "LMHead" in names or getattr(config, "is_decoder", False):
        return "decoder"
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "encoder"
    if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or "AutoModelForCausalLM" in getattr(
        config, "auto_map", {}
    ):
        return "decoder"
    raise RequestError(f"A model of type '{config.model_type}' is neither a causal nor a masked language model.")


def auto_class(config: PretrainedConfig) -> type[AutoModelForCausalLM] | type[AutoModelForMaskedLM]:
    """The `transformers` class that builds or loads a model of this family."""
    return AutoModelForMaskedLM if family(config) == "encoder" else AutoModelForCausalLM
