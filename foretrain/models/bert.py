"""A BERT encoder, from scratch."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from transformers import BertConfig, PretrainedConfig

from foretrain.models.scratch import Scratch
from foretrain.parts import Facts
from foretrain.section import Number


class Bert(Scratch):
    """BERT: encoder that reads both ways, with learned positions, layer norms after each sub-layer, GELU and biases.

    For masked objectives. `feedforward` defaults to four times the width.
    """

    kind: Literal["bert"] = "bert"
    architecture: ClassVar[str] = "BertForMaskedLM"
    norm_eps: Number = Field(1e-12, gt=0)
    """Added to the variance inside norms."""
    facts: ClassVar[Facts] = Facts(
        paper="BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
        arxiv="1810.04805",
        year=2018,
        answers="what is the network? an encoder",
    )

    def shape(self, **common: Any) -> PretrainedConfig:
        size = self.size
        return BertConfig(
            num_hidden_layers=size.layers,
            hidden_size=size.width,
            num_attention_heads=size.heads,
            intermediate_size=self.feedforward or 4 * size.width,
            max_position_embeddings=size.context,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            layer_norm_eps=self.norm_eps,
            **common,
        )
