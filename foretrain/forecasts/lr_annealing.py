"""The loss under any learning-rate schedule: a power law in the area below it, less a term for how far it came down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy.signal import lfilter

from foretrain.errors import RequestError
from foretrain.forecasts._fitting import around, project, relative_error
from foretrain.forecasts._law import Law
from foretrain.forecasts.curves import Course, Curve, Floats
from foretrain.parts import Facts

MEMORIES = (0.9, 0.97, 0.99, 0.995, 0.999)
"""What `memory` is chosen from."""
_FALL = 0.01


class LrAnnealing(Law):
    """L(s) = L0 + A * S1(s)^(-alpha) - C * S2(s), for any schedule of the learning rate eta.

    S1 is the sum of eta over all steps up to s. S2 is the annealing area: with m(i) = memory * m(i - 1) + eta(i - 1) -
    eta(i), S2 is the sum of m; it grows while and after the rate falls, and shrinks where it rises again. Both are
    accumulated at every step. Steps of the warm-up (the rise at the start) count with the rate it rises to, and
    are not fitted. L0, A and C are 0 or more and linear given alpha, so they are solved exactly on a grid of alpha.

    Stay inside common shapes of schedules with it: the formula says that steps at a rate of 0 still lower the loss,
    and that larger rates always help.
    """

    kind: Literal["lr_annealing"] = "lr_annealing"
    facts: ClassVar[Facts] = Facts(
        paper="Scaling Law with Learning Rate Annealing",
        arxiv="2408.11029",
        year=2024,
        answers="what will the loss be under another learning-rate schedule?",
    )

    memory: float | None = Field(None, ge=0, lt=1)
    """Share of the momentum of S2 that is left after a step (lambda; 0.999 for long runs). Unset: of 0.9, 0.97, 0.99,
    0.995 and 0.999 the one that predicts each curve best from the others. A single curve cannot tell (what fits it best
    predicts other schedules worse): then the largest whose memory of 1 / (1 - lambda) steps is a tenth of the run."""

    @property
    def reads_rates(self) -> bool:
        return True

    def begins(self, curve: Curve) -> int:
        """Behind the warm-up, or behind the early part where that is longer."""
        return max(super().begins(curve), warmup(rates_of(curve)) + 1)

    def check(self, curves: Sequence[Curve]) -> None:
        """Refuse different sizes, and curves none of whose rates fell."""
        sizes = {curve.parameters for curve in curves if curve.parameters}
        if len(sizes) > 1:
            raise RequestError(
                "lr_annealing holds for one model size, and these curves are of several; the law `chinchilla` has "
                "terms for the size."
            )
        if not any(fell(curve, curve.last) for curve in curves):
            raise RequestError(
                "The learning rate of these curves never changes after its warm-up, so they do not tell what its fall "
                "is worth. Add a run whose rate falls, or take the law `power_law`, which does without."
            )

    def settled(self, curves: Sequence[Curve]) -> LrAnnealing:
        """With the memory that predicts best what is held out."""
        if self.memory is not None:
            return self
        if len(curves) == 1:
            short = [memory for memory in MEMORIES if 1 / (1 - memory) <= curves[0].total / 10]
            return self.model_copy(update={"memory": max(short, default=MEMORIES[0])})
        candidates = [self.model_copy(update={"memory": memory}) for memory in MEMORIES]
        return min(candidates, key=lambda law: law._held_out(curves))

    def _held_out(self, curves: Sequence[Curve]) -> float:
        """Mean relative error on each curve, predicted from the others."""
        reads, values = [self.read(curve) for curve in curves], [curve.values for curve in curves]
        errors = []
        for place in range(len(curves)):
            seen, told = (np.concatenate([*each[:place], *each[place + 1 :]]) for each in (reads, values))
            errors.append(relative_error(self.value(self.solve(seen, told), reads[place]), values[place]))
        return float(np.mean(errors))

    def read(self, course: Course) -> Floats:
        """S1 and S2 after each of the steps."""
        assert self.memory is not None
        return areas(rates_of(course), self.memory)[course.steps - 1]

    def solve(self, read: Floats, values: Floats, near: Mapping[str, float] | None = None) -> dict[str, float]:
        """Over alpha from 0.05 to 2, to 0.002."""
        s1, s2 = read.T

        def terms(exponents: tuple[float, ...]) -> Floats:
            return np.stack([np.ones_like(s1), s1 ** -exponents[0], -s2], 1)

        found = project(values, terms, [around(near, "alpha", np.arange(0.05, 2.01, 0.05))], quick=near is not None)
        constant, scale, fall = found.coefficients
        return {"L0": float(constant), "A": float(scale), "alpha": found.exponents[0], "C": float(fall)}

    def value(self, constants: Mapping[str, float], read: Floats) -> Floats:
        s1, s2 = read.T
        return constants["L0"] + constants["A"] * s1 ** -constants["alpha"] - constants["C"] * s2


def warmup(rates: Floats) -> int:
    """Steps of the rise that a run begins with: the first step at the rate it rises to comes after so many."""
    falls = np.flatnonzero(np.diff(rates) <= 0)
    risen = int(falls[0]) if falls.size else rates.size - 1
    return risen


def fell(course: Course, step: int) -> bool:
    """Whether the learning rate of a run has come down noticeably by a step."""
    held = _held(rates_of(course)[:step])
    return bool(held.min() < (1 - _FALL) * held.max())


def _held(rates: Floats) -> Floats:
    """The rates, with those of the warm-up as high as it rises."""
    risen = warmup(rates)
    return np.concatenate([np.full(risen, rates[risen]), rates[risen:]])


def areas(rates: Floats, memory: float) -> Floats:
    """S1 and S2 after every step of a run with these rates, [steps, 2]."""
    held = _held(rates)
    momentum = lfilter([1.0], [1.0, -memory], -np.diff(held, prepend=held[0]))
    return np.stack([np.cumsum(held), np.cumsum(momentum)], 1)


def rates_of(course: Course) -> Floats:
    """The learning rate of every step of a course.

    Raises:
        RequestError: they are not known.
    """
    if course.rates is None:
        raise RequestError(
            f"{course.name}: its learning rates are not known, and the law needs them at every step. Name their column "
            "(`lr`), or take the law `power_law` over steps."
        )
    return course.rates
