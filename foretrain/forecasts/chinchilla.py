"""The loss by size and tokens: E + A / N^alpha + B / D^beta, fitted to whole curves of smaller models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from foretrain.errors import RequestError
from foretrain.forecasts._fitting import around, descend, project
from foretrain.forecasts._law import Law
from foretrain.forecasts.curves import Course, Curve, Floats
from foretrain.parts import Facts
from foretrain.section import Section
from foretrain.spans import Span

_EXPONENTS = np.arange(0.1, 1.51, 0.1)
_TIED_STARTS = list(product((-0.5, 0.5), (3.0, 6.0, 9.0), (3.0, 6.0, 9.0)))


class SizeTerms(Section):
    """The terms of the size, taken over from another family of models."""

    log_a: float = 6.255
    """ln A."""
    alpha: float = Field(0.3527, gt=0)
    """Exponent of the parameters."""


class Chinchilla(Law):
    """L = E + A / N^alpha + B / D^beta for N parameters and D tokens seen.

    All checkpoints of the smaller models are points of the fit, and the early part of each curve is left out. E, A and
    B are 0 or more and linear given the exponents, so they are solved exactly on a grid of those. From one size alone
    the terms of N cannot be told: borrow them (`size_terms`), or predict that size alone (`size_terms: {log_a: -99}`).
    """

    kind: Literal["chinchilla"] = "chinchilla"
    facts: ClassVar[Facts] = Facts(
        paper="A Hitchhiker's Guide to Scaling Law Estimation",
        arxiv="2410.11840",
        year=2024,
        answers="what will a larger model's loss be, or after more tokens?",
    )

    early: Span = Field(0.1, ge=0)
    """What is left out at the start of each curve: a share of the run, or steps."""
    points: Literal["all", "last"] = "all"
    """All checkpoints of each curve, or its last one alone."""
    size_terms: SizeTerms | None = None
    """A and alpha of another family in place of fitted ones; what one partial run is enough for."""
    tied: bool = False
    """Fewer degrees of freedom: alpha = 0.01163 + 0.05005 ln A, and beta = 0.23710 + 0.03844 ln B, as found over many
    families of models (with N in parameters and D in tokens)."""

    @model_validator(mode="after")
    def _one_form(self) -> Chinchilla:
        if self.tied and self.size_terms is not None:
            raise ValueError("give either `tied` or `size_terms`")
        return self

    def begins(self, curve: Curve) -> int:
        return curve.last if self.points == "last" else super().begins(curve)

    def check(self, curves: Sequence[Curve]) -> None:
        """Refuse curves of one size where terms of the size are to be fitted."""
        for curve in curves:
            self.read(curve)
        if len({curve.parameters for curve in curves}) == 1 and self.size_terms is None:
            raise RequestError(
                "All curves are of one model size, so they do not tell what size is worth. Add runs of other sizes "
                "(five are a good number), or set `size_terms` to those of another family."
            )

    def read(self, course: Course) -> Floats:
        """Parameters and tokens at each of the steps."""
        if course.parameters is None or course.tokens is None:
            what = "size" if course.parameters is None else "number of tokens"
            raise RequestError(f"{course.name}: its {what} is not known, and the law chinchilla needs it.")
        return np.stack([np.full(course.steps.size, course.parameters), course.tokens], 1)

    def solve(self, read: Floats, values: Floats, near: Mapping[str, float] | None = None) -> dict[str, float]:
        """Over exponents from 0.1 to 1.5, to 0.004; the tied form by descent from eighteen starts."""
        if self.tied:
            return self._solve_tied(np.log(read), values, near)
        size, tokens = read.T
        if self.size_terms is not None:
            return self._solve_tokens(self.size_terms, size, tokens, values, near)

        def terms(exponents: tuple[float, ...]) -> Floats:
            return np.stack([np.ones_like(size), size ** -exponents[0], tokens ** -exponents[1]], 1)

        grids = [around(near, "alpha", _EXPONENTS), around(near, "beta", _EXPONENTS)]
        found = project(values, terms, grids, quick=near is not None)
        constant, a, b = (float(each) for each in found.coefficients)
        return {"E": constant, "A": a, "B": b, "alpha": found.exponents[0], "beta": found.exponents[1]}

    def _solve_tokens(
        self, borrowed: SizeTerms, size: Floats, tokens: Floats, values: Floats, near: Mapping[str, float] | None
    ) -> dict[str, float]:
        a = float(np.exp(borrowed.log_a))
        rest = values - a * size**-borrowed.alpha
        if (rest <= 0).any():
            raise RequestError(
                f"The borrowed terms of the size alone (ln A {borrowed.log_a:g}, alpha {borrowed.alpha:g}) come to "
                "more than the measured loss; borrow those of a family nearer to these models."
            )

        def terms(exponents: tuple[float, ...]) -> Floats:
            return np.stack([np.ones_like(tokens), tokens ** -exponents[0]], 1)

        found = project(rest, terms, [around(near, "beta", _EXPONENTS)], quick=near is not None)
        constant, b = (float(each) for each in found.coefficients)
        return {"E": constant, "A": a, "B": b, "alpha": borrowed.alpha, "beta": found.exponents[0]}

    def _solve_tied(self, logs: Floats, values: Floats, near: Mapping[str, float] | None) -> dict[str, float]:
        def predicted(parameters: Floats) -> Floats:
            e, a, b = parameters
            alpha, beta = tied(a, b)
            return np.logaddexp(np.logaddexp(a - alpha * logs[:, 0], b - beta * logs[:, 1]), e)

        starts = _TIED_STARTS
        if near is not None:
            e, a, b = (float(np.log(max(near[name], 1e-4))) for name in ("E", "A", "B"))
            starts = [(e, a, b)]
        e, a, b = (float(each) for each in descend(predicted, values, starts, [(-9, 5), (-0.2, 30), (-6, 20)]))
        alpha, beta = tied(a, b)
        return {"E": float(np.exp(e)), "A": float(np.exp(a)), "B": float(np.exp(b)), "alpha": alpha, "beta": beta}

    def value(self, constants: Mapping[str, float], read: Floats) -> Floats:
        size, tokens = read.T
        falls = constants["A"] * size ** -constants["alpha"] + constants["B"] * tokens ** -constants["beta"]
        return constants["E"] + falls


def tied(log_a: float, log_b: float) -> tuple[float, float]:
    """Both exponents of the tied form."""
    return 0.01163 + 0.05005 * log_a, 0.23710 + 0.03844 * log_b
