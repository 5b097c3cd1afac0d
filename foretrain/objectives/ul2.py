"""A mixture of denoisers: short spans, long spans and the end of the text, each announced by a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from foretrain.objectives._spans import Denoiser, Denoising
from foretrain.parts import Facts


class UL2(Denoising):
    """Mixture-of-Denoisers (MoD): each row is denoised in one of seven ways, and a mode token says in which kind.

    R-denoising cuts out short spans of a small share of the text (as T5 does), X-denoising is extreme (spans of 12
    tokens or more, or 30 % of the text or more), and S-denoising is sequential: the end of the text is asked for, as by
    a prefix language model. Inputs are read in both directions.

    Tasks ask for a mode by its name (`mode: S` of `completion_loss`, `multiple_choice` and `infill_loss`); which one is
    best for a task is a choice to tune.
    """

    kind: Literal["ul2"] = "ul2"
    facts: ClassVar[Facts] = Facts(
        paper="UL2: Unifying Language Learning Paradigms",
        arxiv="2205.05131",
        year=2022,
        answers="what is predicted? spans of all lengths, in ways that are announced",
        overhead="a mask of attention, and rows made on the CPU",
    )

    denoisers: dict[str, Denoiser] = Field(
        {
            "r3": {"rate": 0.15, "span": 3, "weight": 0.13, "mode": "R"},
            "r8": {"rate": 0.15, "span": 8, "weight": 0.13, "mode": "R"},
            "x3": {"rate": 0.5, "span": 3, "weight": 0.13, "mode": "X"},
            "x8": {"rate": 0.5, "span": 8, "weight": 0.13, "mode": "X"},
            "x64": {"rate": 0.15, "span": 64, "weight": 0.13, "mode": "X"},
            "x64-half": {"rate": 0.5, "span": 64, "weight": 0.13, "mode": "X"},
            "s": {"rate": 0.25, "weight": 0.22, "mode": "S"},
        },
        validate_default=True,
        min_length=1,
    )
    """Noise by name: `rate` of the tokens in spans of `span` on average (unset: the end of the text), the `weight` with
    which rows get it, and the `mode` token that announces it."""
    modes: bool = True
    """Whether the mode tokens stand before the inputs."""

    @model_validator(mode="after")
    def _some_weight(self) -> UL2:
        if not any(denoiser.weight > 0 for denoiser in self.denoisers.values()):
            raise ValueError("denoisers: at least one needs a weight above 0")
        return self

    def mixture(self) -> Mapping[str, Denoiser]:
        if self.modes:
            return self.denoisers
        return {name: denoiser.model_copy(update={"mode": None}) for name, denoiser in self.denoisers.items()}
