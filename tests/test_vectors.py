"""Vectors: sums against torch's own on flat tensors, and random directions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from foretrain import vectors


def _pair() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return tuple(  # type: ignore[return-value]
        {name: torch.randn(shape, generator=generator) for name, shape in (("a", (4, 5)), ("b", (7,)))}
        for _ in range(2)
    )


def _flat(vector: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in vector.values()]).double()


def test_sums_equal_those_of_flat_tensors() -> None:
    one, two = _pair()
    assert vectors.dot(one, two) == pytest.approx(float(_flat(one) @ _flat(two)), rel=1e-6)
    assert vectors.norm(one) == pytest.approx(float(_flat(one).norm()), rel=1e-6)
    expected = float(torch.nn.functional.cosine_similarity(_flat(one), _flat(two), dim=0))
    assert vectors.cosine(one, two) == pytest.approx(expected, rel=1e-6)
    assert torch.allclose(_flat(vectors.added(one, two, -0.5)), _flat(one) - 0.5 * _flat(two))
    assert vectors.norm(vectors.unit(one)) == pytest.approx(1.0, rel=1e-6)


def test_half_precision_is_summed_in_float32() -> None:
    # In bf16 the sum would stop growing at 256.
    ones = {"a": torch.ones(100_000, dtype=torch.bfloat16)}
    assert vectors.dot(ones, ones) == 100_000


def test_zero_has_no_direction() -> None:
    one, _ = _pair()
    zero = vectors.scaled(one, 0.0)
    assert vectors.cosine(one, zero) == 0.0 and vectors.norm(vectors.unit(zero)) == 0.0


def test_other_names_are_refused() -> None:
    one, _ = _pair()
    with pytest.raises(ValueError, match="'b'"):
        vectors.dot(one, {"a": one["a"]})


def test_random_directions_are_as_long_tensor_by_tensor_and_pure_in_the_seed() -> None:
    one, _ = _pair()
    drawn, again, other = (vectors.random_like(one, seed) for seed in (1, 1, 2))
    for name, tensor in one.items():
        assert float(drawn[name].norm()) == pytest.approx(float(tensor.norm()), rel=1e-5)
        assert torch.equal(drawn[name], again[name]) and not torch.equal(drawn[name], other[name])
    many = [vectors.cosine(one, vectors.random_like(one, seed)) for seed in range(300)]
    assert abs(math.fsum(many) / len(many)) < 0.05  # no direction is preferred
