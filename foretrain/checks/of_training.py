"""What parts of a training step promise, and how it is seen."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch

from foretrain.checks.promises import equal, need, title
from foretrain.checks.trial import (
    CONTEXT,
    STEPS,
    TINY,
    Figures,
    check_figures,
    check_trained,
    run,
    trial,
    untouched,
    weights,
)
from foretrain.parts import Part
from foretrain.steering.base import overrides
from foretrain.step import Problem


def check_schedule(part: Any, recipe: Figures) -> None:
    """Factors lie in [0, 1] and depend on the step alone."""
    for total in (1, 2, 3, 10, 97, 1000):
        curve = [part.factor(step, total) for step in range(total)]
        for step, factor in enumerate(curve):
            need(
                math.isfinite(factor) and 0 <= factor <= 1,
                f"{title(part)}: the factor of step {step} of {total} is {factor}, outside [0, 1]",
            )
        need(max(curve) > 0, f"{title(part)}: all factors of a run of {total} steps are 0")
        backwards = [part.factor(step, total) for step in reversed(range(total))][::-1]
        need(curve == backwards, f"{title(part)}: a factor depends on more than the step")


def check_optimizer(part: Any, recipe: Figures) -> None:
    """Every parameter is in one group, and a step lowers the loss."""
    trainer = trial({**recipe, "optimizer": part})
    groups, masters = trainer.optimizer.param_groups, trainer.learner.masters
    for key in ("name", "peak_lr", "param_names"):
        need(all(key in group for group in groups), f"{title(part)}: its parameter groups lack `{key}`")
    names = [name for group in groups for name in group["param_names"]]
    need(sorted(names) == sorted(masters), f"{title(part)}: its groups hold every parameter once")
    batch = trainer.objective.prepare(trainer.stream.batch())
    problems = [Problem(batch, trainer.objective, trainer.learner, (), batch.rows) for _ in range(2)]
    trainer.learner.install(problems[0]())
    trainer.optimizer.step()
    trainer.learner.refresh()
    problems[1]()
    need(
        float(problems[1].loss) < float(problems[0].loss),
        f"{title(part)}: a step at lr {part.lr:g} does not lower the loss",
    )
    check_trained(part, {**recipe, "optimizer": part})


def check_parametrization(part: Any, recipe: Figures) -> None:
    """Merging gives back the plain model, with the same logits."""
    changes = {**recipe, "parametrization": part}
    trainer = trial(changes)
    run(trainer, 2)
    plain, trained = trainer.plan.build_model(), trainer.parametrization.merge(copy.deepcopy(trainer.learner.model))
    shapes = {name: parameter.shape for name, parameter in plain.named_parameters()}
    need(
        shapes == {name: parameter.shape for name, parameter in trained.named_parameters()},
        f"{title(part)}: `merge` gives back the parameters of the plain model",
    )
    ids = trainer.stream.batch()["tokens"][:, :CONTEXT]
    with torch.no_grad():
        ours, merged = (model.eval()(input_ids=ids).logits for model in (trainer.learner.model, trained))
    need(torch.allclose(ours, merged, atol=1e-4), f"{title(part)}: the merged model gives other logits")
    check_trained(part, changes)
    check_neutral(part, recipe, lambda neutral: {"parametrization": neutral})


def check_objective(part: Any, recipe: Figures) -> None:
    """Preparation is pure, losses are masked and free of the micro-batch."""
    kind = "bert" if part.family == "encoder" else "llama"
    changes = {"model": {**TINY["model"], "kind": kind}, **recipe, "objective": part}
    trainer = trial(changes)
    batch = trainer.stream.batch()
    prepared = trainer.objective.prepare(batch)
    rows = torch.tensor([5, 2])
    fresh = part.model_copy(deep=True)
    fresh.setup(trainer.context)
    for other, index in ((trainer.objective.prepare(batch), slice(None)), (fresh.prepare(batch.take(rows)), rows)):
        need(equal(dict(prepared.take(index)), dict(other)), f"{title(part)}: `prepare` is pure in (seed, position)")
    losses = trainer.objective.losses(trainer.objective.forward(trainer.learner.model, prepared), prepared).detach()
    mask = prepared["mask"]
    need(losses.shape == mask.shape, f"{title(part)}: losses {list(losses.shape)} for a mask {list(mask.shape)}")
    need(losses.dtype == torch.float32, f"{title(part)}: losses are {losses.dtype} and not float32")
    need(bool((losses[~mask.bool()] == 0).all()), f"{title(part)}: a loss is not 0 where the mask is off")
    whole = check_trained(part, changes)
    row = trainer.plan.context  # 8 rows as 3, 3 and 2
    pieces = run(trial({**changes, "batch": {"tokens": 8 * row, "micro": 3 * row}}), STEPS)
    for a, b in zip(whole, pieces, strict=True):
        need(
            math.isclose(a["loss"], b["loss"], rel_tol=1e-4),
            f"{title(part)}: the loss depends on the micro-batch ({a['loss']} and {b['loss']})",
        )
    plain = {key: value for key, value in changes.items() if key != "objective"}
    check_neutral(part, plain, lambda neutral: {"objective": neutral})


def check_steering(part: Any, recipe: Figures) -> None:
    """Runs with it are exact under resume, and plain at its neutral settings."""
    check_trained(part, {**recipe, "steering": [part]})
    # Soft targets go through another kernel than labels, which rounds in another order.
    check_neutral(part, recipe, lambda neutral: {"steering": [neutral]}, 1e-6 if overrides(part, "targets") else 0.0)


def check_neutral(part: Part, recipe: Figures, changes: Callable[[Part], Figures], tolerance: float = 0.0) -> None:
    """Neutral settings, where there are some, give the run that there is without the part."""
    if part.neutral is None:
        return
    neutral = type(part).model_validate({**part.model_dump(mode="json"), **part.neutral})
    plain, same = trial(recipe), trial({**recipe, **changes(neutral)})
    for a, b in zip(run(plain, STEPS), run(same, STEPS), strict=True):
        need(
            math.isclose(a["loss"], b["loss"], rel_tol=tolerance, abs_tol=0.0),
            f"{title(part)}: its neutral settings {part.neutral} change the run (loss {a['loss']} is {b['loss']})",
        )
    if not tolerance:
        need(equal(weights(plain), weights(same)), f"{title(part)}: its neutral settings change the weights")


def check_probe(part: Any, recipe: Figures) -> None:
    """It changes nothing, and measuring twice gives the same."""
    trainer = trial({**recipe, "probes": [part]})
    run(trainer, 2)
    with untouched(part, trainer.learner.model):
        found = trainer.probes[0].measure(trainer.context)
    check_figures(part, found)
    need(found == trainer.probes[0].measure(trainer.context), f"{title(part)}: measuring twice gives other figures")
    check_trained(part, {**recipe, "probes": [part]})


def check_task(part: Any, recipe: Figures) -> None:
    """It changes nothing, evaluating twice gives the same, and figures lie in their intervals."""
    part.check()
    need(list(part.texts()) == list(part.texts()), f"{title(part)}: the texts of its items change")
    trainer = trial({"model": {**TINY["model"], "context": 2 * CONTEXT}, **recipe})
    plan = trainer.plan
    subject = plan.modality.subject(trainer.learner.model, plan.tokenizer, plan.context)
    with untouched(part, trainer.learner.model):
        found = part.evaluate(subject, 0)
    check_figures(part, {name: measured.value for name, measured in found.items()})
    for name, measured in found.items():
        inside = measured.low is None or measured.high is None or measured.low <= measured.value <= measured.high
        need(inside, f"{title(part)}: {name} lies outside its interval")
        need(measured.items > 0, f"{title(part)}: {name} was measured on no item")
    if part.measures is not None:
        told = {name: measured.higher_is_better for name, measured in found.items()}
        need(told == dict(part.measures), f"{title(part)} says it measures {dict(part.measures)}, but gives {told}")
    need(found == part.evaluate(subject, 0), f"{title(part)}: evaluating twice gives other figures")
