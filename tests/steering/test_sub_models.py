"""Sub-models of a grown model: each against a model of its own that has as many blocks."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from transformers import AutoModelForCausalLM

from foretrain.errors import RequestError
from foretrain.steering.sub_models import SubModels
from foretrain.step import Problem
from foretrain.trainer import Trainer
from tests.steering.teachers import prepared
from tests.tiny import CONTEXT, tiny_trainer

MODEL = {"kind": "llama", "layers": 5, "width": 16, "heads": 2, "feedforward": 24, "context": CONTEXT}


def staged(steps: int = 40, model: dict[str, Any] | None = None, **settings: Any) -> Trainer:
    top = {key: settings.pop(key) for key in ("batch", "precision", "compile", "seed", "optimizer") if key in settings}
    part = {"kind": "sub_models", "blocks": 2, "until": 0.5, **settings}
    return tiny_trainer(steps, model={**MODEL, **(model or {})}, steering=[part], **top)


def part_of(one: Trainer) -> SubModels:
    part = one.steering[0]
    assert isinstance(part, SubModels)
    return part


def at_depth(one: Trainer, depth: int | None) -> int:
    """The first step of a depth."""
    return next(step for step in range(one.total) if part_of(one).depth(step) == depth)


def own_model(one: Trainer, depth: int) -> Any:
    """The lowest blocks as a model of their own."""
    whole: Any = one.learner.model
    config = copy.deepcopy(whole.config)
    config.num_hidden_layers = depth
    made = AutoModelForCausalLM.from_config(config)
    made.load_state_dict({k: v for k, v in whole.state_dict().items() if k in made.state_dict()})
    return made


def gradient_at(one: Trainer, depth: int) -> tuple[dict[str, Tensor], Any, float]:
    step, batch = at_depth(one, depth), prepared(one)
    part = part_of(one)
    part._step = step
    problem = Problem(batch, one.objective, one.learner, (), batch.rows)
    found = part.gradient(problem)
    return {name: tensor.clone() for name, tensor in found.items()}, batch, float(problem.loss)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("depth", [2, 4, 5])
def test_a_step_is_that_of_a_model_with_so_many_blocks(kind: str, tied: bool, depth: int) -> None:
    one = staged(model={"kind": kind, "tied": tied})
    found, batch, loss = gradient_at(one, depth)
    other = own_model(one, depth)
    logits = other(input_ids=batch["inputs"]).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
    assert loss / batch["mask"].sum() == pytest.approx(expected.item(), abs=1e-5)
    expected.backward()
    theirs = {name: parameter.grad for name, parameter in other.named_parameters()}
    blocks = {f".{number}." for number in range(depth - 2, depth)}
    last = "model.norm.weight" if kind == "llama" else "transformer.ln_f.weight"
    inside = {name for name in theirs if any(block in name for block in blocks)}
    assert last in found and inside <= set(found)
    for name in (*inside, last):
        torch.testing.assert_close(found[name], theirs[name], atol=1e-7, rtol=1e-4)
    embedding = "model.embed_tokens.weight" if kind == "llama" else "transformer.wte.weight"
    others = {name for name in found if name not in inside and "norm" not in name and "ln_f" not in name}
    assert others == ({embedding} if tied else {"lm_head.weight"})
    if tied:  # as an output layer it is trained, and as what the first block reads it is not
        hidden = other.base_model(input_ids=batch["inputs"]).last_hidden_state.detach()
        head = other.get_output_embeddings().weight.detach().clone().requires_grad_()
        outer = torch.nn.functional.cross_entropy((hidden @ head.T).flatten(0, 1), batch["labels"].flatten())
        outer.backward()
        torch.testing.assert_close(found[embedding], head.grad, atol=1e-7, rtol=1e-4)


def test_only_what_has_a_gradient_moves() -> None:
    one = staged(optimizer={"lr": 1e-2, "weight_decay": 0.5})
    for _ in range(3):
        before = {name: weight.detach().clone() for name, weight in one.learner.masters.items()}
        depth = part_of(one).depth(one.step)
        assert depth is not None
        one.train_step()
        moved = {name for name, weight in one.learner.masters.items() if not torch.equal(weight, before[name])}
        numbers = {int(name.split(".")[2]) for name in moved if ".layers." in name}
        assert numbers == set(range(depth - 2, depth))


def test_afterwards_it_is_plain_training() -> None:
    one = staged(8, until=1)
    one.train_step()
    plain = tiny_trainer(8, model=MODEL)
    plain.train_step()
    with torch.no_grad():
        for name, weight in plain.learner.masters.items():
            weight.copy_(one.learner.masters[name])
    plain.optimizer.load_state_dict(copy.deepcopy(one.optimizer.state_dict()))
    for _ in range(3):
        assert one.train_step()["loss"] == plain.train_step()["loss"]
    assert all("forward" not in vars(block) for block in part_of(one)._stack)


def test_depths_are_drawn_evenly_and_by_the_seed_alone() -> None:
    one, other = staged(600, until=1.0), staged(600, until=1.0, seed=5)
    assert part_of(one).depths() == [2, 4, 5]
    assert part_of(staged(model={"layers": 4})).depths() == [2, 4]
    drawn = [part_of(one).depth(step) for step in range(600)]
    assert all(150 < count < 250 for count in Counter(drawn).values())
    again = part_of(staged(600, until=1.0))
    assert drawn == [again.depth(step) for step in range(600)]
    assert drawn != [part_of(other).depth(step) for step in range(600)]
    assert part_of(staged(600, until=0.5)).depth(300) is None


def test_each_depth_costs_what_it_runs() -> None:
    one = staged(60)
    pace = one.rehearse(0, 0)
    assert set(pace.flops) == {"2 blocks", "4 blocks", "5 blocks", ""}
    block = sum(p.numel() for p in part_of(one)._stack[0].parameters() if p.ndim == 2)
    tokens = one.plan.tokens_per_step
    attention = 4 * tokens * CONTEXT * 16
    # From 4 to 5 blocks one more runs forward; the two that go backward are as many as before.
    assert pace.flops["5 blocks"] - pace.flops["4 blocks"] == 2 * tokens * block + attention
    assert pace.flops["2 blocks"] < pace.flops["4 blocks"] < pace.flops["5 blocks"] < pace.flops[""]


def test_micro_batches_change_nothing() -> None:
    whole, pieces = staged(), staged(batch={"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT})
    for _ in range(4):
        assert whole.train_step()["loss"] == pytest.approx(pieces.train_step()["loss"], abs=1e-5)


def test_what_does_not_go_together() -> None:
    with pytest.raises(RequestError, match=r"blocks \(5\) should be fewer than the 5"):
        staged(blocks=5)
    with pytest.raises(RequestError, match="compile: true"):
        staged(compile=True)
    for settings in ({"blocks": 0}, {"until": 0}, {"until": 1.5}):
        with pytest.raises(ValidationError):
            SubModels(**settings)  # type: ignore[arg-type]
