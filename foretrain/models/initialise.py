"""Initialisation: every parameter drawn from its own generator, at a scale that follows width and depth.

- Matrices and embeddings: normal, with standard deviation `sqrt(2 / (5 * width))` ("small init", arXiv 1910.05895;
  0.02 at a width of 1000, more below it).
- Matrices whose output is added to the residual stream: divided by `sqrt(2 * layers)`, so that the stream keeps its
  size whatever the depth (Radford et al. 2019).
- Norm scales 1, biases 0.

Measured on llama and gpt2 of 4 x 128 (bytes of web text and encyclopedia articles, 150 steps of 1024 tokens, learning
rates 1e-3 and 4e-3, two seeds): this rule was the best in all four settings. Mean loss of the last 20 steps, in nats,
of llama at 4e-3: this rule 2.245; 1 / sqrt(width) 2.280; this rule without the division by depth 2.372; 0.02 2.58.

A parameter's generator comes from the seed and the parameter's name alone: neither the order of construction nor other
parameters' shapes nor torch's global generator matter.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import nn
from transformers import PreTrainedModel

from foretrain.hashing import seed_from
from foretrain.models.roles import Role, blocks, parameter_roles

RESIDUAL = ("o_proj", "down_proj", "c_proj", "attention.output.dense", "output.dense", "mlp.fc2")
"""Ends of the paths of modules whose output is added to the residual stream."""


def deviation(role: Role, width: int, layers: int) -> float:
    """Standard deviation of a matrix or embedding at the start."""
    base = math.sqrt(2 / (5 * width))
    residual = role.kind == "matrix" and role.block is not None and role.path.endswith(RESIDUAL)
    return base / math.sqrt(2 * layers) if residual else base


@torch.no_grad()
def initialise(model: PreTrainedModel, seed: int, names: Collection[str] | None = None) -> None:
    """Set every parameter (or those named) to its starting value, in place; pure in the seed, names and shapes."""
    roles = parameter_roles(model)
    width, layers = int(model.config.hidden_size), blocks(roles)
    fresh: set[int] = set()
    for name, parameter in model.named_parameters():
        if names is not None and name not in names:
            continue
        fresh.add(id(parameter))
        role = roles[name]
        if role.kind in ("matrix", "embedding", "head"):
            generator = torch.Generator().manual_seed(seed_from(seed, "initialise", name))
            parameter.normal_(0.0, deviation(role, width, layers), generator=generator)
        else:
            parameter.fill_(1.0 if role.kind == "norm" else 0.0)
    for module in model.modules():
        # A padding row is never looked up for its content; transformers keeps it at zero. One that was trained is left:
        # where the output layer is tied to it, it is the padding's logit.
        if isinstance(module, nn.Embedding) and module.padding_idx is not None and id(module.weight) in fresh:
            module.weight[module.padding_idx].zero_()
