"""A GPT-2 decoder, from scratch: learned positions, layer norms, biases."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from transformers import GPT2Config, PretrainedConfig

from foretrain.models.scratch import Scratch
from foretrain.parts import Facts
from foretrain.section import Number


class Gpt2(Scratch):
    """GPT-2: decoder with learned positions, layer norms before each sub-layer, GELU and biases.

    `feedforward` defaults to four times the width.
    """

    kind: Literal["gpt2"] = "gpt2"
    architecture: ClassVar[str] = "GPT2LMHeadModel"
    norm_eps: Number = Field(1e-5, gt=0)
    """Added to the variance inside norms."""
    facts: ClassVar[Facts] = Facts(
        paper="Language Models are Unsupervised Multitask Learners",
        year=2019,
        answers="what is the network? a decoder with learned positions",
    )

    def shape(self, **common: Any) -> PretrainedConfig:
        size = self.size
        return GPT2Config(
            n_layer=size.layers,
            n_embd=size.width,
            n_head=size.heads,
            n_inner=self.feedforward or 4 * size.width,
            n_positions=size.context,
            resid_pdrop=self.dropout,
            embd_pdrop=self.dropout,
            attn_pdrop=self.dropout,
            layer_norm_epsilon=self.norm_eps,
            **common,
        )
