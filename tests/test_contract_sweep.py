"""Every part of every family keeps the promises of `foretrain.checks`; and the checks catch parts that don't.

A new part whose settings all have defaults is swept without any edit here; one with required settings needs a line in
`EXAMPLES`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from pydantic import Field, PrivateAttr, ValidationError
from torch import Tensor, nn

from foretrain.batch import Batch
from foretrain.checks import check_part
from foretrain.checks.trial import TINY, trial
from foretrain.context import Context
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.errors import RequestError
from foretrain.models.roles import Role
from foretrain.objectives.base import Targets
from foretrain.objectives.causal_lm import CausalLM
from foretrain.objectives.outputs import Outputs
from foretrain.optim.base import Optimizer, grouped
from foretrain.parametrizations.base import Parametrization
from foretrain.parts import Facts, Part, families, kinds
from foretrain.probes.base import Probe
from foretrain.schedules.base import Schedule
from foretrain.steering.base import Steering
from foretrain.tasks.base import Evaluated, Measured, Task
from foretrain.tokens.reserved import assemble, byte_level
from foretrain.tokens.tokenizer import TextTokenizer
from foretrain.tokens.tokenizers.base import Tokenizer
from foretrain.trackers.base import Tracker
from tests.tasks.subjects import byte_tokenizer, model, write_items
from tests.tiny import PROBLEMS

ITEMS = [
    {"text": f"item {i}", "question": f"what is {i}?", "choices": ["one", "two"], "answer": i % 2, "label": "ab"[i % 2]}
    for i in range(16)
]
LM_EVAL = """
task: sweep
dataset_path: json
dataset_kwargs: {{data_files: {{test: {items}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
"""


def _items(folder: Path) -> str:
    return write_items(folder / "items.jsonl", ITEMS)


def _saved_model(folder: Path, vocabulary: int = 390) -> str:
    model(vocabulary=vocabulary).save_pretrained(folder / "model")
    byte_tokenizer().save(folder / "model")
    return str(folder / "model")


def _residual(folder: Path) -> dict[str, Any]:
    for seed, name in enumerate(("plus", "minus")):
        trainer = trial({"seed": seed})
        plain: Any = trainer.plan.build_model()
        plain.save_pretrained(folder / name)
        trainer.plan.processor.save(folder / name)
    return {"plus": str(folder / "plus"), "minus": str(folder / "minus")}


def _tagged(folder: Path) -> str:
    items = [{"tokens": ["some", f"word{number}"], "tags": ["x", "y"]} for number in range(24)]
    return write_items(folder / "tagged.jsonl", items)


def _base(folder: Path) -> dict[str, Any]:
    return {"base": _residual(folder)["minus"]}


def _lm_eval(folder: Path) -> dict[str, Any]:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra [eval])")
    (folder / "sweep.yaml").write_text(LM_EVAL.format(items=_items(folder)))
    return {"task": "sweep", "include": str(folder)}


FEEDBACK = {"problems": {**PROBLEMS, "options": {"count": 30, "seed": 7}}}

VALUED = {"every": 2, "parameters": "last:1", "items": 4}

DESIGN = {"every": 2, "burn_in": 1, "parameters": "last:1", "items": 4}

IMAGES: dict[str, Any] = {
    "objective": {
        "kind": "dino",
        "local_crops": 0,
        "freeze_last_layer": 0,
        "prototypes": 16,
        "hidden": 16,
        "bottleneck": 8,
        "layers": 2,
    },
    "model": {"kind": "vit", "image": 16, "patch": 8, "layers": 1, "width": 16, "heads": 2},
    "tokenizer": None,
    "corpus": {"shapes": {"path": "builtin:shapes", "options": {"count": 48, "size": 16}, "validation": 0.2}},
    "batch": {"tokens": 8 * 4},
    "evaluation": {"tokens": 16},
    "feedback": {
        "labelled": {"kind": "segmentation", "path": "builtin:shapes", "options": {"count": 12, "size": 16, "seed": 1}}
    },
}
MASKS = {
    "feedback": "labelled",
    "every": 3,
    "items": 4,
    "channels": 4,
    "depth": 2,
    "burn_in": 0,
    "parameters": "last:1",
}

TEACHER = {"model": "teacher"}
ONE_STEP = {"rates": [1e-3], "seeds": 1, "steps": 1}

SHAPES = {"path": "builtin:shapes", "options": {"count": 40, "size": 16, "seed": 5}}

STAGES = {"first": {"weights": {"prose": 1}}, "second": {"weights": {"prose": 1, "sums": 1}}}

EXAMPLES: dict[tuple[str, str], Callable[[Path], dict[str, Any]]] = {
    ("steering", "distillation"): lambda folder: TEACHER,
    ("steering", "offline_distillation"): lambda folder: TEACHER,
    ("steering", "salt"): lambda folder: {**TEACHER, "until": 0.5, "fade": 0.5},
    ("steering", "sequence_distillation"): lambda folder: {**TEACHER, "tokens": 320},
    ("steering", "salt_selection"): lambda folder: {**TEACHER, "until": 0.5, "pool": 2},
    ("steering", "injection"): lambda folder: {"interventions": {"facts": {"path": "builtin:passwords", "limit": 4}}},
    ("feedback", "segmentation"): lambda folder: IMAGES["feedback"]["labelled"],
    ("steering", "learned_masks"): lambda folder: MASKS,
    ("steering", "llkd"): lambda folder: TEACHER,
    ("steering", "muscle"): lambda folder: {"old": "teacher", "new": "other"},
    ("steering", "random_selection"): lambda folder: TEACHER,
    ("steering", "random_feedback_masks"): lambda folder: MASKS,
    ("builtin", "curated"): lambda folder: {
        "build": {"read": {"path": "builtin:biographies", "options": {"people": 30}}, "steps": ["exact_duplicates"]}
    },
    ("corpus step", "decontaminate"): lambda folder: {"items": {"checked": "builtin:biographies"}},
    ("corpus step", "language"): lambda folder: {
        "keep": ["people"],
        "samples": {
            "people": {"path": "builtin:biographies", "options": {"people": 20}},
            "sums": {"path": "builtin:arithmetic", "options": {"count": 20}},
        },
    },
    ("corpus step", "score"): lambda folder: {"scorer": "random"},
    ("corpus executor", "slurm"): lambda folder: {"partition": "any"},
    ("feedback", "text"): lambda folder: FEEDBACK["problems"],
    ("steering", "mix_feedback"): lambda folder: {"feedback": "problems"},
    ("steering", "oracle_target"): lambda folder: {"feedback": "problems", "parameters": "last:1"},
    ("steering", "random_feedback"): lambda folder: {"feedback": "problems", **DESIGN},
    ("steering", "v_pretraining"): lambda folder: {"feedback": "problems", **DESIGN},
    ("steering", "static_mixture"): lambda folder: {"weights": {"prose": 3, "sums": 1}},
    ("steering", "value_mixture"): lambda folder: {"feedback": "problems", **VALUED},
    ("steering", "value_weighting"): lambda folder: {"feedback": "problems", **VALUED},
    ("objective", "completion_lm"): lambda folder: {"after": ": "},
    ("objective", "phases"): lambda folder: {
        "phases": {"first": {"objective": "causal_lm"}, "second": {"objective": "masked_lm"}}
    },
    ("probe", "one_step"): lambda folder: {"feedback": "problems", "pairs": 3, "rows": 1, "items": 4},
    ("probe", "function_preservation"): lambda folder: TEACHER,
    ("model", "grown"): lambda folder: {"path": _saved_model(folder), "width": 64, "layers": 3},
    ("merge", "emulated_fine_tuning"): lambda folder: {**_base(folder), "tuned": [str(folder / "plus")]},
    ("merge", "instruction_residual"): _residual,
    ("merge", "lines"): lambda folder: {**_base(folder), "alpha": 0.3, "beta": 0.5},
    ("merge", "task_vectors"): lambda folder: _base(folder),
    ("model", "pretrained"): lambda folder: {"path": _saved_model(folder)},
    ("scorer", "field"): lambda folder: {"field": "quality"},
    ("scorer", "model_loss"): lambda folder: TEACHER,
    ("scorer", "ngram_perplexity"): lambda folder: {"reference": _items(folder)},
    ("task", "completion_loss"): lambda folder: {"path": _items(folder)},
    ("task", "exact_match"): lambda folder: {"path": _items(folder), "prompt": "question", "answer": "label"},
    ("task", "exposure"): lambda folder: {"path": "builtin:canaries", "references": 20},
    ("task", "finetune"): lambda folder: {"path": _items(folder), **ONE_STEP},
    ("task", "finetune_tokens"): lambda folder: {"path": _tagged(folder), **ONE_STEP},
    ("task", "flips"): lambda folder: {
        "of": {"kind": "multiple_choice", "path": _items(folder)},
        "against": _saved_model(folder),
    },
    ("task", "image_probe"): lambda folder: SHAPES,
    ("task", "knn"): lambda folder: {"path": _items(folder)},
    ("task", "infill_loss"): lambda folder: {"path": "builtin:biographies", "options": {"people": 4}},
    ("task", "language_mixing"): lambda folder: {
        "prompts": {"path": _items(folder)},
        "languages": {
            "english": {"path": "builtin:biographies", "options": {"people": 9}},
            "cipher": {"path": "builtin:ciphers", "options": {"text": "builtin:biographies"}, "limit": 9},
        },
        "language": "cipher",
        "words": 1,
        "tokens": 8,
    },
    ("task", "linear_probe"): lambda folder: {"path": _items(folder)},
    ("task", "lm_eval"): _lm_eval,
    ("task", "multiple_choice"): lambda folder: {"path": _items(folder)},
    ("task", "segmentation_probe"): lambda folder: {**SHAPES, "steps": 5, "resamples": 20},
    ("tokenizer", "pretrained"): lambda folder: {"path": _saved_model(folder)},
}
"""Settings of the parts that cannot do without."""


def _with_teacher(folder: Path) -> dict[str, Any]:
    return {"models": {"teacher": {"path": _saved_model(folder, vocabulary=384)}}}


def _with_two_teachers(folder: Path) -> dict[str, Any]:
    other = model(vocabulary=384, seed=1)
    other.save_pretrained(folder / "other")
    byte_tokenizer().save(folder / "other")
    return {"models": {**_with_teacher(folder)["models"], "other": {"path": str(folder / "other")}}}


def _with_reference(folder: Path) -> dict[str, Any]:
    (folder / "small").mkdir()
    return {"models": {**_with_teacher(folder)["models"], "reference": {"path": _saved_model(folder / "small")}}}


RECIPES: dict[tuple[str, str], dict[str, Any] | Callable[[Path], dict[str, Any]]] = {
    ("objective", "phases"): {"model": {"kind": "eurobert", "layers": 2, "width": 32, "heads": 2, "context": 32}},
    ("steering", "distillation"): _with_teacher,
    ("steering", "offline_distillation"): _with_teacher,
    ("steering", "salt"): _with_teacher,
    ("steering", "salt_selection"): _with_teacher,
    ("steering", "sequence_distillation"): _with_teacher,
    ("scorer", "miniplm"): _with_reference,
    ("scorer", "model_loss"): _with_teacher,
    ("feedback", "segmentation"): IMAGES,
    ("steering", "learned_masks"): IMAGES,
    ("steering", "llkd"): _with_teacher,
    ("steering", "muscle"): _with_two_teachers,
    ("steering", "random_selection"): _with_teacher,
    ("steering", "random_feedback_masks"): IMAGES,
    ("steering", "random_masks"): IMAGES,
    ("steering", "elastic_weight_consolidation"): {"stages": STAGES},
    ("steering", "synaptic_intelligence"): {"stages": STAGES},
    ("steering", "mix_feedback"): {"feedback": FEEDBACK},
    ("steering", "oracle_target"): {"feedback": FEEDBACK},
    ("steering", "random_feedback"): {"feedback": FEEDBACK},
    ("steering", "v_pretraining"): {"feedback": FEEDBACK},
    ("steering", "value_mixture"): {"feedback": FEEDBACK},
    ("steering", "value_weighting"): {"feedback": FEEDBACK},
    ("probe", "one_step"): {"feedback": FEEDBACK},
    ("probe", "function_preservation"): _with_teacher,
    ("steering", "sub_models"): {"model": {**TINY["model"], "layers": 4}},
    ("probe", "task_dip"): {
        "tasks": {"sums": {"kind": "completion_loss", **FEEDBACK["problems"], "limit": 4}},
        "overlap": "warn",
    },
}
"""What parts need of the trial recipe: its top-level keys, or what makes them in a folder."""

PARTS = [
    part
    for base in families().values()
    for part in kinds(base).values()
    if part.__module__.startswith("foretrain.")  # plug-ins of other tests are theirs to check
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.axis}-{part.name()}")
def test_every_part_keeps_its_promises(part: type[Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    settings = EXAMPLES.get((part.axis, part.name()), lambda folder: {})(tmp_path)
    recipe = RECIPES.get((part.axis, part.name()))
    recipe = recipe(tmp_path) if callable(recipe) else recipe
    check_part(part.model_validate({"kind": part.name(), **settings}), recipe)


def test_every_family_is_checked() -> None:
    from foretrain import checks

    assert {base.axis for base in checks.FAMILIES} == set(families())


def test_examples_are_of_parts_that_need_them() -> None:
    assert set(EXAMPLES) == {(part.axis, part.name()) for part in PARTS if _needs_settings(part)}


def _needs_settings(part: type[Part]) -> bool:
    try:
        part.model_validate({"kind": part.name()})
    except ValidationError:
        return True
    return False


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_tokenizers_built_here_lose_nothing(kind: str) -> None:
    made = kinds(Tokenizer)[kind].model_validate({"kind": kind}).build(lambda: iter(["some text to learn from"] * 9))
    texts = ["", "naïve — 東京 🙂\n\n\tx", "a\x00b\x7f", "<|endoftext|>", " ".join(map(str, range(50)))]
    assert [made.decode(ids) for ids in made.encode(texts)] == texts


# Parts that keep their promises, and need no example: what a plug-in may be ---------------------------------------

FACTS = Facts(answers="does the sweep take it?")


class SweepGate(Steering):
    """Soft targets that move a share of each label to the learner's best other token."""

    kind: Literal["sweep_gate"] = "sweep_gate"
    facts: ClassVar[Facts] = FACTS
    neutral: ClassVar[dict[str, Any] | None] = {"share": 0.0}
    share: float = Field(0.2, ge=0, le=1)
    """How much is moved."""
    _steps: list[int] = PrivateAttr(default_factory=list)

    def targets(self, outputs: Outputs, batch: Batch) -> Targets | None:
        others = outputs.logits().float().scatter(-1, batch["labels"][..., None], -math.inf).argmax(-1)
        share = torch.full_like(batch["labels"], self.share * (1 + len(self._steps) % 2), dtype=torch.float32)
        return Targets(torch.stack([batch["labels"], others], -1), torch.stack([1 - share, share], -1))

    def after_step(self, step: int) -> None:
        self._steps.append(step)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": list(self._steps)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps[:] = state["steps"]


class SweepFrozen(Parametrization):
    """Trains everything but the embeddings."""

    kind: Literal["sweep_frozen"] = "sweep_frozen"
    facts: ClassVar[Facts] = FACTS

    def apply(self, model: nn.Module, seed: int) -> nn.Module:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("embed" not in name)
        return model


@pytest.mark.parametrize("part", [SweepGate(), SweepGate(share=0.0), SweepFrozen()], ids=lambda part: part.kind)
def test_plug_ins_are_checked_too(part: Part) -> None:
    assert kinds(families()[part.axis])[part.kind] is type(part)
    check_part(part)


# Parts that break one promise each --------------------------------------------------------------------------------


class Silent(Schedule):
    """A field says nothing of itself."""

    kind: Literal["sweep_silent"] = "sweep_silent"
    facts: ClassVar[Facts] = FACTS
    level: float = 0.5

    def shape(self, step: int, start: int, total: int) -> float:
        return self.level


class TooHigh(Schedule):
    """Leaves [0, 1] in long runs only."""

    kind: Literal["sweep_too_high"] = "sweep_too_high"
    facts: ClassVar[Facts] = FACTS

    def shape(self, step: int, start: int, total: int) -> float:
        return 1 + step / 500


class Uphill(Optimizer):
    """Goes up the gradient."""

    kind: Literal["sweep_uphill"] = "sweep_uphill"
    facts: ClassVar[Facts] = FACTS

    def build(self, parameters: dict[str, nn.Parameter], roles: dict[str, Role]) -> torch.optim.Optimizer:
        groups = grouped(parameters, roles, lambda role: {"name": "all", "peak_lr": self.lr})
        return torch.optim.SGD(groups, lr=self.lr, maximize=True)


class Forgetful(Steering):
    """Its weights depend on a counter that no checkpoint holds."""

    kind: Literal["sweep_forgetful"] = "sweep_forgetful"
    facts: ClassVar[Facts] = FACTS
    _count: int = PrivateAttr(0)

    def weigh(self, losses: Tensor, batch: Batch) -> Tensor:
        self._count += 1
        return torch.full_like(losses, 1.0 + 0.1 * self._count)


class NotNeutral(Steering):
    """Its neutral settings still scale the losses."""

    kind: Literal["sweep_not_neutral"] = "sweep_not_neutral"
    facts: ClassVar[Facts] = FACTS
    neutral: ClassVar[dict[str, Any] | None] = {"strength": 0.0}
    strength: float = 1.0
    """Strength."""

    def weigh(self, losses: Tensor, batch: Batch) -> Tensor:
        return torch.full_like(losses, 1.001 + self.strength)


class Odd(Steering):
    """Its state is nothing a checkpoint can hold."""

    kind: Literal["sweep_odd"] = "sweep_odd"
    facts: ClassVar[Facts] = FACTS

    def state_dict(self) -> dict[str, Any]:
        return {"set": {1, 2}}


_shared: list[int] = []


class Shared(Steering):
    """All its copies count in one list."""

    kind: Literal["sweep_shared"] = "sweep_shared"
    facts: ClassVar[Facts] = FACTS
    _counts: list[int] = PrivateAttr(default_factory=list)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Shared:
        copied = super().model_copy(update=update, deep=deep)
        copied._counts = self._counts
        return copied


class Impure(CausalLM):
    """Its mask comes from the global generator."""

    kind: Literal["sweep_impure"] = "sweep_impure"  # type: ignore[assignment]
    facts: ClassVar[Facts] = FACTS

    def prepare(self, batch: Batch) -> Batch:
        prepared = super().prepare(batch)
        return prepared.with_(mask=prepared["mask"] & (torch.rand(prepared["mask"].shape) < 0.5))


class OverMicroBatches(CausalLM):
    """Its losses depend on how many rows come together."""

    kind: Literal["sweep_over_micro"] = "sweep_over_micro"  # type: ignore[assignment]
    facts: ClassVar[Facts] = FACTS

    def losses(self, outputs: Outputs, batch: Batch, targets: Targets | None = None) -> Tensor:
        return super().losses(outputs, batch, targets) / batch.rows


class Meddling(Probe):
    """Changes the weights it measures."""

    kind: Literal["sweep_meddling"] = "sweep_meddling"
    facts: ClassVar[Facts] = FACTS

    @torch.no_grad()
    def measure(self, context: Context) -> dict[str, float]:
        next(iter(context.weights.values())).mul_(1.0001)
        return {"one": 1.0}


class Infinite(Probe):
    """Gives what is no number."""

    kind: Literal["sweep_infinite"] = "sweep_infinite"
    facts: ClassVar[Facts] = FACTS

    def measure(self, context: Context) -> dict[str, float]:
        return {"one": math.inf}


class Losing(Parametrization):
    """Gives back another model than the one it trained."""

    kind: Literal["sweep_losing"] = "sweep_losing"
    facts: ClassVar[Facts] = FACTS

    def apply(self, model: nn.Module, seed: int) -> nn.Module:
        return model

    def merge(self, model: nn.Module) -> nn.Module:
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(2)  # type: ignore[operator]
        return model


class Fickle(Task):
    """Draws from the global generator."""

    kind: Literal["sweep_fickle"] = "sweep_fickle"
    facts: ClassVar[Facts] = FACTS

    def evaluate(self, subject: Evaluated, seed: int) -> dict[str, Measured]:
        return {"luck": Measured(float(torch.rand(())), None, None, 1, True)}


class Restless(Builtin):
    """Gives other documents each time."""

    kind: Literal["sweep_restless"] = "sweep_restless"
    facts: ClassVar[Facts] = FACTS
    _turn: list[int] = PrivateAttr(default_factory=list)

    def documents(self) -> Iterator[Document]:
        self._turn.append(1)
        yield Document("0", f"reading {len(self._turn)}", "builtin:sweep_restless")


class Lossy(Tokenizer):
    """Its ids outgrow its vocabulary."""

    kind: Literal["sweep_lossy"] = "sweep_lossy"
    facts: ClassVar[Facts] = FACTS

    def build(self, texts: Callable[[], Iterable[str]]) -> TextTokenizer:
        made = assemble([], byte_level(use_regex=False))
        made.vocabulary = 200
        return made


class Wordless(Tracker):
    """Says nothing of what is missing."""

    kind: Literal["sweep_wordless"] = "sweep_wordless"
    facts: ClassVar[Facts] = FACTS

    def start(self, run: Path, name: str, recipe: Mapping[str, Any]) -> None:
        raise RequestError("no")

    def log(self, step: int, figures: Mapping[str, float]) -> None: ...


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (Silent(), "schedule 'sweep_silent': fields without a docstring below them: level"),
        (TooHigh(), "factor of step .* is 1.*outside"),
        (Uphill(), "at lr 0.001 does not lower the loss"),
        (Forgetful(), "some state is not in `state_dict`"),
        (NotNeutral(), "neutral settings .* change the run"),
        (Odd(), "state at 'parts/steering.0/set' is of type set"),
        (Shared(), "deep copies share _counts"),
        (Impure(), "`prepare` is pure"),
        (OverMicroBatches(), "depends on the micro-batch"),
        (Meddling(), "changes weights that are not its own"),
        (Infinite(), "one is inf, not a number"),
        (Losing(), "the merged model gives other logits"),
        (Fickle(), "changes generators"),
        (Restless(), "its documents change"),
        (Lossy(), "an id has no embedding row"),
        (Wordless(), "not named in words"),
    ],
    ids=lambda value: value.kind if isinstance(value, Part) else "",
)
def test_a_broken_promise_is_named(part: Part, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_part(part)


def test_a_part_may_need_more_of_the_recipe(tmp_path: Path) -> None:
    part = SweepGate()
    encoder = {"kind": "bert", "layers": 1, "width": 32, "heads": 2, "context": 32}
    with pytest.raises(RequestError, match="trains a decoder, but model 'bert' is an encoder"):
        check_part(part, {"model": encoder})
    check_part(part, {"model": {**encoder, "kind": "gpt2"}})
    assert json.dumps(part.model_dump(mode="json")) == '{"kind": "sweep_gate", "share": 0.2}'
