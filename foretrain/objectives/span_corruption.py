"""Write down the spans that were cut out of a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from foretrain.objectives._spans import Denoiser, Denoising
from foretrain.parts import Facts
from foretrain.section import Number


class SpanCorruption(Denoising):
    """Span corruption as T5 is trained, for a decoder: spans are cut out, and written down after what is left."""

    kind: Literal["span_corruption"] = "span_corruption"
    facts: ClassVar[Facts] = Facts(
        paper="Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
        arxiv="1910.10683",
        year=2019,
        answers="what is predicted? spans that were cut out",
        overhead="a mask of attention, and rows made on the CPU",
    )

    rate: Number = Field(0.15, gt=0, lt=1)
    """Share of the tokens that are cut out."""
    span: Number = Field(3.0, ge=1)
    """Mean length of the spans."""

    def mixture(self) -> Mapping[str, Denoiser]:
        return {"spans": Denoiser(rate=self.rate, span=self.span)}
