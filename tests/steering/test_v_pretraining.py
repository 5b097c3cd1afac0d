"""V-pretraining: the designer's gradient against finite differences of the inner product that it is to raise."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from foretrain import vectors
from foretrain.batch import Batch
from foretrain.checks.trial import run, trial
from foretrain.designers.transformer import PAPER, Size, TransformerDesigner, mixed_target, scaled_size
from foretrain.distributed import Group
from foretrain.errors import RequestError
from foretrain.objectives.base import Targets
from foretrain.steering._candidates import rival_spread
from foretrain.steering.oracle_target import best_target
from foretrain.trainer import Trainer
from foretrain.value.primitive import token_values
from tests.tiny import FEEDBACK

PART = {
    "kind": "v_pretraining",
    "feedback": "sums",
    "every": 2,
    "burn_in": 0,
    "parameters": "last:1",
    "candidates": 6,
    "rows": 1,
    "items": 8,
    "designer": {"layers": 1, "width": 16, "heads": 1},
    "beliefs": True,
}


def _trainer(**changes: Any) -> Trainer:
    part = {**PART, **changes}
    trainer = trial({"feedback": FEEDBACK, "overlap": "warn", "steering": [part]})
    trainer.learner.model.eval()
    return trainer


def _warm(trainer: Trainer, steps: int = 4) -> Any:
    """The part, with a learner and a designer that are not at their start."""
    run(trainer, steps)
    part: Any = trainer.steering[0]
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for parameter in part._designer.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return part


def _task_gradient(trainer: Trainer, part: Any, batch: Batch) -> vectors.Vector:
    """The learner's gradient on the designed task, by one backward pass."""
    total = float(batch["mask"].sum())

    def loss(piece: Batch) -> Tensor:
        outputs = trainer.objective.forward(trainer.learner.model, piece)
        return trainer.objective.losses(outputs, piece, part.targets(outputs, piece)).sum() / total

    return trainer.learner.gradient_of(loss, [batch], part._names)[0]


def _value(trainer: Trainer, part: Any, batch: Batch, toward: vectors.Vector, alignment: str) -> float:
    found = _task_gradient(trainer, part, batch)
    return vectors.dot(found, toward) if alignment == "dot" else vectors.cosine(found, toward)


@pytest.mark.parametrize("alignment", ["dot", "cosine"])
def test_the_designer_climbs_the_inner_product_itself(alignment: str) -> None:
    trainer = _trainer(alignment=alignment)
    part = _warm(trainer)
    batch = trainer.objective.prepare(trainer.stream.batch()).take(slice(0, 3))
    toward = part.direction("sums", 0).vector
    part._optimizer.zero_grad()
    sums = part._learn(batch, toward, 1.0)
    if alignment == "dot":
        # The expected value of the target is the inner product of the two gradients.
        assert float(sums[1] / sums[0]) == pytest.approx(_value(trainer, part, batch, toward, "dot"), rel=2e-3)
    gradient = {name: parameter.grad.clone() for name, parameter in part._designer.named_parameters()}
    named = dict(part._designer.named_parameters())
    generator = torch.Generator().manual_seed(2)
    step = {
        name: torch.randn(tensor.shape, generator=generator) * tensor.std()
        for name, tensor in gradient.items()
        if tensor.numel() > 1
    }
    # L_meta = -V: along any direction the loss falls as the inner product rises.
    expected = -sum(float((gradient[name] * tensor).sum()) for name, tensor in step.items())
    size = 0.02 / max(float(torch.stack([tensor.abs().max() for tensor in step.values()]).max()), 1e-12)
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            for name, tensor in step.items():
                named[name].add_(sign * size * tensor)
        ends.append(_value(trainer, part, batch, toward, alignment))
        with torch.no_grad():
            for name, tensor in step.items():
                named[name].sub_(sign * size * tensor)
    assert (ends[0] - ends[1]) / (2 * size) == pytest.approx(expected, rel=0.05)


def test_an_update_of_the_designer_raises_the_value_of_the_batch() -> None:
    trainer = _trainer(designer_lr=1e-2)
    part = _warm(trainer)
    batch = trainer.objective.prepare(trainer.stream.batch())
    toward = part.direction("sums", trainer.step).vector
    before = _value(trainer, part, batch, toward, "dot")
    assert batch.step == 4
    part.before_step(batch)
    assert _value(trainer, part, batch, toward, "dot") > before


def test_targets_are_what_the_parts_say() -> None:
    trainer = _trainer()
    part = _warm(trainer)
    batch = trainer.objective.prepare(trainer.stream.batch())
    outputs = trainer.objective.forward(trainer.learner.model, batch)
    found = part.targets(outputs, batch)
    logits = outputs.logits()
    for row, place in ((0, 3), (5, 20)):
        label = int(batch["labels"][row, place])
        others = [int(each) for each in logits[row, place].argsort(descending=True) if int(each) != label][:5]
        assert found.ids[row, place].tolist() == [label, *others]
    known = logits.log_softmax(-1).gather(-1, found.ids)
    r, alpha = part._designer(batch["inputs"], batch["labels"], found.ids, known)
    onehot = (found.ids == batch["labels"][..., None]).float()
    expected = (1 - alpha[..., None]) * onehot + alpha[..., None] * r
    assert torch.allclose(found.probabilities, expected, atol=1e-6)
    assert torch.allclose(found.probabilities.sum(-1), torch.ones_like(alpha), atol=1e-6)
    assert float(alpha.detach().max()) <= 0.5 and float(alpha.detach().std()) > 0


def test_a_new_designer_gives_the_learners_own_distribution() -> None:
    trainer = _trainer()
    part: Any = trainer.steering[0]
    batch = trainer.objective.prepare(trainer.stream.batch())
    outputs = trainer.objective.forward(trainer.learner.model, batch)
    _, known = outputs.candidates(batch["labels"], 6)
    expected = mixed_target(known.softmax(-1), torch.full(known.shape[:2], 0.25))
    assert torch.allclose(part.targets(outputs, batch).probabilities, expected, atol=1e-6)


def test_the_designer_sees_no_later_token() -> None:
    made = TransformerDesigner(
        Size(width=32, heads=1), 50, 16, candidates=4, largest=0.5, opening=0.5, beliefs=True, seed=0
    )
    with torch.no_grad():
        made.query.weight.normal_()
        made.gate.weight.normal_()
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(50, (2, 13), generator=generator)
    ids, known = torch.randint(50, (2, 12, 4), generator=generator), torch.randn(2, 12, 4, generator=generator)
    changed = text.clone()
    changed[:, 8:] = (changed[:, 8:] + 1) % 50
    one, two = (made(tokens[:, :-1], tokens[:, 1:], ids, known) for tokens in (text, changed))
    for a, b in zip(one, two, strict=True):
        assert torch.allclose(a[:, :7], b[:, :7], atol=1e-6)
        # The true next token of place 7 is token 8, which it does see.
        assert not torch.allclose(a[:, 7], b[:, 7], atol=1e-6)


def test_burn_in_is_plain_training() -> None:
    plain = trial({"feedback": FEEDBACK, "overlap": "warn"})
    part = {**PART, "burn_in": 3}
    steered = trial({"feedback": FEEDBACK, "overlap": "warn", "steering": [part]})
    ours, theirs = run(steered, 6), run(plain, 6)
    assert [a["loss"] == b["loss"] for a, b in zip(ours, theirs, strict=True)][:3] == [True] * 3
    assert all("v_pretraining/alpha" not in line for line in ours[:3]) and "v_pretraining/alpha" in ours[3]
    assert [steered.kind(step) for step in range(6)] == ["plain"] * 3 + ["meta", "designed", "meta"]
    costs = steered.meter.per_kind
    assert costs["plain"] == plain.meter.per_kind[""] < costs["designed"] < costs["meta"]


def test_the_end_is_plain_training_again() -> None:
    steered = _trainer(every=2, until=4)
    lines = run(steered, 8)
    assert ["v_pretraining/alpha" in line for line in lines] == [True, False, True, False] + [False] * 4
    assert [steered.kind(step) for step in range(8)] == ["meta", "designed"] * 2 + ["plain"] * 4
    outputs = SimpleNamespace(candidates=lambda *_: pytest.fail("no candidates are looked for"))
    assert steered.steering[0].targets(outputs, SimpleNamespace(step=4)) is None  # type: ignore[arg-type]


def test_figures_of_a_meta_step() -> None:
    line = run(_trainer(), 1)[0]
    for name in ("value", "alpha", "target_entropy", "moved", "cosine", "gradient_norm"):
        assert f"v_pretraining/{name}" in line
    assert "feedback/sums/loss" in line and -1 <= line["v_pretraining/cosine"] <= 1
    assert line["v_pretraining/alpha"] == pytest.approx(0.25)


def test_the_cosine_is_that_of_the_learners_step() -> None:
    trainer = _trainer(alpha_max=0.0)
    toward = trainer.steering[0].direction("sums", 0).vector  # type: ignore[attr-defined]
    batch = trainer.objective.prepare(trainer.stream.batch())
    expected = vectors.cosine(_task_gradient(trainer, trainer.steering[0], batch), toward)
    assert run(trainer, 1)[0]["v_pretraining/cosine"] == pytest.approx(expected, rel=1e-3)


def test_a_designer_that_breaks_leaves_the_true_tokens() -> None:
    plain = trial({"feedback": FEEDBACK, "overlap": "warn"})
    trainer = _trainer()
    part: Any = trainer.steering[0]
    with torch.no_grad():
        part._designer.gate.bias.fill_(float("nan"))
    lines, expected = run(trainer, 3), run(plain, 3)
    for ours, theirs in zip(lines, expected, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
    assert lines[2]["v_pretraining/fallbacks"] >= 3
    assert sum("not finite" in text for text in trainer.warnings) == 2
    assert part.state_dict()["fallbacks"] >= 3


def test_domains_are_aligned_with_feedback_of_their_own() -> None:
    feedback = {**FEEDBACK, "names": {"path": "builtin:biographies", "options": {"people": 30, "seed": 9}}}
    part = {**PART, "feedback": {"sums": "sums", "prose": "names"}}
    trainer = trial({"feedback": feedback, "overlap": "warn", "steering": [part]})
    made: Any = trainer.steering[0]
    batch = trainer.objective.prepare(trainer.stream.batch())
    parts = list(made._parts(batch))
    assert [name for _, name in parts] == ["sums", "names"]
    for rows, domain in zip((rows for rows, _ in parts), ("sums", "prose"), strict=True):
        assert set(rows["domain"].tolist()) == {batch.domains.index(domain)}
    line = run(trainer, 1)[0]
    assert {"feedback/sums/loss", "feedback/names/loss"} <= line.keys()


def test_rows_of_no_domain_count_nothing() -> None:
    trainer = trial({"feedback": FEEDBACK, "overlap": "warn", "steering": [{**PART, "feedback": {"sums": "sums"}}]})
    made: Any = trainer.steering[0]
    batch = trainer.objective.prepare(trainer.stream.batch())
    prose = batch.take((batch["domain"] == batch.domains.index("prose")).nonzero()[:, 0])
    [(rows, _)] = list(made._parts(prose))
    assert rows.rows == 1 and not bool(rows["mask"].any())


def test_random_directions_are_as_long_but_others() -> None:
    trainer = trial({"feedback": FEEDBACK, "overlap": "warn", "steering": [{**PART, "kind": "random_feedback"}]})
    control: Any = trainer.steering[0]
    true = super(type(control), control).direction("sums", 0)
    drawn, again, other = (control.direction("sums", step) for step in (0, 0, 2))
    assert vectors.norm(drawn.vector) == pytest.approx(1.0, rel=1e-5) and drawn.loss == true.loss
    for name, tensor in true.vector.items():
        assert float(drawn.vector[name].norm()) == pytest.approx(float(tensor.norm()), rel=1e-3)
    assert abs(vectors.cosine(drawn.vector, true.vector)) < 0.1
    assert (
        vectors.dot(drawn.vector, again.vector) == pytest.approx(1.0)
        and vectors.cosine(drawn.vector, other.vector) < 0.1
    )


def test_the_oracles_target_is_the_best_within_reach() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 5, 4, generator=generator)
    best = best_target(values, 0.3)
    assert torch.allclose(best.sum(-1), torch.ones(2, 5))
    reached = (best * values).sum(-1)
    for _ in range(200):  # no other target within reach is worth more
        r = torch.rand(2, 5, 4, generator=generator).softmax(-1)
        assert bool(((mixed_target(r, torch.full((2, 5), 0.3)) * values).sum(-1) <= reached + 1e-6).all())
    corner = torch.nn.functional.one_hot(values.argmax(-1), 4).float()
    assert torch.allclose(best, mixed_target(corner, torch.full((2, 5), 0.3)))
    gain = values.amax(-1) - values[..., 0]
    dear = best_target(values, 0.3, price := float(gain.median()))
    assert torch.equal(dear[gain > price], best[gain > price])
    assert (gain <= price).any() and torch.equal(dear[gain <= price][:, 0], torch.ones(int((gain <= price).sum())))


def test_the_unit_of_a_price_is_how_far_rivals_are_worth_another_thing() -> None:
    values = torch.tensor([[[1.0, 3.0, 1.0], [0.0, -2.0, 1.0], [5.0, 9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    assert rival_spread(values, mask, Group()) == pytest.approx(math.sqrt((4 + 0 + 4 + 1) / 4))
    assert rival_spread(values, torch.zeros_like(mask), Group()) == 0


def test_a_price_shuts_the_gate_and_an_opening_sets_it() -> None:
    for opening in (0.1, 0.5):
        line = run(_trainer(opening=opening, alpha_max=0.4), 1)[0]
        assert line["v_pretraining/alpha"] == pytest.approx(0.4 * opening, rel=1e-4)


def test_the_price_of_moving_weight_presses_on_the_gate() -> None:
    trainer = _trainer(opening=0.3, beliefs=False)
    part: Any = trainer.steering[0]
    batch = trainer.objective.prepare(trainer.stream.batch())
    toward = part.direction("sums", 0).vector
    slopes = []
    for penalty in (0.0, 2.0):
        part._optimizer.zero_grad()
        part.model_copy(update={"penalty": penalty})._learn(batch, toward, 1.0)
        slopes.append(float(part._designer.gate.bias.grad))
    # At the start every gate is alpha_max * opening, and r is what the learner itself makes of the candidates.
    values, mask = token_values(trainer.context, batch, toward, candidates=6), batch["mask"]
    elsewhere = 1 - values.log_probabilities.softmax(-1)[..., 0]
    price = 2.0 * rival_spread(values.candidates, mask, Group())
    expected = price * 0.5 * 0.3 * 0.7 * float((elsewhere * mask).sum() / mask.sum())
    assert slopes[1] - slopes[0] == pytest.approx(expected, rel=1e-3)


def test_the_oracle_gives_each_row_its_own_target() -> None:
    part = {"kind": "oracle_target", "feedback": "sums", "candidates": 5, "parameters": "last:1", "items": 8}
    trainer = trial({"feedback": FEEDBACK, "overlap": "warn", "steering": [part]})
    run(trainer, 2)
    made: Any = trainer.steering[0]
    trainer.learner.model.eval()
    batch = trainer.objective.prepare(trainer.stream.batch())
    made.before_step(batch)
    piece = batch.take(torch.tensor([6, 1]))
    given: Targets = made.targets(None, piece)
    toward = trainer.context.feedback("sums").gradient(batch.step, 8, made._names)[0]
    values = token_values(trainer.context, piece, vectors.unit(toward), candidates=5)
    assert torch.equal(given.ids, values.ids)
    same = (given.probabilities - best_target(values.candidates, 0.5)).abs().amax(-1) < 1e-6
    assert float(same.float().mean()) > 0.98  # ties may fall either way


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"candidates": 500}, "500 candidates a token are more than the 384"),
        ({"feedback": "sum"}, "did you mean 'sums'"),
        ({"feedback": {"prse": "sums"}}, "did you mean 'prose'"),
        ({"parameters": "last:9"}, "should name 1 to 2 blocks"),
        ({"parameters": "re:nothing"}, "holds none of this model's parameters"),
    ],
)
def test_wrong_requests(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        _trainer(**changes)


def test_a_width_fits_its_heads() -> None:
    with pytest.raises(RequestError, match="a width of 18 should be a multiple of twice its 4 heads"):
        _trainer(designer={"width": 18, "heads": 4})


def test_sizes() -> None:
    for learner, vocabulary in ((100_000, 384), (947_232, 4096), (5_868_800, 4096)):
        size = scaled_size(learner, vocabulary)
        made = TransformerDesigner(size, vocabulary, 8, candidates=4, largest=0.5, opening=0.5, beliefs=False, seed=0)
        assert sum(parameter.numel() for parameter in made.parameters()) == size.parameters(vocabulary)
        assert size.parameters(vocabulary) <= learner / 5
        assert scaled_size(2 * learner, vocabulary).width >= size.width
    assert Size(layers=6, width=256, heads=4) == PAPER


def test_the_state_is_whole() -> None:
    trainer = _trainer()
    run(trainer, 3)
    part: Any = trainer.steering[0]
    state = copy.deepcopy(part.state_dict())
    other: Any = _trainer().steering[0]
    other.load_state_dict(state)
    for (name, one), (_, two) in zip(
        part._designer.named_parameters(), other._designer.named_parameters(), strict=True
    ):
        assert torch.equal(one, two), name
        for key, value in part._optimizer.state[one].items():
            assert torch.equal(torch.as_tensor(value), other._optimizer.state[two][key])


def test_a_rehearsal_sees_what_each_kind_of_step_costs() -> None:
    trainer = _trainer(burn_in=3)
    found = trainer.rehearse(0, 0)
    assert trainer.step == trainer.stream.step == 0
    run(trainer, 6)
    assert found.flops == trainer.meter.per_kind and set(found.flops) == {"plain", "meta", "designed"}
