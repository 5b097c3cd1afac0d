"""Size: how many parameters a model has, counted on its skeleton."""

from __future__ import annotations

from torch import nn

from foretrain.models.roles import parameter_roles


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Numbers of parameters; tied weights count once, and meta tensors cost no memory.

    Returns:
        `total`; `without_embeddings` (neither embeddings nor an output layer of its own: what scaling laws count);
        `trained` (those that require a gradient).
    """
    roles = parameter_roles(model)
    numbers = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return {
        "total": sum(numbers.values()),
        "without_embeddings": sum(n for name, n in numbers.items() if roles[name].kind not in ("embedding", "head")),
        "trained": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
    }
