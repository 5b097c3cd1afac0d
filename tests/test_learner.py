"""The learner: fp32 masters under bf16, gradients summed over micro-batches, moving and restoring weights, state."""

from __future__ import annotations

import copy
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from foretrain.distributed import Group
from foretrain.errors import RequestError
from foretrain.learner import Learner, transformer_blocks
from foretrain.parametrizations.base import Parametrization
from tests.tasks.subjects import model
from tests.tiny import tiny_trainer

Precision = Literal["fp32", "bf16", "autocast"]
IDS = torch.arange(24).view(2, 12) % 50


def learner(precision: Precision = "bf16", frozen: str = "") -> Learner:
    made = model(vocabulary=50)
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(not (frozen and frozen in name))
    return Learner(made, precision, Group())


def loss(one: Learner, ids: Tensor = IDS) -> Tensor:
    with one.autocast():
        logits = one.model(input_ids=ids).logits
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="sum")


def copies(one: Learner) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in one.model.named_parameters()}


def test_bf16_computes_with_rounded_copies_of_fp32_masters() -> None:
    plain, one = model(vocabulary=50), learner("bf16")
    for name, parameter in plain.named_parameters():
        assert torch.equal(one.masters[name], parameter) and one.masters[name].dtype == torch.float32
        assert torch.equal(one.model.get_parameter(name), parameter.bfloat16())
    # Rotary frequencies are buffers, and lose their meaning in bf16.
    assert all(buffer.dtype != torch.bfloat16 for buffer in one.model.buffers())
    # A step far below what bf16 resolves is not lost.
    name = "model.norm.weight"
    with torch.no_grad():
        for _ in range(100):
            one.masters[name] += 1e-4
            one.refresh()
    torch.testing.assert_close(one.masters[name], torch.full_like(one.masters[name], 1.01), rtol=1e-5, atol=0)
    assert torch.equal(one.model.get_parameter(name), one.masters[name].bfloat16())


@pytest.mark.parametrize("precision", ["fp32", "autocast"])
def test_elsewhere_the_models_own_parameters_are_trained(precision: Precision) -> None:
    one = learner(precision)
    assert all(one.masters[name] is parameter for name, parameter in one.model.named_parameters())


def test_gradients_of_micro_batches_are_summed_in_fp32() -> None:
    one = learner("bf16")
    singles = []
    for row in range(2):
        one.zero_gradients()
        loss(one, IDS[row : row + 1]).backward()
        one.collect()
        singles.append({name: g.clone() for name, g in one.gradient().items()})
        assert all(copy.grad is None for copy in one.model.parameters())
    one.zero_gradients()
    for row in range(2):
        loss(one, IDS[row : row + 1]).backward()
        one.collect()
    summed = one.gradient()
    assert all(g.dtype == torch.float32 for g in summed.values())
    for name, g in summed.items():
        assert torch.equal(g, singles[0][name] + singles[1][name]), name
    # The sum is finer than bf16: adding the small gradient to the large one in bf16 would round it off somewhere.
    assert any(not torch.equal(g, g.bfloat16().float()) for g in summed.values())


def test_install_hands_over_a_gradient_of_some_parameters() -> None:
    one = learner("fp32")
    loss(one).backward()
    some = {"model.norm.weight": torch.ones(32)}
    one.install(some)
    given = {name for name, parameter in one.masters.items() if parameter.grad is not None}
    assert given == {"model.norm.weight"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_other_weights_are_put_back_bit_for_bit_also_after_an_error(precision: Precision) -> None:
    one = learner(precision)
    before, computing = {n: p.detach().clone() for n, p in one.masters.items()}, copies(one)
    today = loss(one).item()
    ahead = {"model.norm.weight": before["model.norm.weight"] * 3}
    with pytest.raises(ZeroDivisionError), one.at(ahead):
        assert loss(one).item() != today
        assert torch.equal(one.masters["model.norm.weight"], ahead["model.norm.weight"])
        raise ZeroDivisionError
    assert all(torch.equal(one.masters[name], before[name]) for name in before)
    assert all(torch.equal(copies(one)[name], computing[name]) for name in computing)
    with one.at(None):
        assert loss(one).item() == today


@pytest.mark.parametrize("frozen", ["", "embed"])
def test_exact_computes_with_the_masters(frozen: str) -> None:
    plain, one = model(vocabulary=50), learner("bf16", frozen)
    expected = plain(input_ids=IDS).logits
    rounded = one.model(input_ids=IDS).logits
    with one.exact():
        assert torch.equal(one.model(input_ids=IDS).logits, expected)
    assert torch.equal(one.model(input_ids=IDS).logits, rounded) and rounded.dtype == torch.bfloat16
    cast = learner("autocast")
    with cast.exact(), cast.autocast():
        assert torch.equal(cast.model(input_ids=IDS).logits, expected)
    assert cast.precision == "autocast"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_frozen_keeps_every_digit(precision: Precision) -> None:
    one, plain = learner(precision, frozen="embed"), model(vocabulary=50)
    assert "model.embed_tokens.weight" not in one.masters and "model.embed_tokens.weight" not in one.roles
    state = one.state_dict()
    for name, parameter in plain.named_parameters():
        assert torch.equal(state[name], parameter), name
    loss(one).backward()
    one.collect()
    assert set(one.gradient()) == set(one.masters)


@pytest.mark.parametrize("frozen", ["", "embed"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_state_restores_masters_frozen_weights_and_copies(precision: Precision, frozen: str) -> None:
    one = learner(precision, frozen)
    with torch.no_grad():
        for tensor in one.state_dict().values():
            tensor += 0.37
    state = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    other = learner(precision, frozen)
    other.load_state_dict(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in other.state_dict().items())
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    assert all(torch.equal(tensor, state[name].to(dtype)) for name, tensor in copies(other).items())


def test_a_state_of_another_model_is_refused_in_words() -> None:
    one = learner("fp32")
    state = one.state_dict()
    one.refuse_other(state)
    other = {name: tensor for name, tensor in state.items() if name != "model.norm.weight"}
    other["lm_head.weight"] = torch.zeros(60, 32)
    with pytest.raises(RequestError) as caught:
        one.refuse_other(other)
    assert "model.norm.weight: none there, [32] here" in str(caught.value)
    assert "lm_head.weight: [60, 32] there, [50, 32] here" in str(caught.value)
    assert f"2 of {len(state)} parameters" in str(caught.value)


def test_tied_weights_are_one_master() -> None:
    tied = copy.deepcopy(model(vocabulary=50))
    tied.config.tie_word_embeddings = True
    tied.lm_head.weight = tied.model.embed_tokens.weight
    one = Learner(tied, "bf16", Group())
    assert "lm_head.weight" not in one.masters
    assert tied.lm_head.weight is tied.model.embed_tokens.weight and tied.lm_head.weight.dtype == torch.bfloat16


def test_an_adopted_module_is_trained_under_its_prefix() -> None:
    one = learner("bf16")
    head = nn.Linear(32, 3)
    one.adopt(head, "objective.0")
    assert one.masters["objective.0.weight"].shape == (3, 32) and head.weight.dtype == torch.bfloat16
    assert one.roles["objective.0.bias"].kind == "bias"
    head(torch.ones(1, 32, dtype=torch.bfloat16)).sum().backward()
    one.collect()
    assert set(one.gradient()) == {"objective.0.weight", "objective.0.bias"}
    assert {"objective.0.weight", "lm_head.weight"} <= one.state_dict().keys()


def test_blocks_are_the_longest_list_of_modules() -> None:
    made = model()
    assert transformer_blocks(made) == list(made.model.layers)
    assert transformer_blocks(nn.Linear(1, 1)) == []


class TryNormsOnly(Parametrization):
    """Only the norms are trained."""

    kind: str = "try_norms_only"

    def apply(self, model: nn.Module, seed: int) -> nn.Module:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("norm" in name)
        return model


@pytest.mark.parametrize("precision", ["fp32", "bf16", "autocast"])
def test_frozen_weights_do_not_move_in_a_run(precision: str) -> None:
    trainer = tiny_trainer(4, parametrization="try_norms_only", precision=precision, optimizer={"lr": 0.1})
    before = {name: tensor.clone() for name, tensor in trainer.learner.state_dict().items()}
    for _ in range(3):
        trainer.counted_step()
    moved = {name for name, tensor in trainer.learner.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if "norm" in name}
