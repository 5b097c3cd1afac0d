"""Presets: named sizes of models, one line each.

A name is the number of parameters, embeddings included, of a `llama` with that preset at the vocabulary in its line
and with tied embeddings where the line says so; the exact number stands in the comment. `gpt2` and `bert` take the same
depth and width and come out within 10 % of the name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """A size.

    Attributes:
        layers: number of blocks.
        width: features per token between the blocks.
        heads: attention heads.
        context: tokens read at once.
        vocabulary: the vocabulary at which the name states the number of parameters.
        tied: whether input and output embeddings are one matrix.
    """

    layers: int
    width: int
    heads: int
    context: int
    vocabulary: int
    tied: bool = True

    @property
    def parameters(self) -> int:
        """Number of parameters of a `llama` of this size, embeddings included."""
        block = 4 * self.width**2 + 3 * self.width * swiglu_width(self.width) + 2 * self.width
        return self.vocabulary * self.width * (1 if self.tied else 2) + self.layers * block + self.width


PRESETS: dict[str, Preset] = {
    "0.2M": Preset(3, 64, 2, 128, 384),  #                            184,768 (384 ids: the byte tokenizer)
    "1M": Preset(5, 96, 3, 256, 4096),  #                             947,232
    "3M": Preset(5, 192, 3, 256, 4096),  #                          3,000,384
    "6M": Preset(6, 256, 4, 256, 4096),  #                          5,868,800
    "15M": Preset(8, 384, 6, 256, 4096),  #                        15,735,168
    "30M": Preset(9, 512, 8, 512, 4096),  #                        31,008,256
    "50M": Preset(10, 512, 8, 512, 32_768),  #                     48,900,608
    "125M": Preset(14, 768, 12, 1024, 32_768),  #                 124,278,528
    "350M": Preset(24, 1024, 16, 1024, 32_768),  #                341,885,952
    "1B": Preset(18, 2048, 16, 2048, 32_768),  #                  992,028,672
    "3B": Preset(36, 2560, 20, 2048, 32_768, tied=False),  #    3,022,707,200
    "7B": Preset(32, 4096, 32, 4096, 32_768, tied=False),  #    6,744,707,072
    "13B": Preset(40, 5120, 40, 4096, 32_768, tied=False),  #  13,023,728,640
}


def swiglu_width(width: int) -> int:
    """Width of a gated feed-forward layer with as many weights as a plain one of `4 * width`: 8/3, rounded up.

    To a multiple of 64, and of 256 from a width of 1024 on, as matrix units like it.
    """
    multiple = 64 if width < 1024 else 256
    return -(-8 * width // (3 * multiple)) * multiple
