"""Model: what a recipe says about the network, before it is built."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from transformers import PretrainedConfig, PreTrainedModel

from foretrain.parts import Part


class Model(Part):
    """Describes a `transformers` model: a size built from scratch, or a folder to load.

    `config` and `count` never allocate weights, so `foretrain check` works for any size.
    """

    axis: ClassVar[str] = "model"

    @abstractmethod
    def config(self, vocabulary: int, special: dict[str, int | None]) -> PretrainedConfig:
        """The `transformers` config for a tokenizer with `vocabulary` ids (`special`: bos, eos, pad ids)."""

    @abstractmethod
    def build(self, config: PretrainedConfig, seed: int) -> PreTrainedModel:
        """The model in fp32 on CPU, initialised from `seed` alone (or loaded)."""

    def skeleton(self, config: PretrainedConfig) -> PreTrainedModel:
        """The model on the meta device: names and shapes of all parameters, no memory."""
        from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

        auto = AutoModelForMaskedLM if config.model_type == "bert" else AutoModelForCausalLM
        with torch.device("meta"):
            return auto.from_config(config)
