"""Study: the file that says which arms are compared, over which seeds, on which metrics, at which matched budget."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from foretrain.errors import RequestError
from foretrain.merging.base import Merge
from foretrain.overrides import with_changes, with_override
from foretrain.parts import PartOf
from foretrain.plain_yaml import format_yaml
from foretrain.recipe import Recipe, make_recipe, read_recipe
from foretrain.section import DataPath, Faults, Number, Section, read_section
from foretrain.studies.executors.base import Executor
from foretrain.studies.faults import refuse_recipes, study_faults
from foretrain.studies.stopping.base import Stopping

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What names of studies, arms and products look like: each becomes the name of a folder."""
Name = Annotated[str, Field(pattern=NAME, max_length=100)]
Match = Literal["flops", "tokens", "steps", "none"]


class Metric(Section):
    """A figure that the arms are judged by."""

    figure: str | None = None
    """The figure of a run's metrics (`validation/loss`, `task/NAME/METRIC`); unset: the name the metric has here."""
    at: Literal["end", "half", "best", "worst", "reached"] = "end"
    """`end`: as the run ends. `half`: the last evaluation of its first half. `best`, `worst`: the best or worst of its
    evaluations. `reached`: the share of the baseline's budget after which the run is as good as the baseline ever is
    with the same seed (lower is faster)."""
    direction: Literal["lower", "higher"] | None = None
    """Which way is better; unset where the figure itself tells."""
    noise: Number | None = Field(None, gt=0)
    """The smallest difference that matters, as a multiple of the seed noise; 1 where neither is given."""
    difference: Number | None = Field(None, gt=0)
    """The smallest difference that matters, in the metric's own unit."""
    judged: bool = True
    """Whether it gets a verdict and counts in the correction; else it is only reported."""

    @model_validator(mode="after")
    def _one_size(self) -> Metric:
        if self.noise is not None and self.difference is not None:
            raise ValueError("give the smallest difference that matters once: as `noise` or as `difference`")
        return self


class Tuning(Section):
    """Settings that every arm is given a chance to choose, on data and seeds that do not judge."""

    grid: dict[str, list[Any]] = Field(min_length=1)
    """Values by key of the recipe (`optimizer.lr: [1e-3, 3e-3]`); all combinations are tried."""
    seeds: int = Field(1, ge=1)
    """Seeds per combination; they follow the study's own, and judge nothing."""

    @model_validator(mode="after")
    def _some_values(self) -> Tuning:
        empty = [key for key, values in self.grid.items() if not values]
        if empty:
            raise ValueError(f"no values for {', '.join(empty)}")
        return self

    def combinations(self) -> list[dict[str, Any]]:
        """Every combination, as changes of a recipe."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


def _grid_alone(value: Any) -> Any:
    """A bare grid, as the tuning that has it."""
    return {"grid": value} if isinstance(value, dict) and not set(value) & set(Tuning.model_fields) else value


ArmTuning = Annotated[Tuning, BeforeValidator(_grid_alone, json_schema_input_type=Tuning | dict[str, list[Any]])]


class Product(Section):
    """A run that is made once for the arms that use it: a model to start from, a teacher. Named by content hash."""

    recipe: DataPath | None = None
    """Its recipe file; unset: the study's base."""
    set: dict[str, Any] = {}
    """Changes of that recipe."""
    until: Number | None = Field(None, gt=0, lt=1)
    """Stop after this share of its budget; unset: run to the end."""
    per_seed: bool = False
    """Whether each seed of the study has its own; else one, with the recipe's seed, serves all."""


class Arm(Section):
    """One way to train: changes of the base recipe, and what is done after the run."""

    set: dict[str, Any] = {}
    """Changes of the base, by dotted keys or nested; a text `product:NAME` in it is that product's model folder."""
    start: str | None = None
    """The product whose weights it begins with (as `--from` does); unset: new weights."""
    members: list[dict[str, Any]] = []
    """Changes for each of several runs that the arm consists of; they share its budget. Needs `merge`."""
    merge: PartOf[Merge] | None = None
    """What is made of its run, or runs, afterwards; that is what is judged. It may name `product:NAME` too."""
    one_off: Number = Field(0.0, ge=0)
    """FLOPs that were paid outside of the study before this arm could run (scoring a corpus, say)."""
    tune: ArmTuning | None = None
    """Its own grid in place of the study's; every arm has the same number of combinations."""

    @model_validator(mode="after")
    def _members_merge(self) -> Arm:
        if self.members and self.merge is None:
            raise ValueError("several members need a `merge` that says what is judged, such as {kind: ensemble}")
        return self


def _changes_alone(value: Any) -> Any:
    """Bare changes of the base, as the arm that has them."""
    if value is None:
        return {}
    return {"set": value} if isinstance(value, dict) and not set(value) & set(Arm.model_fields) else value


class Study(Section):
    """Several arms over several seeds at a matched budget."""

    format: Literal[1] = 1
    """Version of the study format."""
    folder: str = "."
    """Where relative paths in the changes of arms start: the folder of the study file, unless it says otherwise."""
    name: Name = "study"
    """Name of the study; its directory is `studies/NAME` unless `--out` says otherwise."""
    question: str = ""
    """What it asks, in a sentence, for its report."""
    base: dict[str, Any]
    """The recipe that all arms change: a file, or the recipe itself."""
    arms: dict[Name, Annotated[Arm, BeforeValidator(_changes_alone, json_schema_input_type=Arm | dict[str, Any])]] = (
        Field(min_length=1)
    )
    """Arms by name; a bare mapping stands for `{set: ...}`."""
    baseline: str = ""
    """The arm that the others are compared with; the first one where none is named."""
    seeds: list[Annotated[int, Field(strict=True)]] = Field([0, 1, 2, 3, 4], min_length=1)
    """Seeds, or how many; the same in every arm, so that figures are paired."""
    match: Match = "flops"
    """What a trial of every arm spends the same amount of: `flops`, `tokens`, `steps`; `none` needs a `reason`."""
    reason: str = ""
    """Why the arms are not matched, or not by FLOPs."""
    metrics: dict[str, Metric] = Field({"validation/loss": Metric()}, min_length=1)
    """Metrics by name; the first decides in tuning and early stopping."""
    contrasts: list[tuple[str, str]] = []
    """The planned comparisons, [arm, against]; unset: every arm against the baseline. Only these are corrected for."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Rate of error: of the verdicts better and worse in the whole study, where nothing differs."""
    noise: DataPath | None = None
    """Directory of a noise study of the same baseline (`foretrain study --noise`); unset: the baseline's own seeds."""
    tune: ArmTuning | None = None
    """A small grid that every arm may choose from."""
    products: dict[Name, Product] = {}
    """Runs made once, by name."""
    stopping: PartOf[Stopping] | None = None
    """When losing arms are stopped early; unset: never."""
    executor: PartOf[Executor] = Field({"kind": "local"}, validate_default=True)
    """Where the trials run."""

    @model_validator(mode="before")
    @classmethod
    def _seeds_counted(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        seeds = value.get("seeds")
        if isinstance(seeds, int) and not isinstance(seeds, bool):
            value = {**value, "seeds": list(range(seeds))}
        metrics = value.get("metrics")
        if isinstance(metrics, list):
            value = {**value, "metrics": {str(name): {} for name in metrics}}
        elif isinstance(metrics, dict):
            value = {**value, "metrics": {name: metric or {} for name, metric in metrics.items()}}
        arms = value.get("arms")
        if not value.get("baseline") and isinstance(arms, dict) and arms:
            value = {**value, "baseline": str(next(iter(arms)))}
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Study:
        if faults := study_faults(self):
            raise Faults(faults)
        return self

    def tuning(self, arm: str) -> Tuning | None:
        """The grid of an arm: its own, or the study's."""
        return self.arms[arm].tune or self.tune

    def planned(self) -> list[tuple[str, str]]:
        """The planned contrasts, (arm, against)."""
        others = [(name, self.baseline) for name in self.arms if name != self.baseline]
        return [(arm, against) for arm, against in self.contrasts] or others

    def recipe(self, changes: Sequence[Mapping[str, Any]], source: str) -> Recipe:
        """The base with changes applied one after the other, checked; `source` names them in errors.

        Raises:
            RequestError: a change names an unknown key or has a wrong value.
        """
        data: dict[str, Any] = dict(self.base)
        for change in changes:
            data = with_changes(data, change, source)
        return make_recipe(data, folder=self.folder, source=source)

    def plain(self) -> dict[str, Any]:
        """The study, defaults included, as plain data."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The complete study as YAML that `load_study` reads back to an equal one."""
        return format_yaml(self.plain())


def load_study(path: Path | str, overrides: Sequence[str] = ()) -> Study:
    """Read a study file and apply `a.b=c` overrides (`base.budget.steps=100`, `seeds=8`).

    Raises:
        RequestError: no such file, broken YAML, or faults in the study (all of them in one message).
    """
    path = Path(path)
    data = read_recipe(path)
    if "base" not in data or "arms" not in data:
        raise RequestError(
            f"{path} is not a study: it should have `base:` (a recipe) and `arms:` (changes of it). A single recipe is "
            "run by `foretrain run`, or compared with itself by `foretrain study --noise`."
        )
    return make_study(data, path.parent, str(path), overrides)


def make_study(
    data: Mapping[str, Any], folder: Path | str = Path(), source: str = "study", overrides: Sequence[str] = ()
) -> Study:
    """A study from plain data; relative paths start at `folder`, those of a base file at its own folder.

    Raises:
        RequestError: faults in the study, in its base, or in the recipe of an arm.
    """
    folder = Path(folder)
    data = {"folder": str(folder.resolve()), **with_base(data, folder, source, overrides)}
    study = read_section(Study, data, source, folder)
    refuse_recipes(study, source)
    return study


def with_base(data: Mapping[str, Any], folder: Path, source: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The plain data of a study with `a.b=c` overrides applied, and its base read, checked and complete.

    Raises:
        RequestError: the base cannot be read, or has faults.
    """
    base, home = data.get("base"), folder
    if isinstance(base, str):
        path = folder / Path(base).expanduser()
        base, home = read_recipe(path), path.parent
    made = {**data, "base": base}
    for override in overrides:
        made = with_override(made, override)
    if isinstance(made["base"], dict):
        made["base"] = make_recipe(made["base"], folder=home, source=f"{source}, base").plain()
    return made
