"""Networks: the weights of models as numbers of one meaning, and whether those of two models are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

_FREE = re.compile(r"^_|dropout|pdrop|initializer|token_id|use_cache|version|dtype|architectures")
"""Keys of a config that do not change what weights mean."""


def weights_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """Parameters (tied ones once) and the buffers that are saved, by name."""
    saved = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    return {**{name: parameter.detach() for name, parameter in model.named_parameters()}, **buffers}


def differences(
    weights: Mapping[str, Tensor],
    config: PretrainedConfig,
    others: Mapping[str, Tensor],
    other_config: PretrainedConfig,
) -> list[str]:
    """Why the weights of two models are not numbers of the same meaning: `what: here and there`; empty if they are."""
    here = {name: list(weight.shape) for name, weight in weights.items()}
    there = {name: list(weight.shape) for name, weight in others.items()}
    shapes = [
        f"{name}: {here.get(name, 'none')} and {there.get(name, 'none')}"
        for name in {**there, **here}
        if here.get(name) != there.get(name)
    ]
    ours, theirs = _settings(config), _settings(other_config)
    return shapes or [
        f"{key}: {ours.get(key)} and {theirs.get(key)}"
        for key in {"model_type": "", **theirs, **ours}  # first of all whether they are of one family
        if ours.get(key) != theirs.get(key)
    ]


def _settings(config: PretrainedConfig) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if not _FREE.search(key)}
