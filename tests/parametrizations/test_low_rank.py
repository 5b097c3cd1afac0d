from __future__ import annotations

import math

import pytest
import torch

from foretrain.errors import RequestError
from foretrain.parametrizations.low_rank import LowRank, LowRankLinear
from tests.models.test_surgery import built
from tests.tiny import tiny_trainer


def test_each_weight_is_the_scaled_product_of_its_factors() -> None:
    model = LowRank(rank=3, alpha=6.0).apply(built(), 5)
    layers = {path: module for path, module in model.named_modules() if isinstance(module, LowRankLinear)}
    assert len(layers) == 14
    for layer in layers.values():
        expected = sum(2.0 * torch.outer(layer.up[:, k], layer.down[k]) for k in range(3))
        assert isinstance(expected, torch.Tensor)
        torch.testing.assert_close(layer.dense(), expected)
        for factor in (layer.up, layer.down):  # uniform up to 1 / sqrt(columns)
            bound = 1 / math.sqrt(factor.shape[1])
            assert 0.5 * bound < factor.abs().max() <= bound
    again = LowRank(rank=3, alpha=6.0).apply(built(), 5)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    other = LowRank(rank=3, alpha=6.0).apply(built(), 6)
    path = next(iter(layers))
    assert not torch.equal(other.get_submodule(path).up, layers[path].up)  # type: ignore[arg-type]


def test_a_rank_of_its_own_in_each_layer() -> None:
    model = LowRank().apply(built(), 0)
    ranks = {m.up.shape[1] for m in model.modules() if isinstance(m, LowRankLinear)}
    assert ranks == {16 // 4}
    with pytest.raises(RequestError, match=r"rank: 17 is more than the smaller side of model\.layers\.0"):
        LowRank(rank=17).apply(built(), 0)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_it_learns(optimizer: str) -> None:
    trainer = tiny_trainer(8, parametrization="low_rank", optimizer={"kind": optimizer, "lr": 0.01})
    losses = [trainer.counted_step()[0]["loss"] for _ in range(8)]
    assert losses[-1] < losses[0] - 0.2
    groups = {group["name"]: group["param_names"] for group in trainer.optimizer.param_groups}
    inside = groups["muon" if optimizer == "muon" else "decayed"]
    assert len(inside) == 2 * 14 and all(name.endswith((".up", ".down")) for name in inside)
