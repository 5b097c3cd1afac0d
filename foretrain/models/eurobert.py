"""An encoder with the blocks of a decoder, from scratch: the same weights read causally or both ways."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from transformers import EuroBertConfig, PretrainedConfig

from foretrain.models.llama import Llama
from foretrain.parts import Facts


class EuroBert(Llama):
    """EuroBERT: a Llama without its causal mask (rotary positions, RMS norms, SwiGLU, no biases).

    The objective says how it reads: `masked_lm` both ways, `causal_lm` causally, `phases` one after the other, with the
    same weights. The exported model reads both ways, with mean pooling where it classifies. Its parameters are those of
    a `llama` of the same size, by name too, so either can begin with the weights of the other (`--from`).
    """

    kind: Literal["eurobert"] = "eurobert"  # type: ignore[assignment]
    architecture: ClassVar[str] = "EuroBertForMaskedLM"
    config_class: ClassVar[Any] = EuroBertConfig
    facts: ClassVar[Facts] = Facts(
        paper="EuroBERT: Scaling Multilingual Encoders for European Languages",
        arxiv="2503.05500",
        year=2025,
        answers="what is the network? an encoder that can read causally",
    )

    def config(self, vocabulary: int, special: dict[str, int | None]) -> PretrainedConfig:
        config = super().config(vocabulary, special)
        if special.get("mask") is not None:
            config.mask_token_id = special["mask"]
        return config

    def shape(self, **common: Any) -> PretrainedConfig:
        # The library's own id of the mask lies beyond most vocabularies, and the field takes no None.
        return super().shape(mask_token_id=0, classifier_pooling="mean", **common)
