"""Model folders for tests of arithmetic: a base, and models that differ from it by known amounts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from tests.tasks.subjects import byte_tokenizer


def make(seed: int = 0, layers: int = 4, width: int = 16, tied: bool = True, **settings: Any) -> PreTrainedModel:
    """A model whose logits differ clearly from token to token."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(
            LlamaConfig(
                **{
                    "vocab_size": 390,
                    "hidden_size": width,
                    "intermediate_size": 24,
                    "num_hidden_layers": layers,
                    "num_attention_heads": 2,
                    "max_position_embeddings": 48,
                    "initializer_range": 0.2,
                    "tie_word_embeddings": tied,
                    **settings,
                }
            )
        )


def save(model: PreTrainedModel, folder: Path, **settings: Any) -> Path:
    """A folder with a model and its tokenizer."""
    model.save_pretrained(folder, **settings)
    byte_tokenizer().save(folder)
    return folder


def changed(base: Path, folder: Path, seed: int, size: float = 0.05) -> Path:
    """The model of another folder, with random changes of its weights."""
    model, generator = load(base), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return save(model, folder)


def load(folder: Path) -> PreTrainedModel:
    """The model of a folder, by transformers alone."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    return model.eval()


def numbers(folder: Path) -> dict[str, Tensor]:
    """Weights by name, tied ones once, in float64."""
    return {name: parameter.detach().double() for name, parameter in load(folder).named_parameters()}
