"""Vectors in parameter space: gradients and directions over a named subset of the weights, in float32.

A vector is a plain mapping from parameter name to tensor, whole or sharded over ranks (FSDP2) as the parameter is.
Sums run over whole vectors: those of shards are added up over the ranks, so a number is the same on every rank.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from foretrain.hashing import seed_from

Vector = dict[str, Tensor]
"""Tensors (float32) by parameter name."""


def dot(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """The inner product of two vectors over the same names; products are summed in float64.

    Raises:
        ValueError: they are not over the same names.
    """
    if a.keys() != b.keys():
        raise ValueError(f"vectors over other parameters: {sorted(a.keys() ^ b.keys())[:3]} stand in one of them only")
    total = torch.zeros((), dtype=torch.float64)
    for name, tensor in a.items():
        # Float32 products of one tensor are summed pairwise by torch; the sum over tensors is in float64.
        total = total + _number(tensor.float() * b[name].float())
    return float(total)


def norm(a: Mapping[str, Tensor]) -> float:
    """Euclidean norm."""
    return dot(a, a) ** 0.5


def cosine(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Cosine of the angle between two vectors; 0 where one of them is zero."""
    lengths = norm(a) * norm(b)
    return dot(a, b) / lengths if lengths > 0 else 0.0


def cosine_slope(direction: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> Vector:
    """How the cosine of a gradient to a direction of unit length changes with the gradient; zero where that is zero."""
    length = norm(gradient)
    if length == 0:
        return scaled(direction, 0.0)
    return scaled(added(direction, gradient, -cosine(direction, gradient) / length), 1 / length)


def scaled(a: Mapping[str, Tensor], factor: float) -> Vector:
    """`factor * a`."""
    return {name: tensor * factor for name, tensor in a.items()}


def unit(a: Mapping[str, Tensor]) -> Vector:
    """`a` at length 1; a zero vector stays zero."""
    length = norm(a)
    return scaled(a, 1 / length) if length > 0 else dict(a)


def added(a: Mapping[str, Tensor], b: Mapping[str, Tensor], factor: float = 1.0) -> Vector:
    """`a + factor * b`, over the names of `b`, of which `a` has all."""
    return {name: a[name].detach() + factor * tensor for name, tensor in b.items()}


def random_like(a: Mapping[str, Tensor], seed: int) -> Vector:
    """A random direction (Gaussian), each tensor at the length that `a` has there; pure in the seed.

    Whole numbers are drawn on the CPU, the same on every rank and device, and cut as the tensor is.
    """
    from foretrain.distributed import like

    drawn: Vector = {}
    for name, tensor in a.items():
        generator = torch.Generator().manual_seed(seed_from(seed, "random direction", name))
        noise = like(torch.randn(tensor.shape, generator=generator), tensor)
        length = float(_number(noise * noise)) ** 0.5
        drawn[name] = noise * (float(_number(tensor * tensor)) ** 0.5 / max(length, 1e-30))
    return drawn


def _number(product: Tensor) -> Tensor:
    """The sum of all entries, of all shards, in float64 on the CPU."""
    total = product.sum()
    if isinstance(total, DTensor):
        total = total.full_tensor()
    return total.double().cpu()
