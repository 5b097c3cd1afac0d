"""Curves: what is known of runs over their steps, from run directories and from tables: all that forecasters read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foretrain.corpus.decoding import Decoder
from foretrain.corpus.formats.base import format_of
from foretrain.corpus.paths import locate, missing
from foretrain.errors import RequestError, unknown_name
from foretrain.hashing import hash_data
from foretrain.recipe import Recipe
from foretrain.run_directory import RunDirectory, Series
from foretrain.schedules.base import Schedule
from foretrain.section import DataPath, Section, parse_number
from foretrain.stages import Timeline

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Course:
    """A run without what came of it: the steps asked for, and what is known of it before it runs.

    Attributes:
        name: of the run; a curve of the same name is an earlier part of it.
        steps: after how many steps a value is asked for, rising, [n].
        rates: the learning rate of every step from the first on, [at least the last of `steps`]; None where not known.
        tokens: seen after those steps, [n]; None where not known.
        parameters: of the model; None where not known.
    """

    name: str
    steps: Steps
    rates: Floats | None = None
    tokens: Floats | None = None
    parameters: float | None = None

    def at(self, steps: Sequence[int] | Steps) -> Course:
        """The same run, asked for other steps; tokens grow by the step as they did so far.

        Raises:
            RequestError: the learning rates are known, but not that far.
        """
        wanted = np.asarray(steps, dtype=np.int64)
        if self.rates is not None and wanted.size and wanted[-1] > self.rates.size:
            raise RequestError(
                f"{self.name}: step {wanted[-1]} lies behind the last one whose learning rate is known "
                f"({self.rates.size}); name the schedule up to it."
            )
        tokens = None
        if self.tokens is not None and self.tokens.size:
            tokens = wanted.astype(np.float64) * float(self.tokens[-1] / self.steps[-1])
        return Course(self.name, wanted, self.rates, tokens, self.parameters)


@dataclass(frozen=True, eq=False)
class Curve(Course):
    """What was measured of a run.

    Attributes:
        values: the figure after those steps, [n], all finite.
        figure: its name.
        total: steps of the whole run, as planned.
        tokenizer: hash of the tokenizer (losses of different ones do not compare); empty where not known.
        others: the other figures of the run, by name.
    """

    values: Floats = field(default_factory=lambda: np.zeros(0))
    figure: str = "loss"
    total: int = 0
    tokenizer: str = ""
    others: Mapping[str, Series] = field(default_factory=dict)

    def on(self, figure: str) -> Curve:
        """Another figure of the same run (`validation/loss`, `validation/DOMAIN/loss`).

        Raises:
            RequestError: it was not measured.
        """
        if figure == self.figure:
            return self
        known = {**self.others, self.figure: Series(self.steps, self.values)}
        if figure not in known:
            raise RequestError(f"{self.name}: {unknown_name('figure', figure, known)}")
        series = known[figure]
        keep = np.isfinite(series.values) & (series.steps > 0)
        steps = series.steps[keep]
        tokens = None if self.tokens is None else np.interp(steps, self.steps, self.tokens)
        return replace(self, steps=steps, values=series.values[keep], tokens=tokens, figure=figure, others=known)

    def between(self, first: int, last: int) -> Curve:
        """What was measured from step `first` to step `last`, both included."""
        keep = (self.steps >= first) & (self.steps <= last)
        tokens = None if self.tokens is None else self.tokens[keep]
        return replace(self, steps=self.steps[keep], values=self.values[keep], tokens=tokens)

    def thinned(self, most: int) -> Curve:
        """At most about `most` points, the mean of each stretch standing for it.

        What is accumulated over steps (areas under the learning rate) still counts every step.
        """
        if self.steps.size <= most:
            return self
        pieces = np.array_split(np.arange(self.steps.size), most)
        mean = [float(self.values[piece].mean()) for piece in pieces]
        middle = [int(piece[piece.size // 2]) for piece in pieces]
        tokens = None if self.tokens is None else self.tokens[middle]
        return replace(self, steps=self.steps[middle], values=np.array(mean), tokens=tokens)

    @property
    def last(self) -> int:
        """The last step that was measured; 0 where none was."""
        return int(self.steps[-1]) if self.steps.size else 0

    @property
    def compute(self) -> float:
        """Parameters times tokens (or steps, or one, where those are not known) at its end: only for comparing."""
        size = self.tokens if self.tokens is not None else self.steps
        return float(self.parameters or 1.0) * float(size[-1] if size.size else 0.0)

    def digest(self) -> str:
        """Hash of everything that a forecaster reads of it."""
        rates = None if self.rates is None else self.rates.tolist()
        tokens = None if self.tokens is None else self.tokens.tolist()
        return hash_data([self.figure, self.steps.tolist(), self.values.tolist(), rates, tokens, self.parameters])


def of_run(run: RunDirectory, figure: str = "loss") -> Curve:
    """The curve of a run, one that still goes on included; learning rates reach to its planned end.

    Raises:
        RequestError: it has not begun, or the figure was not measured.
    """
    plan, rows = run.plan(), [row for row in run.metrics() if not row.get("skipped")]
    names = dict.fromkeys(name for row in rows for name, value in row.items() if _figure(name, value))
    loss = run.series("loss")
    if not loss.steps.size:
        raise RequestError(f"{run.path} has no loss yet: there is nothing to learn from.")
    tokens = run.series("tokens")
    total = int(plan.get("total_steps") or loss.steps[-1])
    keep = np.isfinite(loss.values) & (loss.steps > 0)
    parameters = plan.get("parameters")
    curve = Curve(
        name=str(run.path),
        steps=loss.steps[keep],
        rates=planned_rates(run, total),
        tokens=np.interp(loss.steps[keep], tokens.steps, tokens.values),
        parameters=None if parameters is None else float(parameters),
        values=loss.values[keep],
        total=total,
        tokenizer=str((plan.get("hashes") or {}).get("tokenizer") or ""),
        others={name: run.series(name) for name in names if name != "loss"},
    )
    found = curve.on(figure)
    if not found.steps.size:
        raise RequestError(f"{run.path} has measured no {figure} after its first step yet.")
    return found


def _figure(name: str, value: Any) -> bool:
    return name not in ("step", "tokens", "flops", "lr") and isinstance(value, int | float) and value is not True


def planned_rates(run: RunDirectory, total: int, schedule: Schedule | None = None) -> Floats:
    """The learning rate of every step of a run of `total` steps: as measured, and then as its recipe says.

    Args:
        run: it.
        total: steps, more or fewer than it had.
        schedule: in place of that of the recipe, from the first step on.
    """
    recipe = run.load_recipe()
    measured = run.series("lr")
    timeline = _timeline(recipe, schedule or recipe.schedule, total)
    rates = recipe.optimizer.lr * np.array([timeline.factor(step) for step in range(total)], dtype=np.float64)
    planned = int(run.plan().get("total_steps") or total)
    if schedule is None and total == planned and measured.steps.size:
        known = np.isfinite(measured.values) & (measured.steps >= 1) & (measured.steps <= total)
        rates[measured.steps[known] - 1] = measured.values[known]
    return rates


def _timeline(recipe: Recipe, schedule: Schedule, total: int) -> Timeline:
    return Timeline(recipe.stages, {name: 1.0 for name in recipe.corpus}, schedule, 0, total)


class CurveTable(Section):
    """Curves in a table (.csv, .jsonl, .parquet): a row a point, or a row a curve whose points are lists."""

    path: DataPath
    """The file."""
    run: list[str] = Field(min_length=1)
    """Columns that tell one curve from another; their values, joined by `/`, are its name."""
    loss: str = "loss"
    """Column of the figure."""
    step: str | None = None
    """Column of steps; unset: points are numbered from 1 in their order."""
    tokens: str | None = None
    """Column of tokens seen."""
    lr: str | None = None
    """Column of learning rates. Between points they are taken to move along a straight line; before the first point
    along the same line where they rise there (a warm-up), or else to be what they are there."""
    parameters: str | None = None
    """Column of model sizes; they may be written 2.8B."""
    where: dict[str, str | list[str]] = {}
    """Only rows whose column has this value, or one of these."""

    def read(self) -> dict[str, Curve]:
        """Every curve by name, in order of appearance.

        Raises:
            RequestError: no such file or column, a value that is no number, or points out of order.
        """
        path = locate(self.path)
        if not path.exists():
            raise missing(path)
        points: dict[str, list[list[float]]] = {}
        columns = [name for name in (self.step, self.loss, self.tokens, self.lr, self.parameters) if name]
        for record in format_of(path).records(path, Decoder()):
            place = f"{path}, {record.number}"
            for name in [*self.run, *self.where, *columns]:
                if name not in record.fields:
                    raise RequestError(f"{place}: {unknown_name('column', name, record.fields)}")
            if all(str(record.fields[name]) in _listed(wanted) for name, wanted in self.where.items()):
                key = "/".join(str(record.fields[name]) for name in self.run)
                points.setdefault(key, []).extend(_rows([record.fields[name] for name in columns], columns, place))
        if not points:
            raise RequestError(f"{path}: no row has what `where` asks for ({self.where}).")
        return {name: self._curve(name, columns, np.array(rows)) for name, rows in points.items()}

    def _curve(self, name: str, columns: Sequence[str], rows: Floats) -> Curve:
        told = {column: rows[:, number] for number, column in enumerate(columns)}
        steps = told[self.step] if self.step else np.arange(1, len(rows) + 1)
        if (np.diff(steps) <= 0).any():
            raise RequestError(
                f"{self.path}, curve {name}: its steps do not rise, so it may be several curves; name all columns that "
                f"tell them apart under `run` (given: {', '.join(self.run)})."
            )
        finite = np.isfinite(told[self.loss])
        last = int(steps[-1])
        return Curve(
            name=name,
            steps=steps[finite].astype(np.int64),
            rates=_every(steps.astype(np.float64), told[self.lr]) if self.lr else None,
            tokens=told[self.tokens][finite] if self.tokens else None,
            parameters=float(told[self.parameters][0]) if self.parameters else None,
            values=told[self.loss][finite],
            figure=self.loss,
            total=last,
        )


def _every(steps: Floats, rates: Floats) -> Floats:
    """The learning rate of every step from those of some."""
    found = np.interp(np.arange(1, int(steps[-1]) + 1), steps, rates)
    first = int(steps[0])
    if rates.size > 1 and rates[1] > rates[0] and first > 1:
        slope = (rates[1] - rates[0]) / (steps[1] - steps[0])
        found[: first - 1] = np.maximum(rates[0] - slope * np.arange(first - 1, 0, -1), 0.0)
    return found


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _rows(values: Sequence[Any], columns: Sequence[str], place: str) -> list[list[float]]:
    """The cells of one record as rows of numbers: one, or as many as its lists have items."""
    count = max((len(value) for value in values if isinstance(value, list)), default=1)
    spread = [value if isinstance(value, list) else [value] * count for value in values]
    return [
        [_number(cells[number], column, place) for cells, column in zip(spread, columns, strict=True)]
        for number in range(count)
    ]


def _number(value: Any, column: str, place: str) -> float:
    if value is None or value == "":
        return math.nan
    try:
        return float(parse_number(value))
    except (TypeError, ValueError) as error:
        raise RequestError(f"{place}, column {column}: {value!r} is no number.") from error


def refuse_mixed(curves: Sequence[Curve]) -> None:
    """Refuse curves whose figures do not compare.

    Raises:
        RequestError: none at all, or different figures or tokenizers.
    """
    if not curves:
        raise RequestError("There is no curve to learn from.")
    for what, told in (("figures", {curve.figure for curve in curves}), ("tokenizers", _tokenizers(curves))):
        if len(told) > 1:
            names = ", ".join(Path(curve.name).name for curve in curves)
            raise RequestError(
                f"The curves ({names}) are of different {what}, so one law cannot hold for their losses. Forecast from "
                "runs with one tokenizer, or from a figure that compares (validation/DOMAIN/bits_per_byte)."
            )


def _tokenizers(curves: Sequence[Curve]) -> set[str]:
    if all(curve.figure.endswith("bits_per_byte") for curve in curves):
        return set()
    return {curve.tokenizer for curve in curves if curve.tokenizer}
