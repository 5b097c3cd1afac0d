"""Recipe: the one schema of everything a run needs, and how it is read, overridden and checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from foretrain.corpus.annotation import Annotation
from foretrain.corpus.scorers.base import Scorer
from foretrain.corpus.where import Wanted, without_unused
from foretrain.feedback.base import Feedback
from foretrain.models.base import Model
from foretrain.named_models import NamedModel
from foretrain.objectives.base import Objective
from foretrain.optim.base import Optimizer
from foretrain.overrides import with_override
from foretrain.parametrizations.base import Parametrization
from foretrain.parts import PartOf, with_plugins
from foretrain.plain_yaml import format_yaml, read_mapping
from foretrain.probes.base import Probe
from foretrain.schedules.base import Schedule
from foretrain.section import Count, DataPath, Faults, Number, Section, read_section
from foretrain.spans import Span
from foretrain.stages import Stage, stage_faults
from foretrain.steering.base import Steering
from foretrain.tasks.base import Task
from foretrain.tokens.orders.base import DocumentOrder
from foretrain.tokens.selection import Keep
from foretrain.tokens.tokenizers.base import Tokenizer
from foretrain.trackers.base import Tracker
from foretrain.wording import check_template

FORMAT = 1
"""Version of the recipe format."""


class Budget(Section):
    """How long a run is, in exactly one unit; the planner turns it into whole steps before the first."""

    steps: Count | None = Field(None, gt=0)
    """Optimizer steps."""
    tokens: Count | None = Field(None, gt=0)
    """Tokens read by the model."""
    flops: Number | None = Field(None, gt=0)
    """Floating-point operations of training, everything a method does inside the run included."""
    minutes: Number | None = Field(None, gt=0)
    """Wall-clock minutes on this machine, from the start of the command to its report; calibrated by a few steps."""

    @model_validator(mode="after")
    def _one_unit(self) -> Budget:
        given = [name for name in ("steps", "tokens", "flops", "minutes") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"name exactly one of steps, tokens, flops, minutes (given: {', '.join(given) or 'none'})")
        return self


def _field_alone(value: Any) -> Any:
    """A bare field, as the annotation by it."""
    return {"field": value} if isinstance(value, str) else value


class Domain(Section):
    """A named share of the mixture, with its own splits."""

    path: DataPath | list[DataPath]
    """A file (.txt, .jsonl, .csv, .parquet; .gz and .zst too), a folder, `data:FILE`, `hub:NAME` or `builtin:NAME`; or
    a list."""
    weight: Number = Field(1.0, ge=0)
    """Share of the stream, relative to the other domains."""
    text: Annotated[str, AfterValidator(check_template)] = "text"
    """The field or column that holds the text, or a template such as `{question} {answer}`."""
    where: dict[str, Wanted] = {}
    """Keep only documents whose field has this value, or one of these: `{domain: code}`, where a file holds several."""
    group: str | None = None
    """Field that keeps documents together: all documents with one value of it fall into one split."""
    validation: Number | DataPath = Field(0.02, union_mode="left_to_right")
    """The split that judges: a share of the documents (by content hash), or a path of its own; 0 for none."""
    steer: Number | DataPath = Field(0.0, union_mode="left_to_right")
    """The split that online methods may look at, like `validation`."""
    limit: Count | None = Field(None, gt=0)
    """Read at most this many documents."""
    part: tuple[Number, Number] | None = None
    """Train on the documents in this stretch of 0 to 1 alone, such as [0, 0.9], by their content: domains of one path
    whose parts do not overlap share no training document."""
    metadata: Annotated[
        Annotation | None, BeforeValidator(_field_alone, json_schema_input_type=Annotation | str | None)
    ] = None
    """What is known of a training document, put in front of it and read without being learned: a field (`url`), or
    `{field: url, hashed: true}`. Documents that judge or steer are left as they are."""
    unique: Count | None = Field(None, gt=0)
    """Train on this many tokens of the train split alone (whole windows, drawn by the seed), again and again."""
    score: PartOf[Scorer] | None = None
    """What gives each training document a number, for `keep` and `order`."""
    keep: Keep | None = None
    """Train on some of the documents alone: those with the best scores, or, as a control, any."""
    order: PartOf[DocumentOrder] = Field({"kind": "shuffled"}, validate_default=True)
    """In which order the training documents are gone through; each domain has its own."""
    invalid: Literal["replace", "error"] = "replace"
    """Invalid UTF-8: replaced and counted, or an error."""
    options: dict[str, Any] = {}
    """Settings of a `builtin:` corpus, or of a `hub:` data set (`name`, `split`, `revision`)."""

    @model_validator(mode="after")
    def _shares(self) -> Domain:
        shares = [share for share in (self.validation, self.steer) if isinstance(share, float | int)]
        if any(not 0 <= share < 1 for share in shares) or sum(shares) >= 1:
            raise ValueError("validation and steer are shares from 0 to below 1, and leave something to train on")
        return self

    @model_validator(mode="after")
    def _part_of_all(self) -> Domain:
        if self.part is not None and not 0 <= self.part[0] < self.part[1] <= 1:
            raise ValueError("part: should be a stretch of 0 to 1, its beginning before its end, such as [0, 0.9]")
        return self

    @model_validator(mode="after")
    def _scored(self) -> Domain:
        if self.score is None and self.keep is not None and self.keep.best != "random":
            raise ValueError(f"keep: documents of the {self.keep.best} score need a `score`, such as {_A_SCORE}")
        if self.score is None and self.order.by_score:
            raise ValueError(f"order: '{self.order.kind}' goes by a `score`, such as {_A_SCORE}")
        if self.keep is not None and self.keep.redraw:
            if self.unique is not None:
                raise ValueError(
                    "unique: what is drawn anew for each pass is not limited to some windows; leave one out"
                )
            if not self.order.limits:
                raise ValueError(
                    f"keep: `redraw` draws documents anew for each pass, and so they are not {self.order.kind}"
                )
        if self.unique is not None and not self.order.limits:
            raise ValueError(
                f"unique: a limit draws windows anew, so they would not be {self.order.kind}; use `keep` instead, "
                "which selects documents"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is newer than the first recipes and not used, so that their hashes stay the same."""
        plain = without_unused(self, handler)
        usual = {"part": None, "metadata": None, "score": None, "keep": None, "order": {"kind": "shuffled"}}
        return {key: value for key, value in plain.items() if key not in usual or value != usual[key]}


_A_SCORE = "score: {kind: field, field: quality}"


def _path_alone(value: Any) -> Any:
    """A path, or a list of them, as the domain that reads it."""
    return {"path": value} if isinstance(value, str | list) else value


def _model_alone(value: Any) -> Any:
    """A bare path, or a list of them, as the named model that it is."""
    return {"path": value} if isinstance(value, str | list) else value


def _text_unless_told(value: Any) -> Any:
    """Feedback without a kind is text."""
    return {"kind": "text", **value} if isinstance(value, dict) else value


class BatchSize(Section):
    """Tokens per optimizer step, and per forward pass."""

    tokens: Count = Field(8192, gt=0)
    """Tokens per optimizer step, over all ranks; rounded down to whole windows."""
    micro: Count | None = Field(None, gt=0)
    """Tokens per forward pass on one rank; unset: all at once. It changes memory and speed, never the result."""


class Stability(Section):
    """What guards a run against bad steps."""

    clip: Number | None = Field(1.0, gt=0)
    """Largest global gradient norm; null for no clipping."""
    spike: Number | None = Field(8.0, gt=0)
    """A step is skipped when its loss lies this many robust standard deviations above the recent median; null: no."""
    patience: Count = Field(20, gt=0)
    """The run stops after this many bad (skipped) steps in a row."""


class Checkpoints(Section):
    """When checkpoints are written and which are kept."""

    every: Span = Field(0.1, gt=0)
    """A share of the run (1.0: at the end alone), or a whole number of steps; one is always written at the end."""
    keep: Count = Field(2, gt=0)
    """How many of the newest are kept."""
    best: bool = True
    """Whether the one with the lowest validation loss is kept too."""


class Evaluation(Section):
    """Validation loss during training, per domain."""

    split: Literal["validation", "steer"] = "validation"
    """The split it is measured on; `steer` for runs that choose settings, so that nothing is tuned on what judges."""

    every: Span = Field(0.1, gt=0)
    """A share of the run (1.0: at both ends alone), or a whole number of steps; always at step 0 and at the end."""
    tokens: Count = Field(131_072, gt=0)
    """At most this many validation tokens per domain, the same ones each time."""


class Recipe(Section):
    """Everything one run needs."""

    format: Literal[1] = 1
    """Version of the recipe format."""
    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run; its directory is `runs/NAME` unless `--out` says otherwise."""
    seed: int = Field(0, ge=0)
    """Decides initialisation, order of data, and every other random choice."""
    budget: Budget
    """How long the run is, in exactly one unit."""
    corpus: dict[
        str, Annotated[Domain, BeforeValidator(_path_alone, json_schema_input_type=Domain | str | list[str])]
    ] = Field(min_length=1)
    """Domains by name; a bare path stands for `{path: ...}`."""
    tokenizer: PartOf[Tokenizer] | None = None
    """Unset: the tokenizer of a pretrained model, or else a BPE of 4096 trained on the corpus."""
    model: PartOf[Model]
    """The network: a size built from scratch, or one to continue from."""
    batch: BatchSize = BatchSize()
    """Tokens per optimizer step and per forward pass."""
    models: dict[
        str, Annotated[NamedModel, BeforeValidator(_model_alone, json_schema_input_type=NamedModel | str | list[str])]
    ] = {}
    """Other models by name, for parts that learn from one; a bare path stands for `{path: ...}`."""
    documents: Literal["packed", "separate"] = "packed"
    """Whether attention may cross document boundaries inside a window (`packed`) or not (`separate`)."""
    objective: PartOf[Objective] = Field({"kind": "causal_lm"}, validate_default=True)
    """How a batch becomes losses."""
    parametrization: PartOf[Parametrization] = Field({"kind": "full"}, validate_default=True)
    """Which numbers are trained."""
    optimizer: PartOf[Optimizer] = Field({"kind": "adamw"}, validate_default=True)
    """How a gradient becomes a step."""
    schedule: PartOf[Schedule] = Field({"kind": "cosine"}, validate_default=True)
    """The learning rate over the run, as a share of the optimizer's."""
    stages: dict[str, Stage] = {}
    """Parts of the run by name, one after the other, each with a mixture of its own; unset: one mixture all along."""
    steering: list[PartOf[Steering]] = []
    """What is decided online at each step; parts act in the listed order."""
    feedback: dict[str, Annotated[PartOf[Feedback], BeforeValidator(_text_unless_told)]] = {}
    """Small downstream sets that may shape the run, by name; of kind `text` unless they say otherwise."""
    tasks: dict[str, PartOf[Task]] = {}
    """Evaluations, by name; their items are held out from corpus and feedback."""
    probes: list[PartOf[Probe]] = []
    """What is measured on the model while it trains."""
    overlap: Literal["error", "warn"] = "error"
    """What an overlap of the corpus with feedback or tasks is."""
    evaluation: Evaluation = Evaluation()
    """Validation loss during training."""
    checkpoint: Checkpoints = Checkpoints()
    """When checkpoints are written and which are kept."""
    stability: Stability = Stability()
    """What guards the run against bad steps."""
    precision: Literal["auto", "fp32", "bf16", "autocast"] = "auto"
    """`fp32`; `bf16`: bf16 weights for computing, fp32 masters for the optimizer; `autocast`: fp32 weights, torch's
    bf16 autocast; `auto`: bf16 where the machine computes in it natively, else fp32."""
    distributed: Literal["replicate", "shard"] = "replicate"
    """Under `torchrun`: every process holds the whole model, or a shard of it (FSDP2)."""
    compile: bool = False
    """Compile the model with `torch.compile` (needs a C++ compiler)."""
    track: list[PartOf[Tracker]] = []
    """Services the metrics are also sent to."""
    plugins: list[str] = []
    """Files (relative to the recipe) or installed modules with further parts."""

    @model_validator(mode="after")
    def _some_weight(self) -> Recipe:
        if sum(domain.weight for domain in self.corpus.values()) <= 0:
            raise ValueError("the weights of all domains sum to zero; at least one needs a weight above 0")
        return self

    @model_validator(mode="after")
    def _stages_fit(self) -> Recipe:
        weights = {name: domain.weight for name, domain in self.corpus.items()}
        if faults := stage_faults(self.stages, weights, self.budget.minutes is not None):
            raise Faults(faults)
        return self

    def plain(self) -> dict[str, Any]:
        """The recipe, defaults included, as plain data for YAML, JSON and hashes."""
        return self.model_dump(mode="json")

    def identity(self) -> dict[str, Any]:
        """The recipe as plain data for hashes, which do not look at the order of keys: stages as a list."""
        plain = self.plain()
        return {**plain, "stages": [list(item) for item in plain["stages"].items()]} if self.stages else plain

    def to_yaml(self) -> str:
        """The complete recipe as YAML that `load_recipe` reads back to an equal one."""
        return format_yaml(self.plain())


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a YAML recipe and apply `a.b=c` overrides.

    Raises:
        RequestError: no such file, broken YAML, or faults in the recipe (all of them in one message).
    """
    path = Path(path)
    return make_recipe(read_recipe(path), folder=path.parent, overrides=overrides, source=str(path))


def read_recipe(path: Path) -> dict[str, Any]:
    """The plain data of a recipe file, unchecked; its name is the file's unless it gives one.

    Raises:
        RequestError: no such file, or broken YAML.
    """
    data = read_mapping(path, "recipe", "name, budget, model and corpus")
    return {"name": path.stem, **data}


def make_recipe(
    data: dict[str, Any], folder: Path | str = Path(), overrides: Sequence[str] = (), source: str = "recipe"
) -> Recipe:
    """A recipe from plain data; relative paths start at `folder`."""
    folder = Path(folder)
    for override in overrides:
        data = with_override(data, override)
    data = with_plugins(data, folder)
    return read_section(Recipe, data, source, folder)
