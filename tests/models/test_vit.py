"""The vision transformer: its shape, the roles of its parameters, and what it costs."""

from __future__ import annotations

import pytest
import torch
from transformers import BeitConfig, Dinov2Config

from foretrain import flops
from foretrain.kernels.accelerate import accelerate
from foretrain.models.base import family, from_config, patches
from foretrain.models.initialise import deviation
from foretrain.models.roles import blocks, parameter_roles, select
from foretrain.models.size import count_parameters
from foretrain.models.vit import Vit
from foretrain.objectives.outputs import has_plain_head

SMALL = Vit(layers=3, width=32, heads=2, feedforward=48, image=24, patch=8, channels=1)


@pytest.mark.parametrize(("image", "patch"), [(24, 8), (32, 4)])
def test_analytic_flops_are_those_that_are_counted(image: int, patch: int) -> None:
    part = SMALL.model_copy(update={"image": image, "patch": patch})
    config = part.config(1, {})
    model = part.build(config, 0)
    pixels = torch.zeros(5, 1, image, image)
    counted = flops.count(lambda: model(pixel_values=pixels))
    assert flops.analytic(model, 5, part.context_length(config)) == counted > 0
    step = flops.count(lambda: model(pixel_values=pixels.requires_grad_()).last_hidden_state.sum().backward())
    assert flops.analytic_step(config, 5, patches(config)) == step
    assert flops.memory_parts(config, 5, patches(config), "fp32")["weights"] == 4 * count_parameters(model)["total"]


def test_roles_and_the_start() -> None:
    config = SMALL.config(1, {})
    model = SMALL.build(config, 4)
    roles = parameter_roles(model)
    kinds = {name: role.kind for name, role in roles.items()}
    assert kinds["embeddings.cls_token"] == kinds["embeddings.position_embeddings"] == "embedding"
    assert kinds["embeddings.patch_embeddings.projection.weight"] == kinds["layers.1.mlp.fc2.weight"] == "matrix"
    assert kinds["layernorm.weight"] == kinds["layers.0.layernorm_after.weight"] == "norm"
    assert blocks(roles) == 3 and "head" not in kinds.values()
    chosen = select(roles, "last:1+norms")
    assert "layers.2.attention.q_proj.bias" in chosen and "layers.0.layernorm_before.weight" in chosen
    assert not any(name.startswith("layers.1.attention") for name in chosen)
    for name in ("layers.0.attention.o_proj.weight", "layers.2.mlp.fc2.weight"):
        assert deviation(roles[name], 32, 3) == pytest.approx((2 / (5 * 32)) ** 0.5 / 6**0.5)
        assert float(model.get_parameter(name).detach().std()) == pytest.approx(deviation(roles[name], 32, 3), rel=0.1)
    total = count_parameters(model)
    assert total["total"] - total["without_embeddings"] == 32 + (9 + 1) * 32


def test_one_model_for_one_seed_whatever_was_drawn_before() -> None:
    config = SMALL.config(1, {})
    torch.manual_seed(0)
    one = SMALL.build(config, 7)
    torch.manual_seed(1)
    torch.rand(3)
    other = SMALL.build(config, 7)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    tokens = [model.get_parameter("embeddings.cls_token") for model in (one, SMALL.build(config, 8))]
    assert not torch.equal(*tokens)


def test_there_is_no_layer_that_nothing_trains() -> None:
    model = SMALL.build(SMALL.config(1, {}), 0)
    assert model.pooler is None and not has_plain_head(accelerate(model))
    assert from_config(BeitConfig(num_hidden_layers=1, hidden_size=24, num_attention_heads=2)).pooler is None
    other = Dinov2Config(num_hidden_layers=1, hidden_size=24, num_attention_heads=2)
    assert family(other) == "vision" and from_config(other) is not None
