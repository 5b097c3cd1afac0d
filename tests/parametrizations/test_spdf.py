from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from foretrain.checkpoints.tree import decode, encode
from foretrain.errors import RequestError
from foretrain.exporting import model_from_state
from foretrain.models.gpt2 import Gpt2
from foretrain.models.llama import Llama
from foretrain.models.scratch import Scratch
from foretrain.moving import copied
from foretrain.parametrizations.spdf import SPDF, MaskedLinear
from foretrain.trainer import Trainer
from tests.models.test_surgery import built
from tests.tiny import tiny_trainer


def masked(model: Any) -> dict[str, MaskedLinear]:
    return {path: module for path, module in model.named_modules() if isinstance(module, MaskedLinear)}


def trainer_of(total: int = 8, part: dict[str, Any] | None = None, **changes: Any) -> Trainer:
    settings = {"optimizer": {"lr": 0.01}, "schedule": {"kind": "constant", "warmup": 0}, **changes}
    return tiny_trainer(total, parametrization={"kind": "spdf", **(part or {})}, **settings)


def off(trainer: Trainer) -> list[torch.Tensor]:
    """The weights that a mask of 0.75 drew at the start turns off, as they are now."""
    drawn = masked(SPDF().apply(trainer.plan.build_model(), trainer.plan.recipe.seed))
    return [trainer.learner.masters[f"{path}.weight"][~layer.mask] for path, layer in drawn.items()]


@pytest.mark.parametrize("kind", [Llama, Gpt2])
@pytest.mark.parametrize("rescale", [False, True])
def test_masks_turn_off_the_share_of_each_weight(kind: type[Scratch], rescale: bool) -> None:
    plain, layers = built(kind), masked(SPDF(rescale=rescale).apply(built(kind), 3))
    assert len(layers) == (14 if kind is Llama else 8)
    for path, layer in layers.items():
        start = plain.get_submodule(path).weight
        assert layer.mask.shape == start.shape and int((~layer.mask).sum()) == round(0.75 * start.numel())
        assert torch.equal(layer.weight, start * layer.mask * (2.0 if rescale else 1.0))
    masks = [layer.mask for layer in layers.values()]
    assert not torch.equal(masks[0], masks[len(masks) // 2])  # the same layer of the next block has its own
    other = masked(SPDF().apply(built(kind), 4))
    assert not torch.equal(masks[0], next(iter(other.values())).mask)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_off_stays_zero_and_has_no_gradient(optimizer: str, precision: str) -> None:
    trainer = trainer_of(optimizer={"kind": optimizer, "lr": 0.01, "weight_decay": 0.5}, precision=precision)
    moved = {name: weight.detach().clone() for name, weight in trainer.learner.masters.items()}
    for _ in range(3):
        trainer.counted_step()
    assert all(not values.any() for values in off(trainer))
    for path, layer in masked(trainer.learner.model).items():
        master = trainer.learner.masters[f"{path}.weight"]
        assert not (master[layer.mask] == moved[f"{path}.weight"][layer.mask]).all()
        assert trainer.optimizer.state[master]
        if optimizer == "adamw":
            state = trainer.optimizer.state[master]
            assert not state["exp_avg"][~layer.mask].any() and not state["exp_avg_sq"][~layer.mask].any()
            assert state["exp_avg"][layer.mask].any()


def test_the_gradient_is_the_masked_one_whatever_takes_it() -> None:
    trainer, plain = trainer_of(), tiny_trainer()
    batch = trainer.objective.prepare(trainer.stream.batch())
    with torch.no_grad():
        for name, weight in plain.learner.masters.items():
            weight.copy_(trainer.learner.masters[name])

    def gradient(of: Trainer) -> dict[str, torch.Tensor]:
        def loss(piece: Any) -> torch.Tensor:
            outputs = of.objective.forward(of.learner.model, piece)
            return of.objective.losses(outputs, piece).sum()

        return of.learner.gradient_of(loss, [batch], list(of.learner.masters))[0]

    ours, dense = gradient(trainer), gradient(plain)
    for path, layer in masked(trainer.learner.model).items():
        name = f"{path}.weight"
        torch.testing.assert_close(ours[name], dense[name] * layer.mask)
        assert dense[name][~layer.mask].any()


def test_without_sparsity_it_is_full_training_bit_for_bit() -> None:
    plain = tiny_trainer(6, parametrization="full")
    for precision in ("fp32", "autocast"):
        plain, same = (
            tiny_trainer(6, parametrization=part, precision=precision)
            for part in ("full", {"kind": "spdf", "sparsity": 0, "release": 3})
        )
        lines = [[t.counted_step()[0] for _ in range(6)] for t in (plain, same)]
        assert lines[0] == lines[1]
        assert all(torch.equal(same.learner.masters[name], w) for name, w in plain.learner.masters.items())


def test_the_release_trains_all_weights_with_a_new_optimizer_state_and_a_ramp() -> None:
    trainer = trainer_of(part={"release": 0.5, "ramp": 3})
    rates, steps = [], []
    for number in range(8):
        before = {name: weight.detach().clone() for name, weight in trainer.learner.masters.items()}
        rates.append(trainer.counted_step()[0]["lr"])
        state = trainer.optimizer.state[trainer.learner.masters["model.norm.weight"]]
        steps.append(int(state["step"]))
        assert all(bool(values.any()) == (number >= 4) for values in off(trainer))
        if number == 4:  # what was off began at zero, and moved by its own first step of Adam
            for path, layer in masked(trainer.learner.model).items():
                assert layer.mask.all()
                weight = trainer.learner.masters[f"{path}.weight"]
                fresh = weight[(before[f"{path}.weight"] == 0)]
                assert float(fresh.detach().abs().max()) == pytest.approx(0.01 / 3, rel=0.01)
    assert rates == pytest.approx([0.01] * 4 + [0.01 / 3, 0.02 / 3] + [0.01] * 2)
    assert steps == [1, 2, 3, 4, 1, 2, 3, 4]


def test_release_with_a_stage() -> None:
    stages = {"sparse": {"weights": {"prose": 1}, "share": 3}, "dense": {"weights": {"sums": 1}}}
    corpus = {
        "prose": {"path": "builtin:biographies", "options": {"people": 150}, "validation": 0.2},
        "sums": {"path": "builtin:arithmetic", "options": {"count": 120}, "validation": 0.2},
    }
    trainer = trainer_of(part={"stage": "dense", "ramp": 0}, stages=stages, corpus=corpus)
    for number in range(8):
        trainer.counted_step()
        assert trainer.parametrization.rate(number) == 1.0
        assert all(layer.mask.all() == (number >= 6) for layer in masked(trainer.learner.model).values())
    with pytest.raises(RequestError, match="there is no stage 'desne'; did you mean 'dense'"):
        trainer_of(part={"stage": "desne"}, stages=stages, corpus=corpus)
    with pytest.raises(RequestError, match="there is no stage 'dense'; there are: none"):
        trainer_of(part={"stage": "dense"})
    with pytest.raises(RequestError, match="both say when"):
        trainer_of(part={"stage": "dense", "release": 0.5}, stages=stages, corpus=corpus)


@pytest.mark.parametrize("cut", [3, 4, 5])
def test_a_run_resumed_around_the_release_is_the_same(cut: int) -> None:
    part = {"release": 4, "ramp": 3}
    whole, first, second = (trainer_of(part=part, precision="bf16") for _ in range(3))
    expected = [whole.counted_step()[0] for _ in range(8)]
    found = [first.counted_step()[0] for _ in range(cut)]
    structure, tensors = encode(first.state_dict())
    second.load_state_dict(decode(structure, {name: tensor.clone() for name, tensor in tensors.items()}))
    assert found + [second.counted_step()[0] for _ in range(8 - cut)] == expected
    assert all(torch.equal(second.learner.masters[n], w) for n, w in whole.learner.masters.items())


def test_look_ahead_keeps_the_mask_and_undoes_a_release() -> None:
    trainer = trainer_of(part={"release": 2})
    trainer.counted_step()
    gradient = {name: torch.ones_like(weight) for name, weight in trainer.learner.masters.items()}
    before = copied(trainer.moving.take())
    with trainer.context.undone():
        trainer.context.apply(gradient)
        assert all(not values.any() for values in off(trainer))
        trainer.parametrization.before_step(2, trainer.optimizer)
        assert all(layer.mask.all() for layer in masked(trainer.learner.model).values())
        trainer.context.apply(gradient)
        assert all(values.all() for values in off(trainer))
    assert encode(trainer.moving.take())[0] == encode(before)[0]
    assert all(
        torch.equal(a, b)
        for a, b in zip(*(encode(s)[1].values() for s in (trainer.moving.take(), before)), strict=True)
    )
    assert not any(layer.mask.all() for layer in masked(trainer.learner.model).values())


def test_ideal_flops_leave_out_the_products_with_masked_entries() -> None:
    trainer, plain = trainer_of(part={"release": 2}), tiny_trainer()
    lines, dense = ([t.counted_step()[0] for _ in range(4)] for t in (trainer, plain))
    zeros = sum(round(0.75 * p.numel()) for n, p in plain.learner.masters.items() if ".layers." in n and p.ndim == 2)
    spared = 6 * zeros * 8 * 32  # 2 FLOPs per entry and token in the forward pass, twice that in the backward pass
    assert [line["flops"] for line in lines] == [line["flops"] for line in dense]
    assert [line["flops"] - line["ideal_flops"] for line in lines] == [spared, 2 * spared, 2 * spared, 2 * spared]
    assert all("ideal_flops" not in line for line in dense)


def test_the_exported_model_is_plain_and_has_the_zeros(tmp_path: Path) -> None:
    trainer = trainer_of()
    for _ in range(2):
        trainer.counted_step()
    model = model_from_state(trainer.plan.recipe, trainer.plan.config, trainer.learner.state_dict())
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    for name, weight in loaded.named_parameters():
        assert torch.equal(weight, trainer.learner.masters[name]), name
    weight = loaded.model.layers[1].mlp.up_proj.weight
    assert int((weight == 0).sum()) == round(0.75 * weight.numel())
