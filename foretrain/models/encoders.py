"""Encoders: a decoder's weights in the encoder of the same blocks, which reads both ways."""

from __future__ import annotations

import torch
from transformers import EuroBertConfig, PretrainedConfig, PreTrainedModel

from foretrain.errors import RequestError
from foretrain.models.attention import reading
from foretrain.models.base import family

_OWN = ("architectures", "model_type", "mask_token_id", "classifier_pooling", "transformers_version")
"""What an encoder's config does not take from a decoder's."""


def as_encoder(config: PretrainedConfig, mask: int | None, asks: str) -> PretrainedConfig:
    """The config of the encoder with a decoder's sizes; an encoder's own as it is.

    Args:
        config: of the model.
        mask: id of the mask, where the tokenizer has one.
        asks: what wants it, for the message.

    Raises:
        RequestError: it is no model of text with rotary positions.
    """
    if family(config) == "encoder":
        return config
    if not getattr(config, "rope_parameters", None):
        raise RequestError(
            f"{asks} is a model of type '{config.model_type}', and only decoders of Llama's blocks (rotary positions, "
            "RMS norms, gated feed-forward) have an encoder of the same blocks."
        )
    known = [name for name in EuroBertConfig().to_dict() if name not in _OWN]
    taken = {name: value for name, value in config.to_dict().items() if name in known}
    encoder = EuroBertConfig(**taken, mask_token_id=mask or 0, classifier_pooling="mean")
    encoder.architectures = ["EuroBertForMaskedLM"]
    return encoder


@torch.no_grad()
def refuse_other_blocks(encoder: PreTrainedModel, decoder: PreTrainedModel, asks: str) -> None:
    """Say so where an encoder that is told to read causally does not say what the decoder of its weights does.

    Raises:
        RequestError: their blocks differ.
    """
    ids = torch.arange(8)[None] % decoder.config.vocab_size
    ours = encoder.eval()(input_ids=ids, **reading(encoder, "causal", {"inputs": ids})).logits
    theirs = decoder.eval()(input_ids=ids, **reading(decoder, "causal", {"inputs": ids})).logits
    if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max())):
        raise RequestError(
            f"{asks} has blocks of its own (type '{decoder.config.model_type}'), so its weights mean something else in "
            "the encoder that foretrain has; decoders of Llama's blocks alone can be read both ways."
        )
