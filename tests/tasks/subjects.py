"""Tiny random models of `transformers` for tests of tasks and generation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from foretrain.subject import Subject
from foretrain.tokens.reserved import assemble, byte_level
from foretrain.tokens.tokenizer import TextTokenizer

CONTEXT = 48
SPACE = "Ġ"  # The letter that byte-level tokenizers write for a space.


@cache
def byte_tokenizer() -> TextTokenizer:
    return assemble([], byte_level(False))


@cache
def word_tokenizer() -> TextTokenizer:
    """Some merges, with and without a space in front, so that the border of prompt and completion matters."""
    merges = [("a", "b"), (SPACE, "ab"), ("c", "d"), ("ab", "cd"), (SPACE, "c")]
    return assemble(merges, byte_level(True))


def model(kind: str = "llama", vocabulary: int = 390, seed: int = 0, context: int = CONTEXT) -> PreTrainedModel:
    """A model whose logits differ clearly from token to token."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        shape: dict[str, Any] = {"vocab_size": vocabulary, "initializer_range": 0.2}
        if kind == "llama":
            made: PreTrainedModel = LlamaForCausalLM(
                LlamaConfig(
                    **shape,
                    hidden_size=32,
                    intermediate_size=48,
                    num_hidden_layers=2,
                    num_attention_heads=4,
                    num_key_value_heads=2,
                    max_position_embeddings=context,
                )
            )
        elif kind == "gpt2":
            made = GPT2LMHeadModel(GPT2Config(**shape, n_embd=32, n_layer=2, n_head=4, n_positions=context))
        else:
            assert kind == "bert"
            made = BertForMaskedLM(
                BertConfig(
                    **shape,
                    hidden_size=32,
                    intermediate_size=48,
                    num_hidden_layers=2,
                    num_attention_heads=4,
                    max_position_embeddings=context,
                )
            )
    return made


def subject(
    kind: str = "llama",
    tokenizer: TextTokenizer | None = None,
    *,
    context: int = CONTEXT,
    seed: int = 0,
    batch_tokens: int = 8192,
) -> Subject:
    return Subject(
        model(kind, seed=seed, context=context), tokenizer or byte_tokenizer(), context, batch_tokens=batch_tokens
    )


def write_items(path: Path, items: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return str(path)
