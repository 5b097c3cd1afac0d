from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from foretrain import flops
from foretrain.errors import RequestError
from foretrain.exporting import model_from_state
from foretrain.models.gpt2 import Gpt2
from foretrain.parametrizations.sltrain import SLTrain, SparseLowRankLinear
from tests.models.test_surgery import SIZE, built
from tests.tiny import tiny_trainer


def layer(out: int = 20, inside: int = 30, rank: int = 4, alpha: float = 8.0, density: float = 0.1) -> Any:
    return SparseLowRankLinear(nn.Linear(inside, out), rank, alpha, density, 7, "a.layer")


def scattered(made: Any) -> Tensor:
    """The sparse matrix, entry by entry."""
    dense = torch.zeros(made.out_features, made.in_features)
    for place, value in zip(made.support.tolist(), made.values.tolist(), strict=True):
        dense[place // made.in_features, place % made.in_features] += value
    return dense


def test_the_start_is_as_published() -> None:
    made = layer()
    assert made.values.shape == made.support.shape == (int(0.1 * 600),) and made.support.dtype == torch.int32
    assert (made.support[1:] > made.support[:-1]).all() and made.support[0] >= 0 and made.support[-1] < 600
    assert (made.up == 0).all()
    for tensor, columns in ((made.down, 30), (made.values, 30), (made.bias, 20)):
        bound = 1 / math.sqrt(columns)
        assert 0.7 * bound < tensor.abs().max() <= bound
    assert torch.equal(made.dense(), scattered(made))  # the sparse part alone
    assert not torch.equal(made.support, SparseLowRankLinear(nn.Linear(30, 20), 4, 8.0, 0.1, 8, "").support)


def test_forward_and_backward_are_those_of_the_card() -> None:
    torch.manual_seed(1)
    made = layer()
    nn.init.normal_(made.up)
    x, dy = torch.randn(2, 5, 30, requires_grad=True), torch.randn(2, 5, 20)
    weight = 8.0 / 4 * made.up @ made.down + scattered(made)  # the scale is the product's alone
    y = made(x)
    torch.testing.assert_close(y, F.linear(x, weight, made.bias))
    dx, du, dd, dv, db = torch.autograd.grad((y * dy).sum(), [x, made.up, made.down, made.values, made.bias])
    dw = torch.einsum("bto,bti->oi", dy, x)
    torch.testing.assert_close(dx, dy @ weight)
    torch.testing.assert_close(du, 2.0 * dw @ made.down.T)
    torch.testing.assert_close(dd, 2.0 * made.up.T @ dw)
    torch.testing.assert_close(dv, dw.flatten()[made.support.long()])
    torch.testing.assert_close(db, dy.sum((0, 1)))


def test_nothing_of_the_shape_of_a_weight_is_kept_for_the_backward_pass() -> None:
    def shapes(model: Any) -> list[tuple[int, ...]]:
        own, kept = {id(parameter) for parameter in model.parameters()}, []

        def pack(tensor: Tensor) -> Tensor:
            if id(tensor) not in own:
                kept.append(tuple(tensor.shape))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(input_ids=torch.arange(8)[None]).logits.sum()
        return kept

    plain, model = built(), SLTrain(rank=4, density=0.1).apply(built(), 0)
    weights = {tuple(p.shape) for n, p in plain.named_parameters() if ".layers." in n and p.ndim == 2}
    weights |= {shape[::-1] for shape in weights}
    # What a plain model keeps, but for the numbers of its layers, is kept here too, and nothing else.
    mine = [shape for shape in shapes(model) if shape in weights]
    assert not mine


def test_memory_and_flops_of_a_step() -> None:
    size = {"kind": "llama", "layers": 2, "width": 64, "heads": 2, "context": 32}
    full, part = (tiny_trainer(8, model=size, parametrization=kind) for kind in ("full", "sltrain"))
    for trainer in (full, part):
        trainer.counted_step()
    plain = {n: p for n, p in full.learner.masters.items() if full.learner.roles[n].kind == "matrix"}
    ranks = {name: min(p.shape) // 4 for name, p in plain.items()}
    product = sum(2 * ranks[name] * p.numel() for name, p in plain.items())
    # Made in the forward pass, again in the backward pass, and its two gradients; nothing is cheaper.
    assert part.meter.total - full.meter.total == 4 * product
    assert part.plan.flops_per_step - full.plan.flops_per_step == 4 * product
    spared = sum(p.numel() for p in full.learner.masters.values()) - sum(
        p.numel() for p in part.learner.masters.values()
    )
    entries = sum(int(0.03 * p.numel()) for p in plain.values())
    assert spared == sum(p.numel() - ranks[n] * sum(p.shape) for n, p in plain.items()) - entries
    # Weight and two moments of every number that is spared, less the places of the entries. Gradients are not in it: so
    # small a model is at its peak in the middle of a step, before it has them all.
    assert full.meter.memory - part.meter.memory == pytest.approx(12 * spared - 4 * entries, rel=0.02)
    assert part.plan.parameters["trained"] == sum(p.numel() for p in part.learner.masters.values())
    assert part.plan.parameters["total"] == full.plan.parameters["total"]
    assert (
        flops.memory_parts(part.plan.skeleton, 1, 32, "fp32", trained=part.plan.trained)["weights"]
        == sum(p.numel() * 4 for p in part.learner.masters.values()) + 4 * entries
    )


def test_the_support_is_in_the_checkpoint() -> None:
    trainer, other = (tiny_trainer(8, parametrization="sltrain", seed=seed) for seed in (0, 1))
    for _ in range(3):
        trainer.counted_step()
    state = trainer.learner.state_dict()
    assert sum(name.endswith(".support") for name in state) == 14
    other.learner.load_state_dict(state)  # drawn from another seed: the saved support takes its place
    batch = trainer.stream.batch()["tokens"][:2, :32]
    with torch.no_grad():
        assert torch.equal(
            *(t.learner.model.eval()(input_ids=batch).logits for t in (trainer, other))  # type: ignore[misc]
        )


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_exported_model_is_a_plain_one(kind: str, tmp_path: Path) -> None:
    size = {"kind": kind, "layers": 2, "width": 32, "heads": 2, "context": 32}
    trainer = tiny_trainer(8, model=size, parametrization="sltrain", optimizer={"lr": 0.01}, precision="bf16")
    for _ in range(3):
        trainer.counted_step()
    model_from_state(trainer.plan.recipe, trainer.plan.config, trainer.learner.state_dict()).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = trainer.stream.batch()["tokens"][:2, :32]
    with torch.no_grad(), trainer.learner.exact():
        torch.testing.assert_close(
            loaded(input_ids=ids).logits, trainer.learner.model.eval()(input_ids=ids).logits, rtol=0, atol=1e-5
        )
    assert {name for name, _ in loaded.named_parameters()} == {name for name, _ in built_names(trainer)}


def built_names(trainer: Any) -> list[tuple[str, Any]]:
    return list(trainer.plan.skeleton.named_parameters())


def test_entries_decay_like_matrices_and_are_not_orthogonalised() -> None:
    trainer = tiny_trainer(8, parametrization="sltrain", optimizer={"kind": "muon", "lr": 0.01})
    groups = {group["name"]: group["param_names"] for group in trainer.optimizer.param_groups}
    assert {name.rpartition(".")[2] for name in groups["muon"]} == {"up", "down"}
    assert sum(name.endswith(".values") for name in groups["adamw"]) == 14
    losses = [trainer.counted_step()[0]["loss"] for _ in range(8)]
    assert losses[-1] < losses[0] - 0.2
    decayed = next(g for g in tiny_trainer(parametrization="sltrain").optimizer.param_groups if g["name"] == "decayed")
    assert sum(name.endswith(".values") for name in decayed["param_names"]) == 14


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"density: 0\.001 of the 256 entries of .* are none; raise it"):
        SLTrain(density=0.001).apply(built(), 0)
    with pytest.raises(RequestError, match="rank: 99 is more than the smaller side"):
        SLTrain(rank=99).apply(built(), 0)
    model = built(Gpt2)
    model.save_pretrained(tmp_path)
    trainer = tiny_trainer()
    trainer.plan.tokenizer.save(tmp_path)  # type: ignore[union-attr]
    assert SIZE["context"] == 8
    with pytest.raises(RequestError, match="sltrain trains from scratch"):
        SLTrain().setup(_Pretrained(str(tmp_path)))  # type: ignore[arg-type]


class _Pretrained:
    """As much of a context as `setup` looks at."""

    def __init__(self, path: str) -> None:
        from types import SimpleNamespace

        from foretrain.models.pretrained import Pretrained

        self.recipe = SimpleNamespace(model=Pretrained(path=path))
