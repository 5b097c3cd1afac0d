"""Model: what a recipe says about the network, before it is built."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_MAPPING,
)
from transformers.utils import logging

from foretrain.errors import RequestError
from foretrain.parts import Part
from foretrain.section import Count

if TYPE_CHECKING:
    from foretrain.tokens.tokenizer import TextTokenizer
    from foretrain.tokens.tokenizers.base import Tokenizer

Family = Literal["decoder", "encoder", "vision"]


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
        """Tokens (patches, of an image) the model reads at once in this run."""
        return patches(config) if family(config) == "vision" else int(config.max_position_embeddings)

    def notes(self, config: PretrainedConfig, tokenizer: TextTokenizer | None) -> Iterable[str]:
        """What a user should know of the model in this run, for the plan; `tokenizer` is the run's.

        Raises:
            RequestError: the tokenizer has as many ids as the model expects, and is another one all the same.
        """
        return ()

    def skeleton(self, config: PretrainedConfig) -> PreTrainedModel:
        """The model on the meta device: names and shapes of all parameters, no memory."""
        with torch.device("meta"):
            return from_config(config)


def family(config: PretrainedConfig) -> Family:
    """Whether a model reads text from left to right (`decoder`), both ways at once (`encoder`), or images (`vision`).

    Decided by the architecture that the config names, else by what `transformers` has for its type; a model of images
    is one that cuts them into patches.

    Raises:
        RequestError: it is none of these (an encoder-decoder, a model of speech).
    """
    names = " ".join(config.architectures or [])
    if config.is_encoder_decoder:
        raise RequestError(
            f"A model of type '{config.model_type}' is an encoder-decoder; foretrain trains decoders and encoders."
        )
    if all(isinstance(getattr(config, name, None), int) for name in ("image_size", "patch_size", "num_channels")):
        return "vision"
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


def families(config: PretrainedConfig) -> tuple[Family, ...]:
    """The families whose objectives can train a model: its own, and for an encoder with rotary positions both of text.

    Such an encoder (EuroBERT) is a decoder without its mask, and reads causally where it is given one. Those that mix
    layers of several kinds of attention are not: a mask of every pair would undo their windows.
    """
    own = family(config)
    turns = own == "encoder" and getattr(config, "rope_parameters", None) and not getattr(config, "layer_types", None)
    return (own, "decoder") if turns else (own,)


def patches(config: PretrainedConfig) -> int:
    """Patches of an image of the size that a vision model is made for."""
    return (int(config.image_size) // int(config.patch_size)) ** 2


def auto_class(config: PretrainedConfig) -> type[AutoModel] | type[AutoModelForCausalLM] | type[AutoModelForMaskedLM]:
    """The `transformers` class that builds or loads a model of this family."""
    kind = family(config)
    return AutoModel if kind == "vision" else AutoModelForMaskedLM if kind == "encoder" else AutoModelForCausalLM


def from_config(config: PretrainedConfig, **settings: Any) -> PreTrainedModel:
    """The model of a config, with the library's own initialisation."""
    model: PreTrainedModel = auto_class(config).from_config(config, **_bare(config), **settings)
    return model


def from_folder(folder: str, config: PretrainedConfig, **settings: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model that a folder or the hub holds in safetensors, in fp32; and what `transformers` says of its loading."""
    logging.disable_progress_bar()  # its lines would stand among ours
    found: Any = auto_class(config).from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
        **_bare(config),
        **settings,
    )
    return found[0], found[1]


def _bare(config: PretrainedConfig) -> dict[str, bool]:
    """Leaves out the layer that some vision models put on their class token: nothing here would train it."""
    known: Any = MODEL_MAPPING[type(config)] if family(config) == "vision" and type(config) in MODEL_MAPPING else None
    takes = known is not None and "add_pooling_layer" in inspect.signature(known).parameters
    return {"add_pooling_layer": False} if takes else {}
