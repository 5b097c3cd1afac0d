"""A decoder of today's common shape, from scratch: rotary positions, RMS norms, gated feed-forward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator
from transformers import LlamaConfig, PretrainedConfig

from foretrain.models.presets import swiglu_width
from foretrain.models.scratch import Scratch
from foretrain.parts import Facts
from foretrain.section import Count, Number

if TYPE_CHECKING:
    from typing_extensions import Self


class Llama(Scratch):
    """Llama: decoder with rotary positions, RMS norms, SwiGLU and no biases; grouped-query attention if asked for.

    `dropout` acts on attention weights only; the architecture has no other. `feedforward` defaults to 8/3 of the
    width, rounded up to a multiple of 64 (256 from a width of 1024 on).
    """

    kind: Literal["llama"] = "llama"
    architecture: ClassVar[str] = "LlamaForCausalLM"
    config_class: ClassVar[Any] = LlamaConfig
    """Of `transformers`, for models whose configs have the same names."""
    kv_heads: Count | None = Field(None, gt=0)
    """Heads of keys and values, shared by groups of attention heads; unset: as many as heads."""
    norm_eps: Number = Field(1e-5, gt=0)
    """Added to the mean square inside norms."""
    rope_base: Number = Field(10_000.0, gt=0)
    """Base of the rotary wavelengths; larger for long contexts."""
    facts: ClassVar[Facts] = Facts(
        paper="LLaMA: Open and Efficient Foundation Language Models",
        arxiv="2302.13971",
        year=2023,
        answers="what is the network? a decoder with rotary positions",
    )

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        size, groups = self.size, self.kv_heads or self.size.heads
        if size.heads % groups:
            raise ValueError(
                f"{size.heads} heads cannot share {groups} kv_heads; heads should be a multiple of kv_heads"
            )
        if (size.width // size.heads) % 2:
            raise ValueError(
                f"rotary positions turn pairs of features; {size.width // size.heads} features a head are odd"
            )
        return self

    def shape(self, **common: Any) -> PretrainedConfig:
        size = self.size
        config: PretrainedConfig = self.config_class(
            num_hidden_layers=size.layers,
            hidden_size=size.width,
            num_attention_heads=size.heads,
            num_key_value_heads=self.kv_heads or size.heads,
            intermediate_size=self.feedforward or swiglu_width(size.width),
            max_position_embeddings=size.context,
            attention_dropout=self.dropout,
            rms_norm_eps=self.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_base},
            **common,
        )
        return config
