"""Forecast studies: forecasters compared on curves that they have not seen, of runs trained for it or from a table.

What is repeated is a whole problem: for trained runs a seed of all of them, for a table a group of its curves. In each
repetition every forecaster learns from the same named curves and predicts the same others; its errors are its
figures, and they are judged as those of any study. Points of one curve are no repetitions: they do not add up to
more certainty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from foretrain import environment
from foretrain.console import Terminal
from foretrain.errors import RequestError, unknown_name
from foretrain.files import write_atomic, write_json
from foretrain.forecasts.base import Forecaster
from foretrain.forecasts.curves import Curve, CurveTable, of_run
from foretrain.parts import PartOf
from foretrain.plain_yaml import format_yaml
from foretrain.recipe import read_recipe
from foretrain.reports.study_report import write_report
from foretrain.section import Number, Section, read_section
from foretrain.studies.conducting import conduct
from foretrain.studies.directory import StudyDirectory
from foretrain.studies.executors.base import Executor
from foretrain.studies.forecast_scores import METRICS, Attempt, attempt, study_data
from foretrain.studies.study import Metric, Name, Study, make_study, with_base

RUNS = "runs"
"""The folder, within that of the study, of the study that trains the runs."""
_REASON = "The runs are what is predicted; they differ in what they cost on purpose."


class Competitor(Section):
    """A forecaster, and what it may see."""

    forecaster: PartOf[Forecaster]
    """It, with its settings."""
    fit: list[str] | None = None
    """Curves that it learns from; unset: those of `forecast.fit`."""
    seen: Number = Field(0.0, ge=0, lt=1)
    """Share of every predicted curve, from its start, that it learns from too."""


def _forecaster_alone(value: Any) -> Any:
    """A bare forecaster, as the competitor that has it."""
    if isinstance(value, str) or (isinstance(value, dict) and "forecaster" not in value):
        return {"forecaster": value}
    return value


Entrant = Annotated[Competitor, BeforeValidator(_forecaster_alone, json_schema_input_type=Competitor | dict | str)]


class Forecasting(Section):
    """What is predicted from what, and by whom."""

    runs: dict[Name, dict[str, Any]] = {}
    """Runs that are trained, by name: changes of the base."""
    table: CurveTable | None = None
    """Curves of a table in place of runs. Those of one repetition share their first columns of `run`, and the last
    column is their name."""
    figure: str = "loss"
    """What is predicted of trained runs: `loss`, `validation/loss`."""
    fit: list[str] = []
    """Curves that forecasters learn from, by name."""
    predict: list[str] = Field(min_length=1)
    """Curves that they predict and do not see."""
    after: Number = Field(0.1, ge=0, lt=1)
    """Share of every predicted curve, from its start, that is not judged."""
    forecasters: dict[Name, Entrant] = Field(min_length=2)
    """The arms: forecasters by name; a bare `{kind: ...}` stands for `{forecaster: ...}`."""

    @model_validator(mode="after")
    def _fits_together(self) -> Forecasting:
        if bool(self.runs) == (self.table is not None):
            raise ValueError("give either `runs` (changes of the base, by name) or a `table`")
        for name, found in self.forecasters.items():
            both = set(self.learnt(found)) & set(self.predict)
            if both:
                raise ValueError(f"forecasters.{name}: it would learn from {sorted(both)[0]}, which it is to predict")
            if found.seen > self.after:
                raise ValueError(
                    f"forecasters.{name}: it sees {found.seen:g} of what it predicts, and `after` is {self.after:g}; "
                    "judge only what none of them has seen"
                )
            if not self.learnt(found) and not found.seen:
                raise ValueError(
                    f"forecasters.{name}: it learns from nothing; give `fit`, or a share that it has `seen`"
                )
            for curve in [*self.learnt(found), *self.predict]:
                if self.runs and curve not in self.runs:
                    raise ValueError(unknown_name("run", curve, self.runs))
        return self

    def learnt(self, found: Competitor) -> list[str]:
        """The curves that a forecaster learns from."""
        return self.fit if found.fit is None else found.fit


class ForecastStudy(Section):
    """A study of forecasters."""

    format: Literal[1] = 1
    """Version of the format."""
    name: Name = "forecast"
    """Its name."""
    question: str = ""
    """What it asks, in a sentence."""
    base: dict[str, Any] | None = None
    """The recipe that the runs change: a file, or the recipe itself; for a table there is none."""
    forecast: Forecasting
    """What is predicted from what, and by whom."""
    baseline: str = ""
    """The forecaster that the others are compared with; the first one where none is named."""
    seeds: int | list[int] | None = None
    """Seeds of the trained runs, or how many (5 unless given); of a table how many repetitions (all unless given)."""
    metrics: dict[str, Metric] = Field({"error": Metric()}, min_length=1)
    """`error`: mean relative error over the predicted curves; `end`: of their last points; `rank`: rank correlation of
    predicted and measured last points (higher is better); `nll`: mean negative logarithm of the density given to what
    was measured; `coverage`: how far the share within 90 % intervals is from 0.9."""
    contrasts: list[tuple[str, str]] = []
    """The planned comparisons, [forecaster, against]; unset: every one against the baseline."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Rate of error of the family of verdicts."""
    executor: PartOf[Executor] = Field({"kind": "local"}, validate_default=True)
    """Where the runs are trained."""

    @model_validator(mode="before")
    @classmethod
    def _metrics_listed(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        metrics, forecast = value.get("metrics"), value.get("forecast")
        if isinstance(metrics, list):
            value = {**value, "metrics": {str(name): {} for name in metrics}}
        elif isinstance(metrics, dict):
            value = {**value, "metrics": {name: metric or {} for name, metric in metrics.items()}}
        if not value.get("baseline") and isinstance(forecast, dict) and isinstance(forecast.get("forecasters"), dict):
            value = {**value, "baseline": str(next(iter(forecast["forecasters"]), ""))}
        return value

    @model_validator(mode="after")
    def _known_names(self) -> ForecastStudy:
        if self.forecast.runs and self.base is None:
            raise ValueError("base: the runs change a recipe; give it")
        for name, metric in self.metrics.items():
            if (metric.figure or name) not in METRICS:
                raise ValueError(f"metrics: {unknown_name('figure', metric.figure or name, METRICS)}")
        for arm in [self.baseline, *(arm for pair in self.contrasts for arm in pair)]:
            if arm not in self.arms:
                raise ValueError(unknown_name("forecaster", arm, self.arms))
        return self

    @property
    def arms(self) -> dict[str, Competitor]:
        """The forecasters by name."""
        return self.forecast.forecasters

    def planned(self) -> list[tuple[str, str]]:
        """The planned contrasts, (forecaster, against)."""
        return list(self.contrasts) or [(name, self.baseline) for name in self.arms if name != self.baseline]

    def named(self) -> set[str]:
        """The curves that some forecaster learns from or predicts."""
        return {name for found in self.arms.values() for name in self.forecast.learnt(found)} | {*self.forecast.predict}

    def training(self) -> Study:
        """The study that trains the runs that are needed.

        Raises:
            RequestError: faults in the recipe of a run.
        """
        used = self.named()
        data = {
            "name": f"{self.name}-runs",
            "base": self.base,
            "arms": {name: {"set": changes} for name, changes in self.forecast.runs.items() if name in used},
            "seeds": 5 if self.seeds is None else self.seeds,
            "match": "none",
            "reason": _REASON,
            "metrics": {self.forecast.figure: {"judged": False}} if "/" in self.forecast.figure else {},
            "executor": self.executor.model_dump(mode="json"),
        }
        return make_study({key: value for key, value in data.items() if value != {}}, source=f"{self.name}, runs")

    def tabled(self) -> dict[int, dict[str, Curve]]:
        """The curves of the table, by repetition and name.

        Raises:
            RequestError: the table cannot be read, or no repetition has all curves that are named.
        """
        table = self.forecast.table
        assert table is not None
        wanted = self.named()
        groups: dict[str, dict[str, Curve]] = {}
        for name, curve in table.read().items():
            group, _, own = name.rpartition("/")
            groups.setdefault(group, {})[own] = replace(curve, name=own)
        whole = [curves for curves in groups.values() if wanted <= set(curves)]
        if not whole:
            known = {name for curves in groups.values() for name in curves}
            missing = sorted(wanted - known)
            told = unknown_name("curve", missing[0], known) if missing else "no group has all of the curves named."
            raise RequestError(f"{table.path}: {told}")
        numbered = dict(enumerate(whole))
        if self.seeds is None:
            return numbered
        asked = range(self.seeds) if isinstance(self.seeds, int) else self.seeds
        return {seed: numbered[seed] for seed in asked if seed in numbered}

    def to_yaml(self) -> str:
        """The complete study as YAML."""
        return format_yaml(self.model_dump(mode="json"))


def load_forecast_study(path: Path | str, overrides: Sequence[str] = ()) -> ForecastStudy:
    """Read a file with `forecast:`, and apply `a.b=c` overrides.

    Raises:
        RequestError: no such file, broken YAML, or faults in it (all of them in one message).
    """
    path = Path(path)
    return make_forecast_study(read_recipe(path), path.parent, str(path), overrides)


def make_forecast_study(
    data: Mapping[str, Any], folder: Path | str = Path(), source: str = "study", overrides: Sequence[str] = ()
) -> ForecastStudy:
    """A study of forecasters from plain data; relative paths start at `folder`.

    Raises:
        RequestError: faults in it, in its base, or in the recipe of a run.
    """
    folder = Path(folder)
    study = read_section(ForecastStudy, with_base(data, folder, source, overrides), source, folder)
    if study.forecast.runs:
        study.training()
    return study


def conduct_forecast(
    study: ForecastStudy, folder: Path, *, executor: Executor | None = None, terminal: Terminal | None = None
) -> dict[str, Any]:
    """Train the runs (or read the table), let every forecaster learn and predict, and judge their errors.

    The study that trains lies in `runs/` of the folder. Called again, only what is missing is trained.

    Returns:
        What `study.json` holds: that of any study, whose arms are the forecasters.

    Raises:
        RequestError: something about the request is wrong.
        RunError: the study could not go on.
        Interrupted: it was stopped by a signal and can be resumed.
    """
    terminal = terminal or Terminal(quiet=True)
    trained: dict[str, Any] = {}
    if study.forecast.runs:
        trained = conduct(study.training(), folder / RUNS, executor=executor, terminal=terminal)
        curves = _trained(study, folder / RUNS, trained)
    else:
        curves = study.tabled()
        write_json(folder / "environment.json", environment.describe())
    write_atomic(folder / "study.yaml", study.to_yaml())
    attempts: dict[str, dict[int, Attempt]] = {}
    with terminal.counting("Forecasting", "forecasters", len(study.arms)) as progress:
        for done, (name, found) in enumerate(study.arms.items(), start=1):
            attempts[name] = {seed: _attempt(study, found, known) for seed, known in curves.items()}
            progress.update(done, name)
    data = study_data(study, attempts, trained)
    write_json(folder / "study.json", data)
    write_report(folder)
    return data


def _trained(study: ForecastStudy, folder: Path, trained: Mapping[str, Any]) -> dict[int, dict[str, Curve]]:
    """The curves of the trained runs, by seed and name; a run that failed has none."""
    directory = StudyDirectory(folder)
    return {
        seed: {
            name: replace(of_run(directory.trial(name, seed), study.forecast.figure), name=name)
            for name, arm in trained["arms"].items()
            if any(trial["seed"] == seed and trial["status"] == "done" for trial in arm["trials"])
        }
        for seed in trained["seeds"]
    }


def _attempt(study: ForecastStudy, found: Competitor, curves: Mapping[str, Curve]) -> Attempt:
    wanted = study.forecast
    lost = [name for name in [*wanted.learnt(found), *wanted.predict] if name not in curves]
    if lost:
        return Attempt({}, f"the run {lost[0]} failed")
    learnt = [curves[name] for name in wanted.learnt(found)]
    targets = [curves[name] for name in wanted.predict]
    figures = {metric.figure or name for name, metric in study.metrics.items()}
    return attempt(found.forecaster, learnt, targets, found.seen, wanted.after, figures)
