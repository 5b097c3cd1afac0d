"""Predict the end of a text whose beginning is read in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from foretrain.objectives._spans import Denoiser, Denoising
from foretrain.parts import Facts
from foretrain.section import Number


class PrefixLM(Denoising):
    """Prefix language modelling: each token of the prefix reads all of it, and the loss is of what comes after it."""

    kind: Literal["prefix_lm"] = "prefix_lm"
    facts: ClassVar[Facts] = Facts(
        paper="Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
        arxiv="1910.10683",
        year=2019,
        answers="what is predicted? the rest of a text whose beginning is read in both directions",
        overhead="a mask of attention, and rows made on the CPU",
    )

    rate: Number = Field(0.5, gt=0, le=0.5)
    """Share of the text that is predicted, on average: the end is drawn from nothing to twice that share."""

    def mixture(self) -> Mapping[str, Denoiser]:
        return {"suffix": Denoiser(rate=self.rate)}
