"""What the parts of each family promise, and how it is seen."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from foretrain.checks.promises import check_class, check_data, equal, need, title
from foretrain.checks.trial import (
    CONTEXT,
    OF_MODALITY,
    STEPS,
    TINY,
    Figures,
    check_figures,
    check_trained,
    files,
    finished,
    run,
    trial,
    untouched,
    weights,
)
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.decoding import Decoder
from foretrain.corpus.formats.base import Format
from foretrain.errors import RequestError
from foretrain.feedback.base import Feedback
from foretrain.images.builtin.base import ImageBuiltin
from foretrain.images.formats.base import ImageFormat
from foretrain.images.subject import ImageSubject
from foretrain.merging.base import Merge
from foretrain.merging.evaluating import evaluate_merge
from foretrain.modalities.base import Modality, modality_of
from foretrain.models.base import Model, family
from foretrain.objectives.base import Objective
from foretrain.optim.base import Optimizer
from foretrain.parametrizations.base import Parametrization
from foretrain.parts import Part
from foretrain.probes.base import Probe
from foretrain.run_directory import RunDirectory
from foretrain.schedules.base import Schedule
from foretrain.steering.base import Steering, overrides
from foretrain.step import Problem
from foretrain.studies.executors import base as executors
from foretrain.studies.executors.base import Executor, Job, Outcome
from foretrain.studies.stopping.base import Stopping
from foretrain.tasks.base import Task
from foretrain.tokens.tokenizers.base import Tokenizer
from foretrain.trackers import base as trackers
from foretrain.trackers.base import Tracker

TEXTS = ("Plain text.", "naïve Straße — 東京 🙂", "  two  spaces\n\n\tand a tab ", "def f(x):\n    return x ** 2\n", "")


def check_part(part: Part, recipe: Mapping[str, Any] | None = None) -> None:
    """Check a part of any family: what every part promises, and what its family does.

    Args:
        part: with the settings to try.
        recipe: top-level keys of the trial recipe to replace, for parts that need something of it (`feedback`, another
            `model`).

    Raises:
        AssertionError: a promise is not kept; the message names it.
    """
    check_class(type(part))
    check_data(part)
    for base, check in FAMILIES.items():
        if isinstance(part, base):
            check(part, {**OF_MODALITY.get(getattr(part, "modality", "text"), {}), **(recipe or {})})


def _check_schedule(part: Any, recipe: Figures) -> None:
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


def _check_optimizer(part: Any, recipe: Figures) -> None:
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


def _check_parametrization(part: Any, recipe: Figures) -> None:
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
    _check_neutral(part, recipe, lambda neutral: {"parametrization": neutral})


def _check_objective(part: Any, recipe: Figures) -> None:
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
    _check_neutral(part, plain, lambda neutral: {"objective": neutral})


def _check_steering(part: Any, recipe: Figures) -> None:
    check_trained(part, {**recipe, "steering": [part]})
    # Soft targets go through another kernel than labels, which rounds in another order.
    _check_neutral(part, recipe, lambda neutral: {"steering": [neutral]}, 1e-6 if overrides(part, "targets") else 0.0)


def _check_neutral(part: Part, recipe: Figures, changes: Callable[[Part], Figures], tolerance: float = 0.0) -> None:
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


def _check_probe(part: Any, recipe: Figures) -> None:
    trainer = trial({**recipe, "probes": [part]})
    run(trainer, 2)
    with untouched(part, trainer.learner.model):
        found = trainer.probes[0].measure(trainer.context)
    check_figures(part, found)
    need(found == trainer.probes[0].measure(trainer.context), f"{title(part)}: measuring twice gives other figures")
    check_trained(part, {**recipe, "probes": [part]})


def _check_task(part: Any, recipe: Figures) -> None:
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


def _check_feedback(part: Any, recipe: Figures) -> None:
    need(list(part.texts()) == list(part.texts()), f"{title(part)}: the texts of its items change")
    trainer = trial({**recipe, "feedback": {"checked": part}})
    names, masters = list(trainer.learner.masters), trainer.learner.masters
    with untouched(part, trainer.learner.model):
        found = trainer.context.feedback("checked")
        need(found.items > 0, f"{title(part)} has no item")
        first, again, other = (found.gradient(step, 2, names) for step in (0, 0, 1))
        losses = [found.loss(step, 2) for step in (0, 0, 1)]
    need(equal(first, again) and losses[0] == losses[1], f"{title(part)}: one step draws other items the second time")
    need(set(first[0]) == set(names), f"{title(part)}: its gradient is over other parameters than it was asked for")
    need(all(math.isfinite(loss) for loss in losses), f"{title(part)}: a loss is not finite")
    need(math.isclose(first[1], losses[0], rel_tol=1e-4), f"{title(part)}: `gradient` and `loss` see other losses")
    need(found.items <= 2 or not equal(first, other), f"{title(part)}: every step draws the same items")
    need(all(weight.grad is None for weight in masters.values()), f"{title(part)}: its gradient is left in `.grad`")


def _check_builtin(part: Any, recipe: Figures) -> None:
    first, second = (list(islice(part.documents(), 50)) for _ in range(2))
    need(len(first) > 0, f"{title(part)} holds no document")
    need(first == second, f"{title(part)}: its documents change from one reading to the next")
    need(all(document.text.strip() for document in first), f"{title(part)}: a document is empty")
    need(len({document.id for document in first}) == len(first), f"{title(part)}: two documents have one id")
    for document in first:
        need(json.dumps(dataclasses.asdict(document)) != "", f"{title(part)}: metadata is plain data")


def _check_tokenizer(part: Any, recipe: Figures) -> None:
    texts = [f"{text} {number}" for number in range(50) for text in TEXTS]
    made, again = part.build(lambda: iter(texts)), part.build(lambda: iter(texts))
    need(made.hash == again.hash, f"{title(part)}: the same texts give another tokenizer")
    need(made.eos is not None, f"{title(part)}: there is no id that ends a document")
    ids = made.encode(TEXTS)
    need(all(0 <= each < made.vocabulary for row in ids for each in row), f"{title(part)}: an id has no embedding row")
    need(made.encode([made.decode(row) for row in ids]) == ids, f"{title(part)}: ids of decoded text are other ids")
    with tempfile.TemporaryDirectory() as folder:
        made.save(Path(folder))
        need(type(made).load(folder).hash == made.hash, f"{title(part)}: it is another one after it was saved")


def _check_model(part: Any, recipe: Figures) -> None:
    vocabulary, special = 390, dict.fromkeys(("bos", "eos", "pad", "mask"), 0)
    config = part.config(vocabulary, special)
    with untouched(part):
        model = part.build(config, 3)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    skeleton = part.skeleton(config)
    need(
        shapes == {name: parameter.shape for name, parameter in skeleton.named_parameters()},
        f"{title(part)}: `skeleton` has other parameters than `build`",
    )
    need(
        all(parameter.dtype == torch.float32 for parameter in model.parameters()), f"{title(part)} is built in float32"
    )
    need(not model.training, f"{title(part)} is built in eval mode")
    need(equal(model.state_dict(), part.build(config, 3).state_dict()), f"{title(part)}: one seed gives two models")
    length = min(8, part.context_length(config))
    with torch.no_grad():
        if family(config) == "vision":
            whole, found = ImageSubject(model).features(_noise(config))
            need(whole.shape == (1, config.hidden_size), f"{title(part)}: features have shape {list(whole.shape)}")
            need(found[0, ..., 0].numel() == part.context_length(config), f"{title(part)}: its context is its patches")
        else:
            found = model(input_ids=torch.arange(length)[None]).logits
            need(found.shape == (1, length, config.vocab_size), f"{title(part)}: logits have shape {list(found.shape)}")
    need(bool(torch.isfinite(found).all()), f"{title(part)}: a fresh model gives numbers that are not finite")
    need(modality_of(config).shape(config) != {}, f"{title(part)} reads what no modality knows of")


def _noise(config: Any) -> Tensor:
    """One image of random pixels for a vision model."""
    shape = (1, config.num_channels, config.image_size, config.image_size)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def _check_modality(part: Any, recipe: Figures) -> None:
    changes = {**OF_MODALITY.get(part.kind, {}), **recipe}
    trainer = trial(changes)
    plan = trainer.plan
    paths = [path for domain in plan.recipe.corpus.values() for path in [domain.path] if isinstance(path, str)]
    need(plan.modality == part and all(map(part.reads, paths)), f"{title(part)} does not read its own trial corpus")
    need(family(plan.config) in part.families, f"{title(part)}: its model is of a family that it does not know")
    batch = trainer.objective.prepare(trainer.stream.batch())
    words = part.row({name: tensor[0] for name, tensor in batch.items()}, plan.tokenizer)
    need(bool(words), f"{title(part)} has no words for a row of a batch")
    with tempfile.TemporaryDirectory() as folder:
        plan.processor.save(Path(folder))
        need(any(Path(folder).iterdir()), f"{title(part)} leaves nothing beside an exported model")


def _check_image_format(part: Any, recipe: Figures) -> None:
    need(len(part.suffixes) > 0, f"{title(part)} has no suffix")
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate((b"", b"\x00\xff\xfe\n\n{", b"plain\n")):
            path = Path(folder) / f"{number}{part.suffixes[0]}"
            path.write_bytes(content)
            try:
                list(part.items(path, path.name))
            except RequestError as error:
                need(str(path) in str(error), f"{title(part)}: an error does not name the file ({error})")
            else:
                need(False, f"{title(part)}: it takes {content!r} for images")


def _check_image_set(part: Any, recipe: Figures) -> None:
    try:
        first, second = (list(islice(part.items(), 50)) for _ in range(2))
    except RequestError as error:
        need("pip install" in str(error), f"{title(part)}: a missing package is not named in words ({error})")
        return
    need(len(first) > 0, f"{title(part)} holds no image")
    need([item.key for item in first] == [item.key for item in second], f"{title(part)}: its images change")
    need(len({item.id for item in first}) == len(first), f"{title(part)}: two images have one id")
    need(len({item.pixels.shape for item in first}) == 1, f"{title(part)}: its images are of several shapes")
    for item in first:
        fits = item.mask is None or item.mask.shape == item.pixels.shape[1:]
        need(item.pixels.dtype == np.uint8 and fits, f"{title(part)}: an image is uint8, and its mask of its size")


def _check_tracker(part: Any, recipe: Figures) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(trackers, "importlib", SimpleNamespace(import_module=_no_module)),
    ):
        for _ in range(2):  # the second time as after a resume
            tracker = part.model_copy(deep=True)
            try:
                tracker.start(Path(folder), "check", {"seed": 0})
            except RequestError as error:
                need("pip install" in str(error), f"{title(part)}: a missing package is not named in words ({error})")
                return
            tracker.log(1, {"loss": 1.0})
            tracker.finish()


def _check_format(part: Any, recipe: Figures) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate((b"", b"\x00\xff\xfe\n\n{", b"plain\n")):
            path = Path(folder) / f"{number}.{part.kind}"
            path.write_bytes(content)
            try:
                numbers = [record.number for record in part.records(path, Decoder())]
            except RequestError as error:
                need(str(path) in str(error), f"{title(part)}: an error does not name the file ({error})")
                continue
            need(numbers == sorted(set(numbers)), f"{title(part)}: the numbers of its records do not rise")


def _check_merge(part: Any, recipe: Figures) -> None:
    with tempfile.TemporaryDirectory() as folder:
        changes = {"checkpoint": {"every": 1, "keep": STEPS}, **recipe}
        runs = [finished({**changes, "seed": seed}, Path(folder) / f"{seed}") for seed in (0, 1)]
        before = [files(run.path) for run in runs]
        part.check(runs[0].load_recipe(), STEPS)
        for name in ("one", "several"):
            members = runs[:1] if name == "one" else runs
            found = evaluate_merge(part, members, Path(folder) / name)
            check_figures(part, found["validation"])
            opened = RunDirectory.open(Path(folder) / name)
            need(opened.status() == "done", f"{title(part)}: what it leaves does not read as a run that has ended")
            again = evaluate_merge(part, members, Path(folder) / f"{name}-again")
            need(found["validation"] == again["validation"], f"{title(part)}: merging twice gives other figures")
        need(before == [files(run.path) for run in runs], f"{title(part)} changes its members")


def _check_executor(part: Any, recipe: Figures) -> None:
    jobs = [
        Job("good", "foretrain.checks.sample_jobs:answer", {"figures": [1, 2.5, None], "text": "naïve\n"}),
        Job("bad", "foretrain.checks.sample_jobs:fail", {"error": "it failed"}),
        Job("wrong", "foretrain.checks.sample_jobs:refuse", {"error": "it was refused"}),
    ]
    expected = {
        "good": Outcome(jobs[0], jobs[0].payload, None, "done"),
        "bad": Outcome(jobs[1], None, "it failed", "failed"),
        "wrong": Outcome(jobs[2], None, "it was refused", "refused"),
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(executors, "importlib", SimpleNamespace(import_module=_no_module)),
    ):
        try:
            pool = part.open(Path(folder))
        except RequestError as error:
            need("pip install" in str(error), f"{title(part)}: a missing package is not named in words ({error})")
            return
        need(pool.slots >= 1, f"{title(part)}: its pool has no slot")
        with pool:
            for time in ("once", "again"):
                found = {outcome.job.name: outcome for outcome in pool.run(jobs)}
                need(found == expected, f"{title(part)}: asked {time}, three jobs came to {list(found.values())}")


def _no_module(name: str) -> Any:
    raise ImportError(f"No module named '{name}'", name=name)


def _check_stopping(part: Any, recipe: Figures) -> None:
    rungs = part.rungs()
    need(list(rungs) == sorted(set(rungs)), f"{title(part)}: its rungs do not rise ({rungs})")
    need(all(0 < rung < 1 for rung in rungs), f"{title(part)}: a rung is no share of a budget ({rungs})")
    figures = {f"arm{number}": {seed: float(number * number) for seed in range(3)} for number in range(5)}
    for rung in rungs:
        for baseline in figures:
            ended = part.stopped(rung, figures, baseline)
            need(ended <= set(figures) - {baseline}, f"{title(part)}: it stops {sorted(ended)}, baseline {baseline}")
            need("arm0" not in ended, f"{title(part)}: it stops the best arm of all")
            need(ended == part.stopped(rung, figures, baseline), f"{title(part)}: it decides differently each time")
        need(part.stopped(rung, {**figures, "arm4": {}}, "arm0") is not None, f"{title(part)}: an arm may have failed")


FAMILIES: dict[type[Part], Callable[[Any, Figures], None]] = {
    Builtin: _check_builtin,
    Executor: _check_executor,
    Format: _check_format,
    ImageBuiltin: _check_image_set,
    ImageFormat: _check_image_format,
    Merge: _check_merge,
    Modality: _check_modality,
    Model: _check_model,
    Objective: _check_objective,
    Optimizer: _check_optimizer,
    Parametrization: _check_parametrization,
    Probe: _check_probe,
    Schedule: _check_schedule,
    Steering: _check_steering,
    Stopping: _check_stopping,
    Task: _check_task,
    Feedback: _check_feedback,
    Tokenizer: _check_tokenizer,
    Tracker: _check_tracker,
}
