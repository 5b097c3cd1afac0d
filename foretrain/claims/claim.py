"""Claim: the file that restates a published result as a study, with what is expected of it and what would refute it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from foretrain.claims.train_once import unknown
from foretrain.errors import RequestError, unknown_name
from foretrain.hashing import hash_data
from foretrain.plain_yaml import read_mapping
from foretrain.recipe import read_recipe
from foretrain.section import Section, problems, refusal
from foretrain.studies.forecast import ForecastStudy, make_forecast_study
from foretrain.studies.study import Study, make_study
from foretrain.studies.train_once import TrainOnceStudy, make_train_once

FILE = "claim.yaml"
ScaleName = Literal["smoke", "small", "full"]
SCALES: tuple[ScaleName, ...] = ("smoke", "small", "full")
AnyStudy = Study | TrainOnceStudy | ForecastStudy
"""What a claim is restated as: arms, many interventions in one run, or forecasters."""
Effect = Literal["better", "worse", "no difference"]


class Paper(Section):
    """Where the result was published."""

    title: str = Field(min_length=1)
    """Its title."""
    arxiv: str = Field("", pattern=r"^(\d{4}\.\d{4,5}|[a-z.-]+/\d{7})?$")
    """arXiv id without a version (`2509.14786`), or empty where it has none."""
    year: int = Field(ge=1950, le=2100)
    """Year of publication."""


class Expectation(Section):
    """What the paper says of two arms."""

    arm: str
    """The arm that does what the paper proposes."""
    against: str = ""
    """The arm it is compared with; the study's baseline where none is named."""
    metric: str
    """The metric of the study by which they are compared."""
    direction: Literal["lower", "higher"] | None = None
    """On which side of the other arm's figure its figure should lie."""
    effect: Effect | list[Effect] | None = None
    """The same as a verdict, or as two of which either will do ([better, no difference] is no worse); give this or
    `direction`."""
    relative: float | None = Field(None, ge=0)
    """Size of the published effect, relative to the other arm's figure and without a sign: 0.05 for 5 %."""

    @model_validator(mode="after")
    def _one_side(self) -> Expectation:
        if (self.direction is None) == (self.effect is None):
            raise ValueError("give either `direction` (lower or higher) or `effect` (better, worse or no difference)")
        if self.effect is not None and not 1 <= len(set(self.effects)) <= 2:
            raise ValueError("`effect` should name one verdict or two: what meets all three is no expectation")
        return self

    @property
    def effects(self) -> list[Effect]:
        """The verdicts that `effect` names."""
        return [self.effect] if isinstance(self.effect, str) else [*(self.effect or ())]

    def verdicts(self, better: str) -> list[Effect]:
        """The verdicts that meet it, where `better` (lower or higher) is the side that is better."""
        if self.effect is not None:
            return self.effects
        return ["better" if self.direction == better else "worse"]


class Scale(Section):
    """How the study differs in size from what was published."""

    shrunk: str = Field(min_length=1)
    """What was made smaller."""
    survives: str = Field(min_length=1)
    """Why the effect should be there all the same."""


class Scales(Section):
    """The study at three sizes, each as changes of it: dotted keys or nested, `base.budget.steps: 10`."""

    smoke: dict[str, Any] = Field(min_length=1)
    """Seconds: shows that it runs, and never decides anything."""
    small: dict[str, Any] = {}
    """Minutes on two cores; the study as it is written unless something is changed here."""
    full: dict[str, Any] | None = None
    """As near to the published size as a group with some GPUs comes; unset: there is none."""


class Claim(Section):
    """A published result, restated as a study."""

    paper: Paper
    """Where it was published."""
    claim: str = Field(min_length=1)
    """What was published, with its numbers."""
    expects: list[Expectation] = Field(min_length=1)
    """What the study should show if it is right; the first is the one that listings show."""
    refuted_if: str = Field(min_length=1)
    """What would refute it."""
    scale: Scale
    """What was made smaller, and why the effect should survive that."""
    decided: list[str] = []
    """What the paper leaves open, and what was chosen here."""
    study: dict[str, Any]
    """The study, as in a study file: base, arms, seeds, metrics ... (or base and `train_once`, or `forecast`)."""
    scales: Scales
    """Changes of the study at each size."""

    @field_validator("study")
    @classmethod
    def _arms_of_a_base(cls, study: dict[str, Any]) -> dict[str, Any]:
        if not _complete(study):
            raise ValueError(
                "should have `base` (a recipe) and `arms` (changes of it, by name) or `train_once`, or `forecast`, as "
                "a study file has"
            )
        return study

    def at(self, scale: ScaleName, folder: Path, seeds: int | None = None) -> AnyStudy:
        """The study at a scale.

        Args:
            scale: `smoke`, `small` or `full`.
            folder: the claim's folder; relative paths start there, and its name is the claim's.
            seeds: how many, in place of the study's own.

        Raises:
            RequestError: faults in the study, or the claim has no such scale.
        """
        changes = getattr(self.scales, scale)
        if changes is None:
            raise RequestError(f"The claim {folder.name} has no full scale: it is run at `small`.")
        return _study(self.study, changes, folder, f"{folder / FILE}, study at {scale}", seeds)

    def digest(self, scale: ScaleName, folder: Path) -> str:
        """Hash of everything in the file that a verdict at a scale depends on; comments and texts are not among it."""
        base = self.study.get("base")
        study = {**self.study, "base": _without_name(folder / base)} if isinstance(base, str) else self.study
        wanted = [[each.arm, each.against, each.metric, each.direction, each.effects] for each in self.expects]
        return hash_data([study, getattr(self.scales, scale), wanted])


def load_claim(folder: Path) -> Claim:
    """Read the claim in a folder.

    Raises:
        RequestError: no such file, broken YAML, or faults in it or its study at any scale (all in one message).
    """
    return make_claim(_read(folder / FILE), folder)


def glance(folder: Path) -> Claim:
    """The claim in a folder, its study unchecked: for listings of many.

    Raises:
        RequestError: no such file, broken YAML, or faults in what is not the study.
    """
    return _parsed(_read(folder / FILE), folder, [])


def make_claim(data: Mapping[str, Any], folder: Path) -> Claim:
    """A claim from plain data; relative paths start at `folder`.

    Raises:
        RequestError: faults in it, or in its study at any scale (all in one message).
    """
    return _parsed(data, folder, [*_study_faults(data, folder)])


def _read(path: Path) -> dict[str, Any]:
    return read_mapping(path, "claim", "paper, claim and study")


def _parsed(data: Mapping[str, Any], folder: Path, faults: list[str]) -> Claim:
    found: list[str] = []
    try:
        claim = Claim.model_validate(dict(data))
    except ValidationError as error:
        found = problems(error)
    if faults := [*found, *faults]:
        raise refusal(str(folder / FILE), faults)
    return claim


def _study_faults(data: Mapping[str, Any], folder: Path) -> Iterator[str]:
    raw, scales = data.get("study"), data.get("scales")
    if not isinstance(raw, dict) or not _complete(raw):
        return
    changes = {"small": {}, **(scales if isinstance(scales, dict) else {})}
    studies: list[AnyStudy] = []
    told: set[str] = set()
    for scale in ("small", "smoke", "full"):
        if isinstance(mapping := changes.get(scale), dict):
            try:
                studies.append(_study(raw, mapping, folder, "study"))
            except RequestError as error:
                # What is wrong with the study itself is wrong at every scale, and said once.
                for line in _lines(str(error)):
                    if line not in told:
                        yield line if scale == "small" else f"scales.{scale}: {line}"
                    told.add(line)
    expects = data.get("expects")
    for number, expected in enumerate(expects if isinstance(expects, list) else ()):
        if isinstance(expected, dict):
            study = studies[0] if studies else None
            if isinstance(study, TrainOnceStudy):
                faults = unknown(expected, study)
            elif "train_once" in raw or ("forecast" in raw and study is None):
                continue  # the study itself is at fault, so what it compares is not known
            else:
                faults = _unknown(expected, raw, study)
            for fault in faults:
                yield f"expects[{number}].{fault}"


def _lines(text: str) -> list[str]:
    """The faults in an error of a study, one each, with the place they share."""
    head, *lines = text.split("\n  - ")
    return [f"{head.partition(' has ')[0]}: {line}" for line in lines] or [head]


def _unknown(expected: Mapping[str, Any], raw: Mapping[str, Any], study: Study | ForecastStudy | None) -> Iterator[str]:
    """What an expectation names that the study lacks; as far as can be told where the study itself is at fault."""
    arms = list(study.arms if study else _names(raw.get("arms")))
    metrics = list(study.metrics if study else _names(raw.get("metrics", ["validation/loss"])))
    baseline = study.baseline if study else str(raw.get("baseline") or next(iter(arms), ""))
    arm, against, metric = expected.get("arm"), expected.get("against") or baseline, expected.get("metric")
    for key, name in (("arm", arm), ("against", against)):
        if isinstance(name, str) and arms and name not in arms:
            yield f"{key}: {unknown_name('arm', name, arms)}"
    if isinstance(metric, str) and metrics and metric not in metrics:
        yield f"metric: {unknown_name('metric', metric, metrics)}"
    if study is None or arm not in arms or against not in arms:
        return
    if arm == against:
        yield f"arm: '{arm}' is compared with itself; name the arm it is compared with by `against`"
    elif (arm, against) not in study.planned():
        planned = ", ".join(f"[{one}, {other}]" for one, other in study.planned())
        yield f"arm: [{arm}, {against}] is no planned contrast of the study; there are: {planned}"
    if metric in study.metrics and not study.metrics[metric].judged:
        yield f"metric: '{metric}' is `judged: false`, so it gets no verdict"


def _complete(study: Mapping[str, Any]) -> bool:
    if isinstance(study.get("forecast"), dict):
        return True
    parts = (study.get("arms"), study.get("train_once"))
    return isinstance(study.get("base"), dict | str) and any(isinstance(part, dict) and part for part in parts)


_KINDS: dict[str, Callable[..., TrainOnceStudy | ForecastStudy]] = {
    "train_once": make_train_once,
    "forecast": make_forecast_study,
}
"""Studies other than of arms, by the key that tells them."""


def _names(value: Any) -> list[str]:
    return [str(name) for name in value] if isinstance(value, dict | list) else []


def _study(
    raw: Mapping[str, Any], changes: Mapping[str, Any], folder: Path, source: str, seeds: int | None = None
) -> AnyStudy:
    overrides = [f"{key}={json.dumps(value, default=str)}" for key, value in _leaves(changes)]
    if seeds is not None:
        overrides.append(f"seeds={seeds}")
    for key, make in _KINDS.items():
        if key in raw:
            return make({"name": f"claims-{folder.resolve().name}", **raw}, folder, source, overrides)
    return make_study({"name": f"claims-{folder.resolve().name}", **raw}, folder, source, overrides)


def _leaves(changes: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested changes as dotted keys; `kind` first, as a new kind drops what the former one had."""
    for key, value in sorted(changes.items(), key=lambda item: item[0] != "kind"):
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _without_name(path: Path) -> dict[str, Any]:
    return {key: value for key, value in read_recipe(path).items() if key != "name"}
